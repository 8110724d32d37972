//! An empty journal (`Documentation/filesystems/ext4/journal.rst`). It alone is written highest byte first.

use crate::format::{BLOCK, Put};

/// How many blocks the journal of a file system has: as mke2fs has it, none below 8 MiB, and never more than the extents in
/// its inode reach around the copies of superblocks.
pub fn blocks(file_system: u64) -> u32 {
    const SIZES: [(u64, u32); 7] = [
        (2048, 0),
        (32_768, 1024),
        (262_144, 4096),
        (524_288, 8192),
        (4_194_304, 16_384),
        (8_388_608, 32_768),
        (u64::MAX, 65_536),
    ];
    SIZES
        .into_iter()
        .find(|&(below, _)| file_system < below)
        .map_or(0, |(_, blocks)| blocks)
}

/// The journal's first block; the others are zeros.
pub fn superblock(blocks: u32, uuid: &[u8; 16]) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    let words = [
        (0x00, 0xc03b_3998), // magic
        (0x04, 4),           // superblock, version 2
        (0x0c, BLOCK as u32),
        (0x10, blocks),
        (0x14, 1), // first block of the log
        (0x18, 1), // first transaction expected
        (0x40, 1), // file systems that use it
    ];
    for (at, word) in words {
        bytes.put(at, &word.to_be_bytes());
    }
    bytes.put(0x30, uuid);
    bytes
}
