//! One layer of an image, read once from beginning to end: what is in it, and where in the unpacked stream the bytes of
//! its files are. A layer is a tar, packed or not; a flat archive of a root file system is the only layer of its image.

mod blob;
mod index;
mod limits;
mod name;
mod packing;
mod pax;
mod tar;

pub(crate) use blob::{Blob, Digests, Sum, Tapped};
pub(crate) use index::index;
pub use limits::Limits;
pub(crate) use limits::{Mark, TELL, Watch};
pub(crate) use name::shown;
pub(crate) use packing::{Content, Unpacked, open};
pub(crate) use tar::End;

use banger_ext4::Meta;

/// Bytes of a file, and where they are in the layer's unpacked stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub len: u64,
    /// First byte in the stream.
    pub from: u64,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path without `/` at its ends, `.` and empty components; empty for the root itself.
    pub path: Vec<u8>,
    /// Owner, mode, time, attributes; nobody's where the entry only hides or names another.
    pub meta: Meta,
    /// What it is.
    pub what: What,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A directory.
    Directory,
    /// A file; what no piece has are zeros.
    File {
        /// Its length.
        size: u64,
        /// Its bytes, ascending, without long runs of zeros.
        pieces: Vec<Piece>,
    },
    /// A symlink with this text.
    Symlink(Vec<u8>),
    /// Another name of the entry at this path.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// What lower layers have at this path is hidden.
    Whiteout,
    /// What lower layers have in this directory is hidden.
    Opaque,
}

/// What names that begin with `.wh.` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are whiteouts (OCI image specification, "Whiteouts").
    Layer,
    /// They are names like all others: nothing lies below a flat archive that could be hidden.
    Flat,
}
