//! The tar format: POSIX (ustar with pax headers) is written; GNU's long names and both vendors' sparse files are
//! read as well, because a tar on standard input comes from any program.

mod fields;
mod pax;
mod read;
mod sparse;
mod write;

#[cfg(test)]
mod tests;

pub use read::Reader;
pub use write::{END, header, padding};

/// Size of a block in bytes.
pub const BLOCK: usize = 512;
/// Longest pax header or long name that is read, in bytes; Linux has no name that is longer than 4096.
pub const MAX_EXTENSION: u64 = 1024 * 1024;
/// Most pieces of data in one sparse file.
pub const MAX_EXTENTS: usize = 256 * 1024;

/// A moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

/// Where data lies in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
        /// Where its data lies, ascending, if it has holes. The data follows in this order.
        data: Option<Vec<Extent>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// One more name of a file before it.
    HardLink {
        /// That file's path in the stream.
        target: Vec<u8>,
    },
    /// A device, a fifo or something of one vendor.
    Other {
        /// What it is called.
        name: &'static str,
    },
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path as it is written in the stream.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// When it was changed.
    pub mtime: Time,
}
