//! Why a tree cannot be a file system.

use crate::tree::{Kind, Tree};
use std::fmt;

/// Why a tree cannot be written as ext4. Each names the entry it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first inode is no directory.
    #[error("the first inode of the tree is not a directory, so there is no root")]
    NoRoot,
    /// No UUID was given.
    #[error("the UUID is all zeros, which means none")]
    NoUuid,
    /// An entry's name is not one.
    #[error("{path}: {why}")]
    Name {
        /// The entry.
        path: Path,
        /// What is wrong with the name.
        why: &'static str,
    },
    /// Two entries of one directory have one name.
    #[error("{path}: two entries have this name")]
    Duplicate {
        /// The entry.
        path: Path,
    },
    /// An entry refers to an inode that is not there.
    #[error("{path}: refers to inode {inode} of a tree of {inodes}")]
    NoInode {
        /// The entry.
        path: Path,
        /// What it refers to.
        inode: u32,
        /// How many there are.
        inodes: usize,
    },
    /// A directory has two names, or is below itself.
    #[error(
        "{path}: this directory has another name or is one of its own parents; a directory has one name"
    )]
    DirectoryAgain {
        /// The second name.
        path: Path,
    },
    /// Something ext4 has no room for or no form for.
    #[error("{path}: {why}")]
    Inode {
        /// One of the inode's names.
        path: Path,
        /// What does not fit.
        why: Why,
    },
    /// More inodes than the format numbers.
    #[error("{0} inodes are more than one file system numbers")]
    TooManyInodes(u64),
    /// The content does not fit the size asked for.
    #[error("the content needs {needed} bytes, the file system is to have {size}")]
    TooSmall {
        /// What was asked for.
        size: u64,
        /// What would do.
        needed: u64,
    },
    /// More than the writer makes.
    #[error(
        "{size} bytes are more than a file system with blocks of 4096 bytes and 32-bit block numbers has (16 TiB)"
    )]
    TooLarge {
        /// What was asked for, or is needed.
        size: u64,
    },
}

/// What about an inode has no form in ext4.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nanoseconds of a second or more.
    #[error("the nanoseconds of its time are {0}, a second has 1000000000")]
    Nanos(u32),
    /// Mode bits beyond `07777`.
    #[error("mode {0:o} has bits beyond 7777")]
    Mode(u16),
    /// A file's data lies outside the file, overlaps, is out of order or empty.
    #[error("bytes {offset} to {end} of its data are empty, out of order or beyond its size")]
    Data {
        /// First byte.
        offset: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Files end at 2^32 blocks.
    #[error("{0} bytes are more than a file has (16 TiB)")]
    Size(u64),
    /// Targets have 1 to 4095 bytes.
    #[error("its target has {0} bytes, a symbolic link's has 1 to 4095")]
    TargetLength(usize),
    /// Targets end at NUL.
    #[error("its target has a NUL byte")]
    TargetNul,
    /// Device numbers have 12 and 20 bits.
    #[error("device {major}:{minor} is beyond 4095:1048575")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// More names than `i_links_count` counts.
    #[error("it has {0} names, a file has at most 65000")]
    Links(u64),
    /// More entries than two levels of hash tree hold.
    #[error("the names of this directory take {0} blocks, its hash tree reaches 258570")]
    Directory(u64),
    /// An attribute's name.
    #[error("attribute {name}: {why}")]
    Xattr {
        /// Its name.
        name: Path,
        /// What is wrong.
        why: &'static str,
    },
    /// Attributes have what is left of the inode, and one block.
    #[error(
        "its extended attributes do not fit: attribute {name} would need {bytes} bytes more than inode and block have"
    )]
    XattrsTooLarge {
        /// The first one for which there is no room.
        name: Path,
        /// Bytes missing.
        bytes: usize,
    },
    /// `lost+found` of the root is where e2fsck puts what it finds.
    #[error("in the root directory this name must be a directory")]
    LostAndFound,
}

/// Bytes of a path or name, shown with what is not text escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Path(pub Box<[u8]>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char.is_control() || char == '\\' {
                    write!(f, "{}", char.escape_default())?;
                } else {
                    write!(f, "{char}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Path {
    /// One of the paths of an inode, found by searching the tree: errors are rare, so no one remembers parents for them.
    pub(crate) fn of(tree: &Tree, inode: usize) -> Path {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = inode;
        // A tree that is being refused may have loops; no path is longer than the tree.
        while at != 0 && parts.len() <= tree.inodes.len() {
            let Some((parent, name)) = named(tree, at) else {
                break;
            };
            parts.push(name);
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Path(path.into())
    }

    /// The path of an entry of a directory.
    pub(crate) fn below(tree: &Tree, directory: usize, name: &[u8]) -> Path {
        let mut path = Path::of(tree, directory).0.into_vec();
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Path(path.into())
    }
}

/// The first entry that names an inode.
fn named(tree: &Tree, inode: usize) -> Option<(usize, &[u8])> {
    tree.inodes.iter().enumerate().find_map(|(id, parent)| {
        let Kind::Directory(entries) = &parent.kind else {
            return None;
        };
        let entry = entries
            .iter()
            .find(|entry| entry.inode.0 as usize == inode)?;
        Some((id, &entry.name[..]))
    })
}
