//! Where everything lies: first what tells about the file system, then directories, links and attributes, then the bytes of
//! files in the tree's order. Metadata of all groups is at the front, so that it is written, read and checked in one go and
//! the content behind it is in one piece but for the copies of superblocks.

use super::census::{Census, LOST_AND_FOUND_BLOCKS, logical_runs};
use super::extents::{Run, tree_blocks};
use super::geometry::{Allocator, Geometry, LAST_GROUP, MAX_BLOCKS};
use super::groups::Places;
use super::inode::FAST_SYMLINK;
use super::{Options, journal};
use crate::error::Error;
use crate::format::{BLOCK_BYTES, GROUP_BLOCKS, low32};
use crate::tree::{Kind, Tree};
use std::collections::BTreeMap;

/// Everything's place.
#[derive(Debug)]
pub struct Placing {
    /// Groups.
    pub geometry: Geometry,
    /// All blocks.
    pub blocks: u64,
    /// Each group's bitmaps and table.
    pub groups: Vec<Places>,
    /// The doubly indirect block of the inode that keeps blocks for growing.
    pub resize: Option<u32>,
    /// The journal.
    pub journal: Vec<Run>,
    /// The added `lost+found`.
    pub lost_and_found: Vec<Run>,
    /// Runs of all inodes, by [`super::census::Node::first_run`].
    pub runs: Vec<Run>,
    /// Blocks of trees of extents, for those inodes that have some.
    pub trees: BTreeMap<u32, Vec<u32>>,
    /// The block after the last in use.
    pub end: u64,
    /// Free ranges before it.
    pub gaps: Vec<(u64, u64)>,
}

impl Placing {
    /// Finds the size, if none is asked for, and places everything.
    pub fn of(tree: &Tree, census: &mut Census, options: &Options) -> Result<Placing, Error> {
        let inodes = u64::from(census.last) + u64::from(options.spare_inodes);
        let Some(size) = options.size else {
            return Placing::smallest(tree, census, options, inodes);
        };
        let wanted = size / BLOCK_BYTES;
        if wanted > MAX_BLOCKS {
            return Err(Error::TooLarge { size });
        }
        let grow_to = options.grow_to / BLOCK_BYTES;
        let (groups, blocks) = Geometry::groups_for_blocks(wanted, grow_to);
        if groups > 0 && u64::from(groups) >= Geometry::groups_for_inodes(inodes) {
            let mut density = Geometry::density(options.bytes_per_inode);
            if groups == 1 {
                let share = blocks * u64::from(density) / u64::from(GROUP_BLOCKS);
                density = u32::try_from(share).unwrap_or(density);
            }
            let geometry = Geometry::new(groups, inodes, density, grow_to);
            let log = if options.journal {
                journal::blocks(blocks)
            } else {
                0
            };
            let mut placing = Placing::place(tree, census, geometry, log)?;
            placing.blocks = blocks;
            if placing.end <= blocks {
                return Ok(placing);
            }
        }
        let smallest = Placing::smallest(tree, census, options, inodes)?;
        Err(Error::TooSmall {
            size,
            needed: smallest.blocks * BLOCK_BYTES,
        })
    }

    /// As many blocks as the content needs, and few more.
    fn smallest(
        tree: &Tree,
        census: &mut Census,
        options: &Options,
        inodes: u64,
    ) -> Result<Placing, Error> {
        let density = Geometry::density(options.bytes_per_inode);
        let grow_to = options.grow_to / BLOCK_BYTES;
        let group = u64::from(GROUP_BLOCKS);
        let spare = options.spare_bytes.div_ceil(BLOCK_BYTES);
        let mut groups = census
            .blocks
            .div_ceil(group)
            .max(Geometry::groups_for_inodes(inodes))
            .max(1);
        loop {
            if groups * group > MAX_BLOCKS {
                let size = groups.saturating_mul(group).saturating_mul(BLOCK_BYTES);
                return Err(Error::TooLarge { size });
            }
            let count = low32(groups);
            let geometry = Geometry::new(count, inodes, density, grow_to);
            let last = Geometry::start(count - 1) + geometry.overhead(count - 1) + LAST_GROUP;
            let log = if options.journal {
                journal::blocks(groups * group - 1)
            } else {
                0
            };
            let mut placing = Placing::place(tree, census, geometry, log)?;
            let blocks = (placing.end + spare).max(last);
            if blocks <= groups * group {
                placing.blocks = blocks;
                return Ok(placing);
            }
            // More groups have longer descriptors and more tables, so this is tried until it fits.
            groups = blocks.div_ceil(group);
        }
    }

