//! The superblock (`Documentation/filesystems/ext4/super.rst`).

use super::geometry::Geometry;
use crate::checksum::Checksum;
use crate::format::{GROUP_BLOCKS, INODE, INODE_USED, Put, SUPERBLOCK, low16, number};
use crate::tree::Time;

/// Features a kernel may be ignorant of: attributes, hashed directories.
const COMPAT: u32 = 0x8 | 0x20;
/// There is a journal.
const COMPAT_JOURNAL: u32 = 0x4;
/// There are blocks kept for more group descriptors.
const COMPAT_RESIZE: u32 = 0x10;
/// Features a kernel must know: types in directories, extents, 64-bit descriptors, groups' tables anywhere.
const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// Features a kernel must know to write: few copies of superblocks, large files, huge files, directories of many
/// subdirectories, large inodes, checksums.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// Names are hashed as unsigned bytes.
const UNSIGNED_HASH: u32 = 0x2;
/// Mounted with attributes and ACLs unless told otherwise.
const MOUNT_XATTR_ACL: u32 = 0x4 | 0x8;
/// Groups whose tables the kernel places together when it adds groups, as a power of two.
const LOG_FLEX: u8 = 4;

/// What the superblock says.
#[derive(Debug)]
pub struct Superblock<'a> {
    /// Groups.
    pub geometry: &'a Geometry,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free inodes.
    pub free_inodes: u32,
    /// UUID.
    pub uuid: &'a [u8; 16],
    /// Where hashes of names start.
    pub hash_seed: &'a [u8; 16],
    /// Label.
    pub label: &'a [u8; 16],
    /// When it was made.
    pub time: Time,
    /// The journal's extents and length, if there is one.
    pub journal: Option<(super::extents::Fork, u64)>,
}

impl Superblock<'_> {
    /// The copy that a group has.
    pub fn encode(&self, group: u32) -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        self.sizes(&mut bytes);
        self.identity(&mut bytes);
        bytes.put16(0x5a, low16(group));
        let compat = if self.journal.is_some() {
            COMPAT_JOURNAL
        } else {
            0
        };
        let resize = if self.geometry.reserved_blocks > 0 {
            COMPAT_RESIZE
        } else {
            0
        };
        bytes.put32(0x5c, COMPAT | compat | resize);
        bytes.put32(0x60, INCOMPAT);
        bytes.put32(0x64, RO_COMPAT);
        if let Some((fork, size)) = &self.journal {
            bytes.put32(0xe0, number::JOURNAL);
            bytes.put8(0xfd, 1); // the journal's inode is copied below
            bytes.put(0x10c, fork);
            bytes.put32(0x10c + 60, crate::format::high32(*size));
            bytes.put32(0x10c + 64, crate::format::low32(*size));
        }
        let sum = Checksum::START.bytes(&bytes[..0x3fc]).value();
        bytes.put32(0x3fc, sum);
        bytes
    }

    fn sizes(&self, bytes: &mut [u8]) {
        let inodes = u32::try_from(self.geometry.inodes()).unwrap_or(u32::MAX);
        bytes.put32(0x00, inodes);
        bytes.put32(0x04, crate::format::low32(self.blocks));
        bytes.put32(0x0c, crate::format::low32(self.free_blocks));
        bytes.put32(0x10, self.free_inodes);
        bytes.put32(0x18, 2); // blocks of 1024 << 2 bytes
        bytes.put32(0x1c, 2);
        bytes.put32(0x20, GROUP_BLOCKS);
        bytes.put32(0x24, GROUP_BLOCKS);
        bytes.put32(0x28, self.geometry.group_inodes);
        bytes.put16(0xce, low16(self.geometry.reserved_blocks));
        bytes.put16(0xfe, 64); // bytes of a group's descriptor
        bytes.put8(0x174, LOG_FLEX);
    }

    fn identity(&self, bytes: &mut [u8]) {
        let seconds = self.time.seconds.clamp(0, (1 << 40) - 1).cast_unsigned();
        let (low, high) = (crate::format::low32(seconds), seconds.to_le_bytes()[4]);
        // Written, checked and made at one time; mounted never.
        for (at, at_high) in [(0x30, 0x274), (0x40, 0x277), (0x108, 0x276)] {
            bytes.put32(at, low);
            bytes.put8(at_high, high);
        }
        bytes.put16(0x36, u16::MAX); // mounts without a check: any number
        bytes.put16(0x38, 0xef53);
        bytes.put16(0x3a, 1); // unmounted cleanly
        bytes.put16(0x3c, 1); // on errors: carry on
        bytes.put32(0x4c, 1); // revision with features
        bytes.put32(0x54, number::FIRST);
        bytes.put16(0x58, low16(INODE as u32));
        bytes.put(0x68, self.uuid);
        bytes.put(0x78, self.label);
        bytes.put(0xec, self.hash_seed);
        bytes.put8(0xfc, crate::hash::HALF_MD4);
        bytes.put32(0x100, MOUNT_XATTR_ACL);
        bytes.put16(0x15c, (INODE_USED - 128) as u16);
        bytes.put16(0x15e, (INODE_USED - 128) as u16);
        bytes.put32(0x160, UNSIGNED_HASH);
        bytes.put8(0x175, 1); // CRC-32C
    }
}
