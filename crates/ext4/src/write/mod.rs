//! Writing a file system.

mod census;
mod directory;
mod extents;
mod geometry;
mod groups;
mod inode;
mod journal;
mod metadata;
mod placer;
mod placing;
mod resize;
mod sink;
mod superblock;
mod xattr;

use crate::error::Error;
use crate::format::BLOCK_BYTES;
use crate::tree::{InodeId, Time, Tree};
use census::{Census, Node};
use extents::Run;
use placing::Placing;
use std::io;

pub use placer::Placer;
pub use sink::WriteAt;
pub use xattr::keeps_xattr;

/// Whether a group begins with copies of superblock and descriptors.
pub(crate) fn has_super(group: u32) -> bool {
    geometry::Geometry::has_super(group)
}

/// What a file system is besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes it has; `None`: what the content needs, and little more.
    pub size: Option<u64>,
    /// Its UUID, not all zeros. Part of every checksum.
    pub uuid: [u8; 16],
    /// Where hashes of names start; all zeros: where MD4 does.
    pub hash_seed: [u8; 16],
    /// Its label, filled up with NUL.
    pub label: [u8; 16],
    /// When it was made, also the time of what it has of its own (`lost+found`). A clock behind it makes e2fsck complain.
    pub time: Time,
    /// Whether it has a journal. What is never written needs none.
    pub journal: bool,
    /// Bytes to be free behind the content where no size is asked for.
    pub spare_bytes: u64,
    /// Inodes to be free besides those that `bytes_per_inode` gives.
    pub spare_inodes: u32,
    /// One inode for so many bytes of each whole group at least, now and when it grows. They take no space while they are
    /// not used. 0: as many as the content has.
    pub bytes_per_inode: u32,
    /// Bytes that it can grow to while it is mounted, and without moving anything. 0: no say.
    pub grow_to: u64,
}

impl Options {
    /// A file system of just the content's size, without journal, label and time, one inode for 16 KiB as mke2fs has it, able
    /// to grow to 1 TiB.
    #[must_use]
    pub fn new(uuid: [u8; 16]) -> Options {
        Options {
            size: None,
            uuid,
            hash_seed: uuid,
            label: [0; 16],
            time: Time::default(),
            journal: false,
            spare_bytes: 256 << 10,
            spare_inodes: 0,
            bytes_per_inode: 16_384,
            grow_to: 1 << 40,
        }
    }
}

/// A file system with everything decided and nothing written.
#[derive(Debug)]
pub struct Layout {
    options: Options,
    nodes: Vec<Node>,
    last: u32,
    placing: Placing,
    size: u64,
}

impl Layout {
    /// Decides where everything lies. What nothing leads to from the root is left out.
    ///
    /// # Errors
    /// The tree is not one (names, loops, a directory named twice, data beyond a file's end), has something ext4 has no form
    /// for, or does not fit the size asked for. The error names the entry.
    pub fn new(tree: &Tree, options: &Options) -> Result<Layout, Error> {
        if options.uuid == [0; 16] {
            return Err(Error::NoUuid);
        }
        let mut census = Census::of(tree, &options.hash_seed)?;
        let placing = Placing::of(tree, &mut census, options)?;
        Ok(Layout {
            options: options.clone(),
            size: options.size.unwrap_or(placing.blocks * BLOCK_BYTES),
            nodes: census.nodes,
            last: census.last,
            placing,
        })
    }

    /// Bytes that the file must have, all of them zeros before anything is written: what is not written stays a hole.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes everything but the bytes of files. `tree` is the one the layout was made of.
    ///
    /// # Errors
    /// Writing fails; the tree is another one.
    pub fn write_metadata(&self, tree: &Tree, out: &dyn WriteAt) -> io::Result<()> {
        metadata::write(self, tree, out)
    }

    /// Writes bytes of a file at an offset in it, in any order, from any thread. Only where the tree says that the file has
    /// data; bytes never placed are zeros. For many small files in the tree's order a [`Placer`] is faster.
    ///
    /// # Errors
    /// Writing fails; the file has no data there.
    pub fn place(
        &self,
        inode: InodeId,
        offset: u64,
        bytes: &[u8],
        out: &dyn WriteAt,
    ) -> io::Result<()> {
        self.pieces(inode, offset, bytes, &mut |position, piece| {
            out.write_all_at(piece, position)
        })
    }

    /// Cuts bytes of a file into pieces that are contiguous on the disk.
    fn pieces(
        &self,
        inode: InodeId,
        mut offset: u64,
        mut bytes: &[u8],
        put: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (position, contiguous) = self.position(inode, offset).ok_or_else(|| {
                let why = format!("inode {} of the tree has no data at {offset}", inode.0);
                io::Error::new(io::ErrorKind::InvalidInput, why)
            })?;
            let here = usize::try_from(contiguous).map_or(bytes.len(), |n| n.min(bytes.len()));
            put(position, &bytes[..here])?;
            offset += here as u64;
            bytes = &bytes[here..];
        }
        Ok(())
    }

    /// Where on the disk a byte of a file is, and how many bytes of the file follow there contiguously, itself included.
    /// `None` where the file has no block, and beyond its end.
    #[must_use]
    pub fn position(&self, inode: InodeId, offset: u64) -> Option<(u64, u64)> {
        let node = self.nodes.get(inode.0 as usize)?;
        let runs = self.runs(node);
        let block = u32::try_from(offset / BLOCK_BYTES).ok()?;
        let run = runs[..runs.partition_point(|run| run.logical <= block)].last()?;
        let start = u64::from(run.logical) * BLOCK_BYTES;
        let end = (start + u64::from(run.len) * BLOCK_BYTES).min(node.size);
        let disk = u64::from(run.disk) * BLOCK_BYTES + (offset - start);
        (offset < end).then(|| (disk, end - offset))
    }

    fn runs(&self, node: &Node) -> &[Run] {
        let first = node.first_run as usize;
        &self.placing.runs[first..first + node.runs as usize]
    }
}
