//! How a file system is cut into groups, and what each group's beginning is taken by
//! (`Documentation/filesystems/ext4/blockgroup.rst`, `super.rst`: sparse superblocks).

use crate::format::{
    BLOCK, BLOCK_BYTES, BLOCK_DESCRIPTORS, BLOCK_INODES, GROUP_BLOCKS, GROUP_INODES,
};

/// Blocks that a last, shorter group has besides its copies of superblock and descriptors; with fewer it is not worth one.
pub const LAST_GROUP: u64 = 64;
/// Number of blocks that block numbers of 32 bits reach.
pub const MAX_BLOCKS: u64 = u32::MAX as u64;

/// Groups and what they have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Number of groups.
    pub groups: u32,
    /// Blocks of group descriptors.
    pub descriptor_blocks: u32,
    /// Blocks after them, kept for more descriptors.
    pub reserved_blocks: u32,
    /// Inodes of each group.
    pub group_inodes: u32,
}

impl Geometry {
    /// Groups for a number of inodes, at least `density` of them in each group, able to grow to `grow_to` blocks without
    /// moving anything. `groups` must be at least what [`Geometry::groups_for_inodes`] says.
    pub fn new(groups: u32, inodes: u64, density: u32, grow_to: u64) -> Geometry {
        let descriptor_blocks = groups.div_ceil(BLOCK_DESCRIPTORS);
        let group = u64::from(GROUP_BLOCKS) * u64::from(BLOCK_DESCRIPTORS);
        let grown = grow_to.min(MAX_BLOCKS).div_ceil(group);
        // An indirect block lists those of the primary group, so there are no more than it has places.
        let reserved_blocks = grown
            .saturating_sub(u64::from(descriptor_blocks))
            .min(BLOCK as u64 / 4);
        let each = inodes.div_ceil(u64::from(groups));
        let group_inodes = u32::try_from(each)
            .unwrap_or(GROUP_INODES)
            .max(density)
            .next_multiple_of(BLOCK_INODES)
            .min(GROUP_INODES);
        Geometry {
            groups,
            descriptor_blocks,
            reserved_blocks: u32::try_from(reserved_blocks).unwrap_or(0),
            group_inodes,
        }
    }

    /// How many groups it takes to number this many inodes.
    pub fn groups_for_inodes(inodes: u64) -> u64 {
        inodes.div_ceil(u64::from(GROUP_INODES))
    }

    /// How many groups this many blocks are, and how many of the blocks are used: a last group too short for its own copies
    /// is left off.
    pub fn groups_for_blocks(blocks: u64, grow_to: u64) -> (u32, u64) {
        let group = u64::from(GROUP_BLOCKS);
        let groups = u32::try_from(blocks.div_ceil(group)).unwrap_or(u32::MAX);
        let geometry = Geometry::new(groups.max(1), 0, 0, grow_to);
        let rest = blocks - u64::from(groups.saturating_sub(1)) * group;
        if groups > 1 && rest < geometry.overhead(groups - 1) + LAST_GROUP {
            (groups - 1, u64::from(groups - 1) * group)
        } else {
            (groups, blocks)
        }
    }

    /// Whether a group begins with copies of superblock and descriptors: the first two, and powers of 3, 5 and 7.
    pub fn has_super(group: u32) -> bool {
        fn is_power(mut value: u32, of: u32) -> bool {
            while value.is_multiple_of(of) {
                value /= of;
            }
            value == 1
        }
        group <= 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }

    /// Groups besides the first that have copies.
    pub fn backups(&self) -> impl Iterator<Item = u32> {
        (1..self.groups).filter(|&group| Geometry::has_super(group))
    }

    /// Blocks at a group's beginning taken by superblock, descriptors and what is kept for more.
    pub fn overhead(&self, group: u32) -> u64 {
        if Geometry::has_super(group) {
            1 + u64::from(self.descriptor_blocks) + u64::from(self.reserved_blocks)
        } else {
            0
        }
    }

