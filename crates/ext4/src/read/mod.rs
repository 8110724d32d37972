//! Reading a file system without mounting it. Whatever the bytes are, nothing here panics, loops or takes memory beyond what
//! is asked for: offsets are checked where they are used, trees have at most five levels, links are followed forty times,
//! paths and what is read for one have an end.

mod journal;
mod node;
mod source;
mod volume;
mod xattr;

pub use node::{FileType, Node};
pub use source::{ReadAt, ReadError};

use crate::tree::Extent;
use node::{Run, runs_of};
use source::{get16, get32};
use volume::Volume;

/// Directories longer than this, or of more entries, are not read.
const MAX_DIRECTORY: u64 = 1 << 30;
const MAX_ENTRIES: usize = 4 << 20;
/// Symbolic links followed in one path, as the kernel has it.
const MAX_LINKS: u32 = 40;
/// Bytes of a path, and of each link's target on it, as the kernel has it.
const MAX_PATH: usize = 4096;
/// Bytes of directories read on the way of one path: a path may lead through a long one again and again.
const MAX_WALK: u64 = MAX_DIRECTORY;
/// The longest target of a link.
const MAX_TARGET: u64 = 65_536;

/// A file system being read. What its journal holds and has not been written back is seen as if it had been.
#[derive(Debug)]
pub struct FileSystem<R> {
    volume: Volume<R>,
}

/// A name in a directory, and the number of the inode it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its bytes: no `/` and no NUL, not empty.
    pub name: Box<[u8]>,
    /// Number of the inode.
    pub inode: u32,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub struct Content {
    runs: Vec<Run>,
    size: u64,
}

impl<R: ReadAt> FileSystem<R> {
    /// Number of the root directory.
    pub const ROOT: u32 = crate::format::number::ROOT;

    /// Reads what tells about the file system.
    ///
    /// # Errors
    /// There is none, it is damaged or uses what is not read here.
    pub fn open(source: R) -> Result<Self, ReadError> {
        let mut volume = Volume::open(source)?;
        if volume.needs_recovery() {
            let journal = Node::read(&volume, volume.journal()?)?;
            let runs = runs_of(&volume, &journal)?;
            let recovered = journal::recover(&volume, &runs, journal.size)?;
            volume = volume.with_overlay(recovered)?;
        }
        Ok(FileSystem { volume })
    }

    /// An inode.
    ///
    /// # Errors
    /// There is none of this number, or it is damaged.
    pub fn node(&self, number: u32) -> Result<Node, ReadError> {
        Node::read(&self.volume, number)
    }

    /// What a directory holds, without `.` and `..`.
    ///
    /// # Errors
    /// It is none, or is damaged.
    pub fn entries(&self, directory: &Node) -> Result<Vec<Named>, ReadError> {
        if directory.file_type != FileType::Directory {
            return Err(ReadError::NotADirectory);
        }
        if directory.size > MAX_DIRECTORY {
            return Err(ReadError::Damaged("a directory is longer than any can be"));
        }
        let content = self.content(directory)?;
        let mut entries = Vec::new();
        let mut block = vec![0; self.volume.block];
        for offset in (0..directory.size).step_by(self.volume.block) {
            let read = self.read(&content, offset, &mut block)?;
            // Blocks of a hash tree look like blocks with one unused entry.
            entries_of(&block[..read], &mut entries)?;
            if entries.len() > MAX_ENTRIES {
                return Err(ReadError::Unsupported("a directory of millions of entries"));
            }
        }
        Ok(entries)
    }

    /// What a path names. `/` at its beginning is nothing, `..` leads to the parent; links on the way are followed inside the
    /// file system, and the last one if `follow`.
    ///
    /// # Errors
    /// There is nothing of this name, or the way there is damaged or longer than is followed.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Node, ReadError> {
        let mut ahead: Vec<Vec<u8>> = parts(path)?;
        let mut way = vec![self.node(Self::ROOT)?];
        let (mut links, mut walked) = (0, 0_u64);
        while let Some(part) = ahead.pop() {
            if part == b".." {
                way.truncate(way.len().max(2) - 1);
                continue;
            }
            let here = way.last().ok_or(ReadError::NotFound)?;
            walked = walked.saturating_add(here.size);
            if here.file_type == FileType::Directory && walked > MAX_WALK {
                return Err(ReadError::Unsupported(
                    "a path through so many long directories",
                ));
            }
            let entries = self.entries(here)?;
            let found = entries.into_iter().find(|entry| *entry.name == *part);
            let node = self.node(found.ok_or(ReadError::NotFound)?.inode)?;
            if node.file_type != FileType::Symlink || (ahead.is_empty() && !follow) {
                way.push(node);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(ReadError::TooManyLinks);
            }
            let target = self.target(&node)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            ahead.extend(parts(&target)?);
        }
        way.pop().ok_or(ReadError::NotFound)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// It is no link, or is damaged.
    pub fn target(&self, link: &Node) -> Result<Vec<u8>, ReadError> {
        if link.file_type != FileType::Symlink || link.size > MAX_TARGET {
            return Err(ReadError::Damaged("a symbolic link has no target"));
        }
        let mut target = vec![0; usize::try_from(link.size).unwrap_or(0)];
        if let Some(short) = link.short_target() {
            target.copy_from_slice(short);
        } else {
            self.read(&self.content(link)?, 0, &mut target)?;
        }
        Ok(target)
    }

