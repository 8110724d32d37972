//! Where bytes go: positions of a file, and blocks gathered so that neighbours are written together.

use crate::format::BLOCK_BYTES;
use std::io;

/// Where a file system is written: positions only, from several threads.
pub trait WriteAt: Sync {
    /// Writes all bytes at a position.
    ///
    /// # Errors
    /// Not all could be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl WriteAt for std::fs::File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
}

/// Bytes gathered at most before they are written.
const GATHERED: usize = 1 << 20;
/// Pieces of this length are not worth copying.
const LARGE: usize = 128 << 10;

/// Gathers what is written one after the other.
pub struct Sink<'a> {
    out: &'a dyn WriteAt,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Sink<'a> {
    /// A sink in front of `out`.
    pub fn new(out: &'a dyn WriteAt) -> Self {
        Sink {
            out,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// Writes bytes at a position, sooner or later.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != self.end() || self.bytes.len() + bytes.len() > GATHERED {
            self.flush()?;
        }
        if self.bytes.is_empty() && bytes.len() >= LARGE {
            self.start = offset + bytes.len() as u64;
            return self.out.write_all_at(bytes, offset);
        }
        if self.bytes.is_empty() {
            self.start = offset;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes a block.
    pub fn block(&mut self, block: u32, bytes: &[u8]) -> io::Result<()> {
        self.put(u64::from(block) * BLOCK_BYTES, bytes)
    }

    /// Writes what has been gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.out.write_all_at(&self.bytes, self.start)?;
            self.start = self.end();
            self.bytes.clear();
        }
        Ok(())
    }

    /// The position after what was put last.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}