    /// A group's first block.
    pub fn start(group: u32) -> u64 {
        u64::from(group) * u64::from(GROUP_BLOCKS)
    }

    /// Blocks of a group's inode table.
    pub fn table_blocks(&self) -> u32 {
        self.group_inodes / BLOCK_INODES
    }

    /// All inodes.
    pub fn inodes(&self) -> u64 {
        u64::from(self.groups) * u64::from(self.group_inodes)
    }

    /// Number of inodes of a full group for one in so many bytes.
    pub fn density(bytes_per_inode: u32) -> u32 {
        u64::from(GROUP_BLOCKS)
            .saturating_mul(BLOCK_BYTES)
            .checked_div(u64::from(bytes_per_inode))
            .map_or(0, |inodes| {
                u32::try_from(inodes).unwrap_or(u32::MAX).min(GROUP_INODES)
            })
    }
}

/// Hands out blocks, first to last, around the copies at the beginnings of groups.
#[derive(Debug)]
pub struct Allocator<'a> {
    geometry: &'a Geometry,
    /// The next block to hand out, if no copies are there.
    next: u64,
    /// The first group after `next` that begins with copies.
    ahead: u32,
    /// Ranges passed over because what was wanted had to be in one piece.
    gaps: Vec<(u64, u64)>,
}

impl<'a> Allocator<'a> {
    /// Starts behind the first group's descriptors.
    pub fn new(geometry: &'a Geometry) -> Self {
        Allocator {
            geometry,
            next: geometry.overhead(0),
            ahead: 1,
            gaps: Vec::new(),
        }
    }

    /// Takes up to `wanted` blocks in one piece; which, and how many.
    pub fn take(&mut self, wanted: u64) -> (u64, u64) {
        let free = self.free_ahead();
        let start = self.next;
        let taken = wanted.min(free);
        self.next += taken;
        (start, taken)
    }

    /// Takes blocks that must be in one piece, at most as many as lie between two groups that have copies.
    pub fn take_whole(&mut self, wanted: u64) -> u64 {
        loop {
            let free = self.free_ahead();
            if free >= wanted {
                return self.take(wanted).0;
            }
            self.gaps.push((self.next, free));
            self.next += free;
        }
    }

    /// The block after the last taken, and what was passed over before it.
    pub fn finish(self) -> (u64, Vec<(u64, u64)>) {
        (self.next, self.gaps)
    }

    /// Passes over copies, and counts the blocks up to the next.
    fn free_ahead(&mut self) -> u64 {
        loop {
            let obstacle = Geometry::start(self.ahead);
            if self.next < obstacle {
                return obstacle - self.next;
            }
            self.next = obstacle + self.geometry.overhead(self.ahead);
            self.ahead += 1;
            while !Geometry::has_super(self.ahead) {
                self.ahead += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Allocator, Geometry};

    #[test]
    fn copies_are_in_the_groups_that_sparse_super_names() {
        let with: Vec<u32> = (0..130).filter(|&g| Geometry::has_super(g)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn what_is_handed_out_never_touches_copies() {
        let geometry = Geometry::new(10, 1000, 0, 1 << 28);
        let overhead = geometry.overhead(1);
        let mut blocks = Allocator::new(&geometry);
        assert_eq!(blocks.take(32768), (overhead, 32768 - overhead));
        assert_eq!(blocks.take(10), (32768 + overhead, 10));
        assert_eq!(
            blocks.take(1 << 20),
            (32768 + overhead + 10, 65536 - overhead - 10)
        );
        assert_eq!(blocks.take_whole(65536 - overhead), 98304 + overhead);
        assert_eq!(blocks.take(3), (163_840 + overhead, 3));
        assert_eq!(blocks.take_whole(65536 - overhead), 7 * 32768 + overhead);
        let (end, gaps) = blocks.finish();
        assert_eq!(end, 9 * 32768);
        assert_eq!(gaps, [(163_843 + overhead, 65536 - overhead - 3)]);
    }
}
