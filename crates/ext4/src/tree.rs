//! What a file system holds, but for the bytes of its files.

/// Which inode of a [`Tree`]: its place in [`Tree::inodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);
}

/// Every inode of a file system. The first is the root directory. An inode that several entries name has several hard
/// links; a directory is named once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The inodes; entries refer to them by their place.
    pub inodes: Vec<Inode>,
}

/// One file, directory, link or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// What every inode has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content; the other times are the same.
    pub mtime: Time,
    /// Extended attributes, by name.
    pub xattrs: Vec<Xattr>,
}

/// A point in time, as a file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970, before it if negative.
    pub seconds: i64,
    /// Nanoseconds of the second, below 1 000 000 000.
    pub nanos: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Whole name, as `getxattr` takes it: `security.capability`, `user.x`, `system.posix_acl_access`.
    pub name: Box<[u8]>,
    /// Its bytes, as `getxattr` gives them.
    pub value: Box<[u8]>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; `.` and `..` are understood.
    Directory(Vec<Entry>),
    /// A file.
    File {
        /// Length in bytes.
        size: u64,
        /// What of it holds bytes, in order, not overlapping, within `size`; the rest reads as zeros and takes no space.
        data: Vec<Extent>,
    },
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// 1 to 255 bytes without NUL and `/`, neither `.` nor `..`.
    pub name: Box<[u8]>,
    /// What it names.
    pub inode: InodeId,
}

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub len: u64,
}