    /// Where the bytes of a file are.
    ///
    /// # Errors
    /// It is damaged, or its blocks are told in a way that is not read here.
    pub fn content(&self, node: &Node) -> Result<Content, ReadError> {
        let runs = runs_of(&self.volume, node)?;
        let size = node.size;
        Ok(Content { runs, size })
    }

    /// Where a file has blocks: what lies between reads as zeros. Ends with the file.
    #[must_use]
    pub fn data(&self, content: &Content) -> Vec<Extent> {
        let block = self.volume.block as u64;
        let mut data: Vec<Extent> = Vec::new();
        for run in &content.runs {
            let offset = u64::from(run.logical) * block;
            let end = (offset + u64::from(run.len) * block).min(content.size);
            if offset >= end {
                continue;
            }
            match data.last_mut() {
                Some(last) if last.offset + last.len == offset => last.len = end - last.offset,
                _ => data.push(Extent {
                    offset,
                    len: end - offset,
                }),
            }
        }
        data
    }

    /// Reads bytes of a file or directory; how many, fewer than asked for only at its end.
    ///
    /// # Errors
    /// They cannot be read, or lie beyond the file system.
    pub fn read(
        &self,
        content: &Content,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, ReadError> {
        let left = usize::try_from(content.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = bytes.len().min(left);
        let bytes = &mut bytes[..wanted];
        bytes.fill(0);
        let block = self.volume.block as u64;
        let end = offset + wanted as u64;
        let first = content
            .runs
            .partition_point(|run| (u64::from(run.logical) + u64::from(run.len)) * block <= offset);
        for run in &content.runs[first..] {
            let start = u64::from(run.logical) * block;
            let from = start.max(offset);
            let to = (start + u64::from(run.len) * block).min(end);
            if from >= to {
                break;
            }
            let here = index(from - offset)..index(to - offset);
            let disk = run.disk.saturating_mul(block).saturating_add(from - start);
            self.volume.read(disk, &mut bytes[here])?;
        }
        Ok(wanted)
    }

    /// Extended attributes, as `getxattr` gives them.
    ///
    /// # Errors
    /// They are damaged.
    pub fn xattrs(&self, node: &Node) -> Result<Vec<crate::Xattr>, ReadError> {
        xattr::read(&self.volume, node)
    }
}

/// Within a buffer, so it fits.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// A path's components, the last first.
fn parts(path: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
    // The kernel counts the NUL at the end.
    if path.len() >= MAX_PATH {
        return Err(ReadError::NameTooLong);
    }
    let parts = path.split(|&byte| byte == b'/').rev();
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    Ok(parts.map(<[u8]>::to_vec).collect())
}

/// Entries of one block.
fn entries_of(block: &[u8], entries: &mut Vec<Named>) -> Result<(), ReadError> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let length = match usize::from(get16(block, at + 4)) {
            // In blocks of 65536 bytes.
            0 | 0xffff => block.len() - at,
            length => length,
        };
        let name_length = usize::from(block[at + 6]);
        if length < 8 || at + length > block.len() || 8 + name_length > length {
            return Err(ReadError::Damaged("a directory's entry leaves its block"));
        }
        let name = &block[at + 8..at + 8 + name_length];
        let inode = get32(block, at);
        if inode != 0 && name != b"." && name != b".." {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return Err(ReadError::Damaged("a directory has a name that is none"));
            }
            let name = name.into();
            entries.push(Named { name, inode });
        }
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::entries_of;

    /// Entries of a block, each given by where it is, its length, and its name's.
    fn count(block: usize, entries: &[(usize, u16, u8)]) -> Option<usize> {
        let mut bytes = vec![b'x'; block];
        for &(at, length, name) in entries {
            bytes[at..at + 4].copy_from_slice(&12u32.to_le_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&length.to_le_bytes());
            bytes[at + 6] = name;
        }
        let mut found = Vec::new();
        entries_of(&bytes, &mut found).ok()?;
        Some(found.len())
    }

    #[test]
    fn entries_stay_in_their_block_and_names_in_their_entry() {
        assert_eq!(count(64, &[(0, 16, 3), (16, 48, 40)]), Some(2));
        assert_eq!(count(64, &[(0, 16, 3), (16, 52, 3)]), None);
        assert_eq!(count(64, &[(0, 16, 3), (16, 300, 255)]), None);
        assert_eq!(count(64, &[(0, 16, 9), (16, 48, 1)]), None);
        assert_eq!(count(64, &[(0, 4, 1)]), None);
        assert_eq!(count(64, &[(0, 64, 0)]), None);
    }
}
