//! Numbers of the format and how they are put into bytes: little endian, everywhere but in the journal.
//!
//! After the kernel's `Documentation/filesystems/ext4/` and `fs/ext4/ext4.h`.

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// The same, for reckoning with positions.
pub const BLOCK_BYTES: u64 = BLOCK as u64;
/// Blocks of a group: what one block of bitmap can tell.
pub const GROUP_BLOCKS: u32 = 8 * BLOCK as u32;
/// Inodes of a group at most: what one block of bitmap can tell.
pub const GROUP_INODES: u32 = 8 * BLOCK as u32;
/// Bytes of an inode.
pub const INODE: usize = 256;
/// Inodes in a block.
pub const BLOCK_INODES: u32 = (BLOCK / INODE) as u32;
/// Bytes of an inode's record that say something; attributes follow.
pub const INODE_USED: usize = 160;
/// Bytes of a group's descriptor, with feature `64bit`.
pub const DESCRIPTOR: usize = 64;
/// Descriptors in a block.
pub const BLOCK_DESCRIPTORS: u32 = (BLOCK / DESCRIPTOR) as u32;
/// Where the superblock lies in the first block.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Bytes of the superblock.
pub const SUPERBLOCK: usize = 1024;
/// Links that a file has at most; a directory of more subdirectories says 1.
pub const MAX_LINKS: u32 = 65_000;

/// Inodes with a meaning of their own.
pub mod number {
    /// The root directory.
    pub const ROOT: u32 = 2;
    /// Owner of the blocks kept for more group descriptors.
    pub const RESIZE: u32 = 7;
    /// The journal.
    pub const JOURNAL: u32 = 8;
    /// The first that is free for use; by custom `lost+found`.
    pub const FIRST: u32 = 11;
}

/// `i_flags`.
pub mod flag {
    /// A directory with a hash tree.
    pub const INDEX: u32 = 0x1000;
    /// The blocks are told by extents.
    pub const EXTENTS: u32 = 0x8_0000;
}

/// `i_mode`: the type of an inode.
pub mod mode {
    /// Named pipe.
    pub const FIFO: u16 = 0x1000;
    /// Character device.
    pub const CHAR: u16 = 0x2000;
    /// Directory.
    pub const DIRECTORY: u16 = 0x4000;
    /// Block device.
    pub const BLOCK: u16 = 0x6000;
    /// Regular file.
    pub const REGULAR: u16 = 0x8000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0xA000;
    /// Socket.
    pub const SOCKET: u16 = 0xC000;
}

/// Bytes being filled in by position.
pub trait Put {
    /// Puts a byte.
    fn put8(&mut self, at: usize, value: u8);
    /// Puts two bytes, lowest first.
    fn put16(&mut self, at: usize, value: u16);
    /// Puts four bytes, lowest first.
    fn put32(&mut self, at: usize, value: u32);
    /// Puts bytes as they are.
    fn put(&mut self, at: usize, bytes: &[u8]);
}

impl Put for [u8] {
    fn put8(&mut self, at: usize, value: u8) {
        self[at] = value;
    }

    fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The low half of a number that the format splits.
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub fn low32(value: u64) -> u32 {
    value as u32
}

/// The high half of a number that the format splits.
pub fn high32(value: u64) -> u32 {
    low32(value >> 32)
}

/// The low half of a number that the format splits.
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub fn low16(value: u32) -> u16 {
    value as u16
}

/// The high half of a number that the format splits.
pub fn high16(value: u32) -> u16 {
    low16(value >> 16)
}
