//! An inode being read, and where its blocks are.

use super::source::{ReadAt, ReadError, get16, get32};
use super::volume::Volume;
use crate::format::{flag, mode};
use crate::tree::Time;

/// What a file has is told by inline bytes of its inode; not read here.
const INLINE_DATA: u32 = 0x1000_0000;
/// A file's bytes are encrypted.
const ENCRYPTED: u32 = 0x800;
/// Levels of a tree of extents.
const MAX_DEPTH: u16 = 5;
/// Pieces of one file that are remembered at most, and blocks of its tree that are looked at: hostile ones lead to one block
/// many times.
const MAX_RUNS: usize = 4 << 20;
const MAX_BLOCKS: usize = 1 << 16;

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number: two names of one number are hard links.
    pub number: u32,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; 1 for a directory of very many.
    pub links: u16,
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    pub(super) bytes: Vec<u8>,
}

/// Blocks of a file that follow each other on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub logical: u32,
    pub len: u32,
    pub disk: u64,
}

impl Node {
    /// Reads one and checks its checksum.
    pub fn read<R: ReadAt>(volume: &Volume<R>, number: u32) -> Result<Node, ReadError> {
        let bytes = volume.inode_bytes(number)?;
        let halves =
            |low, high| u32::from(get16(&bytes, low)) | u32::from(get16(&bytes, high)) << 16;
        if let Some(checksum) = volume.checksum {
            let mut blank = bytes.clone();
            blank[0x7c..0x7e].fill(0);
            let large = bytes.len() > 128 && get16(&bytes, 0x80) >= 4;
            if large {
                blank[0x82..0x84].fill(0);
            }
            let sum = checksum
                .word(number)
                .word(get32(&bytes, 0x64))
                .bytes(&blank);
            let found = if large {
                halves(0x7c, 0x82)
            } else {
                u32::from(get16(&bytes, 0x7c))
            };
            let mask = if large { u32::MAX } else { 0xffff };
            if sum.value() & mask != found {
                return Err(ReadError::Damaged("an inode's checksum is wrong"));
            }
        }
        let file_type = match get16(&bytes, 0) & 0xf000 {
            mode::FIFO => FileType::Fifo,
            mode::CHAR => FileType::CharDevice,
            mode::DIRECTORY => FileType::Directory,
            mode::BLOCK => FileType::BlockDevice,
            mode::REGULAR => FileType::File,
            mode::SYMLINK => FileType::Symlink,
            mode::SOCKET => FileType::Socket,
            _ => return Err(ReadError::Damaged("an inode is of no type")),
        };
        let extra = if bytes.len() > 128 && get16(&bytes, 0x80) >= 12 {
            get32(&bytes, 0x88)
        } else {
            0
        };
        let seconds = i64::from(get32(&bytes, 0x10).cast_signed()) + (i64::from(extra & 3) << 32);
        Ok(Node {
            number,
            file_type,
            mode: get16(&bytes, 0) & 0o7777,
            uid: halves(0x02, 0x78),
            gid: halves(0x18, 0x7a),
            links: get16(&bytes, 0x1a),
            size: super::source::get64(&bytes, 0x04, 0x6c),
            mtime: Time {
                seconds,
                nanos: (extra >> 2).min(999_999_999),
            },
            bytes,
        })
    }

    fn flags(&self) -> u32 {
        get32(&self.bytes, 0x20)
    }

    /// The device's numbers, if it is one.
    #[must_use]
    pub fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.file_type, FileType::CharDevice | FileType::BlockDevice) {
            return None;
        }
        let (old, new) = (get32(&self.bytes, 0x28), get32(&self.bytes, 0x2c));
        Some(if old != 0 {
            (old >> 8 & 0xff, old & 0xff)
        } else {
            (new >> 8 & 0xfff, (new & 0xff) | (new >> 12 & 0xf_ff00))
        })
    }

    /// The target of a link that is kept in the inode.
    pub(super) fn short_target(&self) -> Option<&[u8]> {
        let size = usize::try_from(self.size).ok()?;
        let short = self.flags() & flag::EXTENTS == 0 && size < 60;
        short.then(|| &self.bytes[0x28..0x28 + size])
    }
}

