//! Bitmaps and descriptors of groups (`Documentation/filesystems/ext4/group_descr.rst`, `bitmaps.rst`).

use super::geometry::Geometry;
use crate::checksum::Checksum;
use crate::format::{BLOCK, DESCRIPTOR, GROUP_BLOCKS, Put, high16, low16};

/// Nothing of the inode table has been used; its bitmap is not to be read.
const INODE_UNINIT: u16 = 1;
/// No block but the group's own copies is used; the bitmap is not to be read.
const BLOCK_UNINIT: u16 = 2;
/// What is unused of the inode table is zeros.
const INODE_ZEROED: u16 = 4;

/// Where a group has its bitmaps and its inode table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Bitmap of blocks.
    pub block_bitmap: u32,
    /// Bitmap of inodes.
    pub inode_bitmap: u32,
    /// Table of inodes.
    pub table: u32,
}

/// Which blocks of a whole file system are used, told by few numbers.
#[derive(Debug, Clone, Copy)]
pub struct Used<'a> {
    /// Groups.
    pub geometry: &'a Geometry,
    /// All blocks.
    pub blocks: u64,
    /// Every block before this one is used, but for gaps.
    pub end: u64,
    /// Ranges before `end` that are free, in order.
    pub gaps: &'a [(u64, u64)],
    /// The highest inode in use; all below it are, as far as groups need to know.
    pub inodes: u32,
}

/// A group: its bitmaps, if they are to be written, and its descriptor.
#[derive(Debug)]
pub struct Group {
    /// Bitmap of blocks.
    pub block_bitmap: Option<Box<[u8; BLOCK]>>,
    /// Bitmap of inodes.
    pub inode_bitmap: Option<Box<[u8; BLOCK]>>,
    /// The descriptor.
    pub descriptor: [u8; DESCRIPTOR],
    /// Free blocks.
    pub free_blocks: u32,
}

impl Used<'_> {
    /// Works a group out. `directories` is how many of its inodes are directories.
    pub fn group(&self, group: u32, places: Places, directories: u32, checksum: Checksum) -> Group {
        let blocks = self.block_bitmap(group);
        let free_blocks = blocks.iter().map(|byte| byte.count_zeros()).sum();
        let inodes = self.inodes_of(group);
        // The last group's bitmap is always there: it may have to grow from where it ends.
        let untouched =
            Geometry::start(group) >= self.end && inodes == 0 && group + 1 != self.geometry.groups;
        let mut descriptor = Descriptor {
            places,
            free_blocks,
            free_inodes: self.geometry.group_inodes - inodes,
            directories,
            flags: INODE_ZEROED,
            sums: [0; 2],
        };
        let mut made = Group {
            block_bitmap: None,
            inode_bitmap: None,
            descriptor: [0; DESCRIPTOR],
            free_blocks,
        };
        if untouched {
            descriptor.flags |= BLOCK_UNINIT;
        } else {
            descriptor.sums[0] = checksum.bytes(&blocks[..]).value();
            made.block_bitmap = Some(blocks);
        }
        if inodes == 0 {
            descriptor.flags |= INODE_UNINIT;
        } else {
            let bitmap = self.inode_bitmap(inodes);
            let bytes = self.geometry.group_inodes as usize / 8;
            descriptor.sums[1] = checksum.bytes(&bitmap[..bytes]).value();
            made.inode_bitmap = Some(bitmap);
        }
        made.descriptor = descriptor.encode(group, checksum);
        made
    }

    /// Inodes in use of a group.
    fn inodes_of(&self, group: u32) -> u32 {
        let before = u64::from(group) * u64::from(self.geometry.group_inodes);
        let used = u64::from(self.inodes).saturating_sub(before);
        u32::try_from(used).map_or(self.geometry.group_inodes, |used| {
            used.min(self.geometry.group_inodes)
        })
    }

    fn block_bitmap(&self, group: u32) -> Box<[u8; BLOCK]> {
        let start = Geometry::start(group);
        let mut bitmap = Box::new([0; BLOCK]);
        let mut mark = |from: u64, to: u64, used: bool| {
            let inside = |block: u64| {
                let bits = block.saturating_sub(start).min(u64::from(GROUP_BLOCKS));
                usize::try_from(bits).unwrap_or(0)
            };
            set(&mut bitmap, inside(from), inside(to), used);
        };
        mark(0, self.end, true);
        for &(from, len) in self.gaps {
            mark(from, from + len, false);
        }
        mark(start, start + self.geometry.overhead(group), true);
        // What lies beyond the file system counts as used.
        mark(self.blocks, u64::MAX, true);
        bitmap
    }

    fn inode_bitmap(&self, used: u32) -> Box<[u8; BLOCK]> {
        let mut bitmap = Box::new([0; BLOCK]);
        set(&mut bitmap, 0, used as usize, true);
        set(
            &mut bitmap,
            self.geometry.group_inodes as usize,
            8 * BLOCK,
            true,
        );
        bitmap
    }
}

/// Sets or clears bits.
fn set(bitmap: &mut [u8; BLOCK], from: usize, to: usize, used: bool) {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && to - bit >= 8 {
            let bytes = (to - bit) / 8;
            bitmap[bit / 8..bit / 8 + bytes].fill(if used { 0xff } else { 0 });
            bit += bytes * 8;
        } else {
            let mask = 1 << (bit % 8);
            bitmap[bit / 8] = if used {
                bitmap[bit / 8] | mask
            } else {
                bitmap[bit / 8] & !mask
            };
            bit += 1;
        }
    }
}

struct Descriptor {
    places: Places,
    free_blocks: u32,
    free_inodes: u32,
    directories: u32,
    flags: u16,
    /// Of the bitmaps of blocks and of inodes.
    sums: [u32; 2],
}

impl Descriptor {
    fn encode(&self, group: u32, checksum: Checksum) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        bytes.put32(0x00, self.places.block_bitmap);
        bytes.put32(0x04, self.places.inode_bitmap);
        bytes.put32(0x08, self.places.table);
        bytes.put16(0x12, self.flags);
        // Inodes are used from the table's beginning, so those free are those behind.
        let counts = [
            (0x0c, 0x2c, self.free_blocks),
            (0x0e, 0x2e, self.free_inodes),
            (0x10, 0x30, self.directories),
            (0x1c, 0x32, self.free_inodes),
            (0x18, 0x38, self.sums[0]),
            (0x1a, 0x3a, self.sums[1]),
        ];
        for (low, high, value) in counts {
            bytes.put16(low, low16(value));
            bytes.put16(high, high16(value));
        }
        let sum = checksum.word(group).bytes(&bytes).value();
        bytes.put16(0x1e, low16(sum));
        bytes
    }
}
