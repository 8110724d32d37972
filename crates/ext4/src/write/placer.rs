//! Bytes of many files written together.

use super::Layout;
use super::sink::{Sink, WriteAt};
use crate::format::{BLOCK, BLOCK_BYTES};
use crate::tree::InodeId;
use std::io;

/// Places bytes of files as [`Layout::place`] does, but gathers those that follow each other on the disk: a thread that places
/// small files in the tree's order writes a megabyte at a time, not a file. Several threads have one each. What has been gathered
/// is lost without [`Placer::finish`].
#[must_use = "what has been gathered is written by finish"]
pub struct Placer<'a> {
    layout: &'a Layout,
    sink: Sink<'a>,
    /// Zeros that may be written behind what was put last: what a file's last block has beyond the file, where no one else
    /// ever writes.
    padding: u64,
}

impl<'a> Placer<'a> {
    /// A placer that has gathered nothing.
    pub fn new(layout: &'a Layout, out: &'a dyn WriteAt) -> Self {
        Placer {
            layout,
            sink: Sink::new(out),
            padding: 0,
        }
    }

    /// Writes bytes of a file at an offset in it, at the latest with [`Placer::finish`].
    ///
    /// # Errors
    /// Writing fails, perhaps of bytes placed before; the file has no data there.
    pub fn place(&mut self, inode: InodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Placer {
            layout,
            sink,
            padding,
        } = self;
        layout.pieces(inode, offset, bytes, &mut |position, piece| {
            let end = sink.end();
            if *padding > 0 && position == end + *padding {
                let zeros = usize::try_from(*padding).unwrap_or(0);
                sink.put(end, &[0; BLOCK][..zeros])?;
            }
            *padding = 0;
            sink.put(position, piece)
        })?;
        let end = offset + bytes.len() as u64;
        let size = layout.nodes.get(inode.0 as usize).map(|node| node.size);
        if size == Some(end) && !bytes.is_empty() {
            *padding = end.next_multiple_of(BLOCK_BYTES) - end;
        }
        Ok(())
    }

    /// Writes what has been gathered.
    ///
    /// # Errors
    /// Writing fails.
    pub fn finish(mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
