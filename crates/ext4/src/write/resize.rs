//! The inode that owns the blocks kept for more group descriptors, so that a mounted file system can grow
//! (`lib/ext2fs/res_gdt.c` of e2fsprogs; `Documentation/filesystems/ext4/super.rst`, `s_reserved_gdt_blocks`).
//!
//! It is mapped the old way: a doubly indirect block lists the blocks kept in the first group, and each of those lists its
//! copies in the groups that have some.

use super::extents::Fork;
use super::geometry::Geometry;
use crate::format::{BLOCK, Put, low32};

/// Numbers in an indirect block.
const NUMBERS: u64 = BLOCK as u64 / 4;
/// Its size: everything up to what a doubly indirect block reaches.
pub const SIZE: u64 = (NUMBERS * NUMBERS + NUMBERS + 12) * BLOCK as u64;

/// Its `i_block`, with the doubly indirect block at `place`.
pub fn fork(place: u32) -> Fork {
    let mut fork = [0; 60];
    fork.put32(13 * 4, place);
    fork
}

/// All blocks it has.
pub fn blocks(geometry: &Geometry) -> u64 {
    1 + u64::from(geometry.reserved_blocks) * (1 + geometry.backups().count() as u64)
}

/// The doubly indirect block.
pub fn doubly_indirect(geometry: &Geometry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for kept in kept(geometry) {
        let place = usize::try_from((kept - 1) % NUMBERS).unwrap_or(0);
        block.put32(place * 4, low32(kept));
    }
    block
}

/// The blocks kept in the first group, which come directly behind its descriptors.
pub fn kept(geometry: &Geometry) -> impl Iterator<Item = u64> {
    let first = 1 + u64::from(geometry.descriptor_blocks);
    first..first + u64::from(geometry.reserved_blocks)
}

/// The content of one of them: where its copies are.
pub fn indirect(geometry: &Geometry, kept: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (place, group) in geometry.backups().enumerate() {
        block.put32(place * 4, low32(Geometry::start(group) + kept));
    }
    block
}
