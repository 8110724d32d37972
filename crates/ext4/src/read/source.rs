//! Where a file system is read from, what goes wrong, and numbers out of bytes.

use std::io;

/// Where a file system is read from: positions only.
pub trait ReadAt {
    /// Fills the buffer from a position.
    ///
    /// # Errors
    /// There are not so many bytes, or they cannot be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, bytes, offset)
    }
}

/// A file system in memory.
impl ReadAt for [u8] {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = io::ErrorKind::UnexpectedEof;
        let from = usize::try_from(offset).map_err(|_| end)?;
        let found = self.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(end)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(bytes, offset)
    }
}

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source cannot be read.
    #[error("the file system cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no ext4 file system.
    #[error("this is no ext4 file system: its superblock has no mark")]
    NotExt4,
    /// The file system, or one file, uses something that is not read here.
    #[error("the file system uses {0}, which is not read here")]
    Unsupported(&'static str),
    /// What is there contradicts itself.
    #[error("the file system is damaged: {0}; check it with e2fsck")]
    Damaged(&'static str),
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// A name below something that is no directory.
    #[error("not a directory")]
    NotADirectory,
    /// A path, or what a link on the way adds to it, is longer than Linux takes.
    #[error("file name too long")]
    NameTooLong,
    /// Symbolic links lead to symbolic links without end.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
}

/// Two bytes, lowest first; zero beyond the end.
pub fn get16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Four bytes, lowest first; zero beyond the end.
pub fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from(get16(bytes, at)) | u32::from(get16(bytes, at + 2)) << 16
}

/// A number in two halves.
pub fn get64(bytes: &[u8], low: usize, high: usize) -> u64 {
    u64::from(get32(bytes, low)) | u64::from(get32(bytes, high)) << 32
}

/// Four bytes, highest first, as the journal has them.
pub fn get32_be(bytes: &[u8], at: usize) -> u32 {
    get32(bytes, at).swap_bytes()
}