    /// Places everything as if there were no end.
    fn place(
        tree: &Tree,
        census: &mut Census,
        geometry: Geometry,
        log: u32,
    ) -> Result<Placing, Error> {
        if geometry.inodes() > u64::from(u32::MAX) {
            return Err(Error::TooManyInodes(geometry.inodes()));
        }
        // Nothing below runs over: there are fewer blocks than numbers of 64 bits by far.
        if census.blocks > MAX_BLOCKS {
            let size = census.blocks.saturating_mul(BLOCK_BYTES);
            return Err(Error::TooLarge { size });
        }
        let mut disk = Disk {
            allocator: Allocator::new(&geometry),
            runs: Vec::with_capacity(tree.inodes.len()),
        };
        let groups = disk.tables(&geometry);
        let resize = (geometry.reserved_blocks > 0).then(|| disk.one());
        let journal = disk.aside(log);
        let lost = if census.lost_and_found {
            LOST_AND_FOUND_BLOCKS
        } else {
            0
        };
        let lost_and_found = disk.aside(lost);
        let mut trees = BTreeMap::new();
        disk.small(tree, census, &mut trees);
        disk.files(tree, census, &mut trees);
        let Disk { allocator, runs } = disk;
        let (end, gaps) = allocator.finish();
        if end > MAX_BLOCKS {
            let size = end.saturating_mul(BLOCK_BYTES);
            return Err(Error::TooLarge { size });
        }
        Ok(Placing {
            blocks: end,
            groups,
            resize,
            journal,
            lost_and_found,
            runs,
            trees,
            end,
            gaps,
            geometry,
        })
    }
}

/// The disk while it is being given away. Numbers of blocks are cut to 32 bits: whether they were longer is seen at the end.
struct Disk<'a> {
    allocator: Allocator<'a>,
    runs: Vec<Run>,
}

impl Disk<'_> {
    fn one(&mut self) -> u32 {
        low32(self.allocator.take(1).0)
    }

    fn tables(&mut self, geometry: &Geometry) -> Vec<Places> {
        let blocks: Vec<u32> = (0..geometry.groups).map(|_| self.one()).collect();
        let inodes: Vec<u32> = (0..geometry.groups).map(|_| self.one()).collect();
        let table = u64::from(geometry.table_blocks());
        blocks
            .into_iter()
            .zip(inodes)
            .map(|(block_bitmap, inode_bitmap)| Places {
                block_bitmap,
                inode_bitmap,
                table: low32(self.allocator.take_whole(table)),
            })
            .collect()
    }

    /// Places `len` blocks of a file from `logical` on.
    fn run(&mut self, mut logical: u32, len: u32) {
        let mut left = len;
        while left > 0 {
            let (disk, taken) = self.allocator.take(u64::from(left));
            let len = low32(taken);
            self.runs.push(Run {
                logical,
                disk: low32(disk),
                len,
            });
            logical += len;
            left -= len;
        }
    }

    /// The runs of something that no inode of the tree is.
    fn aside(&mut self, len: u32) -> Vec<Run> {
        let first = self.runs.len();
        self.run(0, len);
        self.runs.split_off(first)
    }

    /// What is small and read by everyone: directories, then attributes and targets of links.
    fn small(&mut self, tree: &Tree, census: &mut Census, trees: &mut BTreeMap<u32, Vec<u32>>) {
        for (id, inode) in (0..).zip(&tree.inodes) {
            let node = &census.nodes[id as usize];
            if node.number != 0 && matches!(inode.kind, Kind::Directory(_)) {
                let blocks = low32(node.size / BLOCK_BYTES);
                self.of_node(census, trees, id, |disk| disk.run(0, blocks));
            }
        }
        for (id, inode) in (0..).zip(&tree.inodes) {
            let node = &mut census.nodes[id as usize];
            if node.number == 0 {
                continue;
            }
            if node.xattr_block != 0 {
                node.xattr_block = self.one();
            }
            if matches!(&inode.kind, Kind::Symlink(target) if target.len() >= FAST_SYMLINK) {
                self.of_node(census, trees, id, |disk| disk.run(0, 1));
            }
        }
    }

    fn files(&mut self, tree: &Tree, census: &mut Census, trees: &mut BTreeMap<u32, Vec<u32>>) {
        for (id, inode) in (0..).zip(&tree.inodes) {
            let Kind::File { data, .. } = &inode.kind else {
                continue;
            };
            if census.nodes[id as usize].number != 0 {
                self.of_node(census, trees, id, |disk| {
                    logical_runs(data).for_each(|(logical, len)| disk.run(logical, len));
                });
            }
        }
    }

    /// Places an inode's runs, and behind them the blocks that tell where they are.
    fn of_node(
        &mut self,
        census: &mut Census,
        trees: &mut BTreeMap<u32, Vec<u32>>,
        id: u32,
        place: impl FnOnce(&mut Self),
    ) {
        let first = self.runs.len();
        place(self);
        let node = &mut census.nodes[id as usize];
        node.first_run = u32::try_from(first).unwrap_or(u32::MAX);
        node.runs = u32::try_from(self.runs.len() - first).unwrap_or(u32::MAX);
        let blocks = tree_blocks(&self.runs[first..]);
        if blocks > 0 {
            trees.insert(id, (0..blocks).map(|_| self.one()).collect());
        }
    }
}
