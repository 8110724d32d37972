//! ext4 file systems written straight into a file from a tree of inodes, and read back: no mount, no root, no program.
//!
//! A [`Tree`] says what the file system holds but for the bytes of its files. From it alone every block's place is
//! decided, so the bytes can come in any order, from several threads, and each is written once.

mod checksum;
mod error;
mod format;
mod hash;
mod read;
mod tree;
mod write;

pub use error::{Error, Path, Why};
pub use read::{Content, FileSystem, FileType, Named, Node, ReadAt, ReadError};
pub use tree::{Entry, Extent, Inode, InodeId, Kind, Meta, Time, Tree, Xattr};
pub use write::{Layout, Options, Placer, WriteAt, keeps_xattr};