/// A file's runs of blocks, in order; those that were reserved but never written are left out.
pub fn runs_of<R: ReadAt>(volume: &Volume<R>, node: &Node) -> Result<Vec<Run>, ReadError> {
    let content = matches!(
        node.file_type,
        FileType::Directory | FileType::File | FileType::Symlink
    );
    if !content || node.size == 0 {
        return Ok(Vec::new());
    }
    match node.flags() {
        flags if flags & INLINE_DATA != 0 => {
            return Err(ReadError::Unsupported("files kept in inodes"));
        }
        flags if flags & ENCRYPTED != 0 => return Err(ReadError::Unsupported("encryption")),
        flags if flags & flag::EXTENTS == 0 => {
            return Err(ReadError::Unsupported("maps of blocks as ext3 has them"));
        }
        _ => {}
    }
    let depth = get16(&node.bytes, 0x28 + 6);
    if depth > MAX_DEPTH {
        return Err(ReadError::Damaged("a tree of extents is too deep"));
    }
    let mut walk = Walk {
        volume,
        node,
        runs: Vec::new(),
        blocks: 0,
    };
    walk.below(&node.bytes[0x28..0x64], depth)?;
    Ok(walk.runs)
}

/// A tree of extents being walked.
struct Walk<'a, R> {
    volume: &'a Volume<R>,
    node: &'a Node,
    runs: Vec<Run>,
    blocks: usize,
}

impl<R: ReadAt> Walk<'_, R> {
    fn below(&mut self, bytes: &[u8], depth: u16) -> Result<(), ReadError> {
        let entries = usize::from(get16(bytes, 2));
        // The depth must be what the level above says, so that no tree leads back into itself.
        let fits = 12 + entries * 12 <= bytes.len();
        if get16(bytes, 0) != 0xf30a || get16(bytes, 6) != depth || !fits {
            return Err(ReadError::Damaged("a tree of extents is not one"));
        }
        for entry in bytes[12..12 + entries * 12].chunks_exact(12) {
            if depth == 0 {
                self.extent(entry)?;
            } else {
                let disk = u64::from(get16(entry, 8)) << 32 | u64::from(get32(entry, 4));
                let block = self.block(disk)?;
                self.below(&block, depth - 1)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, disk: u64) -> Result<Vec<u8>, ReadError> {
        self.blocks += 1;
        if self.blocks > MAX_BLOCKS {
            return Err(ReadError::Damaged("a tree of extents has no end"));
        }
        let mut block = vec![0; self.volume.block];
        let offset = disk.saturating_mul(self.volume.block as u64);
        self.volume.read(offset, &mut block)?;
        check_tail(self.volume, self.node, &block)?;
        Ok(block)
    }

    fn extent(&mut self, entry: &[u8]) -> Result<(), ReadError> {
        let disk = u64::from(get16(entry, 6)) << 32 | u64::from(get32(entry, 8));
        let (logical, len) = (get32(entry, 0), u32::from(get16(entry, 4)));
        let last = self.runs.last();
        let behind = last.is_some_and(|last| logical < last.logical.saturating_add(last.len));
        let ends = logical.checked_add(len.min(32_768)).is_some();
        if behind || !ends || self.runs.len() >= MAX_RUNS {
            return Err(ReadError::Damaged("extents are out of order"));
        }
        // Longer ones were reserved and never written.
        if (1..=32_768).contains(&len) {
            self.runs.push(Run { logical, len, disk });
        }
        Ok(())
    }
}

fn check_tail<R>(volume: &Volume<R>, node: &Node, block: &[u8]) -> Result<(), ReadError> {
    let Some(checksum) = volume.checksum else {
        return Ok(());
    };
    let tail = 12 + usize::from(get16(block, 4)) * 12;
    let generation = get32(&node.bytes, 0x64);
    let sum = checksum.word(node.number).word(generation);
    let covered = block
        .get(..tail)
        .ok_or(ReadError::Damaged("a tree of extents is not one"))?;
    if sum.bytes(covered).value() != get32(block, tail) {
        return Err(ReadError::Damaged("a checksum of extents is wrong"));
    }
    Ok(())
}
