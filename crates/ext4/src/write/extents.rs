//! Where a file's blocks are, as the inode and, where that is too small, blocks of the tree below it tell
//! (`Documentation/filesystems/ext4/ifork.rst`, "Extent Tree").

use crate::checksum::Checksum;
use crate::format::{BLOCK, Put};
use std::io;

/// `i_block` of an inode.
pub type Fork = [u8; 60];

/// Writes a block at its place.
pub type PutBlock<'a> = dyn FnMut(u32, &[u8; BLOCK]) -> io::Result<()> + 'a;

/// Blocks of a file that follow each other in it and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one's place in the file.
    pub logical: u32,
    /// The first one's place on the disk.
    pub disk: u32,
    /// How many.
    pub len: u32,
}

/// An extent has a length of 15 bits, and one value more.
const MAX_LEN: u32 = 32768;
/// Bytes of a header, and of an entry.
const ENTRY: usize = 12;
/// Entries in the inode.
const INODE_ENTRIES: usize = 4;
/// Entries in a block; what is left of it is the checksum.
const BLOCK_ENTRIES: usize = (BLOCK - 4 - ENTRY) / ENTRY;
/// Where that checksum is.
const TAIL: usize = ENTRY + BLOCK_ENTRIES * ENTRY;

/// How many blocks the tree of these runs takes besides the inode.
pub fn tree_blocks(runs: &[Run]) -> u64 {
    let mut entries: u64 = runs
        .iter()
        .map(|run| u64::from(run.len.div_ceil(MAX_LEN)))
        .sum();
    let mut blocks = 0;
    while entries > INODE_ENTRIES as u64 {
        entries = entries.div_ceil(BLOCK_ENTRIES as u64);
        blocks += entries;
    }
    blocks
}

/// The inode's part of the tree. The blocks below it, which lie at `places` (as many as [`tree_blocks`] says), are given to
/// `put`. `checksum` is the inode's.
pub fn encode(
    runs: &[Run],
    places: &[u32],
    checksum: Checksum,
    put: &mut PutBlock<'_>,
) -> io::Result<Fork> {
    let mut places = places.iter().copied();
    let mut depth = 0;
    let mut entries: Vec<[u8; ENTRY]> = runs.iter().flat_map(|run| split(*run)).collect();
    while entries.len() > INODE_ENTRIES {
        let mut above = Vec::new();
        for (chunk, place) in entries.chunks(BLOCK_ENTRIES).zip(&mut places) {
            let mut block = [0; BLOCK];
            node(&mut block[..TAIL], chunk, depth);
            let sum = checksum.bytes(&block[..TAIL]).value();
            block.put32(TAIL, sum);
            put(place, &block)?;
            above.push(index(&chunk[0], place));
        }
        entries = above;
        depth += 1;
    }
    let mut fork = [0; 60];
    node(&mut fork, &entries, depth);
    Ok(fork)
}

/// A run as extents of the length they have at most.
fn split(run: Run) -> impl Iterator<Item = [u8; ENTRY]> {
    (0..run.len).step_by(MAX_LEN as usize).map(move |done| {
        let mut entry = [0; ENTRY];
        let len = (run.len - done).min(MAX_LEN);
        entry.put32(0, run.logical + done);
        entry.put16(4, crate::format::low16(len));
        entry.put32(8, run.disk + done);
        entry
    })
}

/// The entry above a node that begins with `first` and lies at `place`.
fn index(first: &[u8; ENTRY], place: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry.put(0, &first[..4]);
    entry.put32(4, place);
    entry
}

/// Header and entries.
fn node(bytes: &mut [u8], entries: &[[u8; ENTRY]], depth: u16) {
    let room = (bytes.len() - ENTRY) / ENTRY;
    bytes.put16(0, 0xf30a);
    bytes.put16(2, u16::try_from(entries.len()).unwrap_or(0));
    bytes.put16(4, u16::try_from(room).unwrap_or(0));
    bytes.put16(6, depth);
    for (at, entry) in entries.iter().enumerate() {
        bytes.put(ENTRY + at * ENTRY, entry);
    }
}
