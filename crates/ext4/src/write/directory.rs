//! Blocks of a directory: one with its entries, or a tree sorted by the hashes of names
//! (`Documentation/filesystems/ext4/directory.rst`).

use crate::checksum::Checksum;
use crate::error::Why;
use crate::format::{BLOCK, Put};
use crate::hash::{HALF_MD4, NameHash, name_hash};
use crate::tree::Kind;

/// Bytes of a block's checksum, in the shape of an entry without a name.
const TAIL: usize = 12;
/// Bytes for entries in a block.
const SPACE: usize = BLOCK - TAIL;
/// Bytes of `.` and `..` together.
const DOTS: usize = 24;
/// Where the root of a tree keeps its references, and a node.
const ROOT_REFERENCES: usize = 32;
const NODE_REFERENCES: usize = 8;
/// How many references each has; the last place is the checksum's.
const ROOT_FANOUT: usize = (BLOCK - ROOT_REFERENCES) / 8 - 1;
const NODE_FANOUT: usize = (BLOCK - NODE_REFERENCES) / 8 - 1;
/// Leaves that two levels reach. More need feature `large_dir`, which old kernels lack.
const MAX_LEAVES: usize = ROOT_FANOUT * NODE_FANOUT;

/// A name and what it names.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode's number.
    pub number: u32,
    /// Its type, as directories tell it.
    pub kind: u8,
}

/// What a directory is besides its items.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Its own number.
    pub number: u32,
    /// That of the directory it is in.
    pub parent: u32,
    /// Where hashes start.
    pub seed: &'a [u8; 16],
    /// Its inode's checksum.
    pub checksum: Checksum,
}

/// The type of an inode, as directories tell it.
pub fn type_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// How many blocks these names take.
pub fn blocks<'a>(
    names: impl Iterator<Item = &'a [u8]> + Clone,
    seed: &[u8; 16],
) -> Result<u32, Why> {
    if fits_one_block(names.clone()) {
        return Ok(1);
    }
    let tree = Hashed::new(names, seed);
    if tree.leaves.len() > MAX_LEAVES {
        return Err(Why::Directory(tree.leaves.len() as u64));
    }
    Ok(u32::try_from(tree.blocks()).unwrap_or(u32::MAX))
}

/// Gives the blocks to `put`, first to last.
pub fn encode<E>(
    items: &[Item<'_>],
    context: Context<'_>,
    put: &mut dyn FnMut(&[u8; BLOCK]) -> Result<(), E>,
) -> Result<(), E> {
    let names = items.iter().map(|item| item.name);
    if fits_one_block(names.clone()) {
        let mut leaf = Leaf::new(context.checksum);
        leaf.add(&dot(context.number, b"."));
        leaf.add(&dot(context.parent, b".."));
        items.iter().for_each(|item| leaf.add(item));
        return put(&leaf.finish());
    }
    Hashed::new(names, context.seed).encode(items, context, put)
}

/// A block without entries, as `lost+found` has some in store.
pub fn empty(checksum: Checksum) -> [u8; BLOCK] {
    Leaf::new(checksum).finish()
}

fn dot(number: u32, name: &'static [u8]) -> Item<'static> {
    Item {
        name,
        number,
        kind: 2,
    }
}

fn fits_one_block<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut room = SPACE - DOTS;
    names.all(|name| match room.checked_sub(length(name)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    })
}

/// Bytes of an entry.
fn length(name: &[u8]) -> usize {
    8 + name.len().next_multiple_of(4)
}

/// An entry's bytes before its name.
fn header(block: &mut [u8], at: usize, item: &Item<'_>, length: usize) {
    block.put32(at, item.number);
    block.put16(at + 4, u16::try_from(length).unwrap_or(0));
    block.put8(at + 6, u8::try_from(item.name.len()).unwrap_or(0));
    block.put8(at + 7, item.kind);
    block.put(at + 8, item.name);
}

/// A block of entries being filled.
struct Leaf {
    block: [u8; BLOCK],
    used: usize,
    /// Where the last entry begins: what is left of the block is made part of it.
    last: usize,
    checksum: Checksum,
}

impl Leaf {
    fn new(checksum: Checksum) -> Self {
        Leaf {
            block: [0; BLOCK],
            used: 0,
            last: 0,
            checksum,
        }
    }

    fn add(&mut self, item: &Item<'_>) {
        let length = length(item.name);
        header(&mut self.block, self.used, item, length);
        self.last = self.used;
        self.used += length;
    }

    fn finish(mut self) -> [u8; BLOCK] {
        let rest = u16::try_from(SPACE - self.last).unwrap_or(0);
        self.block.put16(self.last + 4, rest);
        self.block.put16(SPACE + 4, TAIL as u16);
        self.block.put8(SPACE + 7, 0xde);
        let sum = self.checksum.bytes(&self.block[..SPACE]).value();
        self.block.put32(SPACE + 8, sum);
        self.block
    }
}

/// Names sorted by their hashes and cut into leaves.
struct Hashed {
    /// Hash and place of each name.
    order: Vec<(NameHash, u32)>,
    /// Each leaf's first name in that order, and the hash that leads to it.
    leaves: Vec<(usize, u32)>,
}

impl Hashed {
    fn new<'a>(names: impl Iterator<Item = &'a [u8]> + Clone, seed: &[u8; 16]) -> Self {
        let mut order: Vec<(NameHash, u32, u16)> = (0..)
            .zip(names)
            .map(|(at, name)| (name_hash(name, seed), at, length(name) as u16))
            .collect();
        order.sort_unstable();
        let mut leaves = vec![(0, 0)];
        let mut used = 0;
        for (place, &(hash, _, length)) in order.iter().enumerate() {
            used += usize::from(length);
            if used > SPACE {
                // The lowest bit says that names of this hash are in the leaf before as well.
                let goes_on = order[place - 1].0.major == hash.major;
                leaves.push((place, hash.major | u32::from(goes_on)));
                used = usize::from(length);
            }
        }
        let order = order.into_iter().map(|(hash, at, _)| (hash, at)).collect();
        Hashed { order, leaves }
    }

    /// Nodes between the root and the leaves.
    fn nodes(&self) -> usize {
        if self.leaves.len() <= ROOT_FANOUT {
            0
        } else {
            self.leaves.len().div_ceil(NODE_FANOUT)
        }
    }

    fn blocks(&self) -> usize {
        1 + self.nodes() + self.leaves.len()
    }

    fn encode<E>(
        &self,
        items: &[Item<'_>],
        context: Context<'_>,
        put: &mut dyn FnMut(&[u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        let nodes = self.nodes();
        // Root, nodes, leaves, each at its place in the directory.
        let leaves: Vec<(u32, u32)> = (1 + nodes..)
            .zip(&self.leaves)
            .map(|(block, &(_, hash))| (hash, block as u32))
            .collect();
        if nodes == 0 {
            put(&root(&leaves, 0, context))?;
        } else {
            let upper: Vec<(u32, u32)> = (1..)
                .zip(leaves.chunks(NODE_FANOUT))
                .map(|(block, chunk)| (chunk[0].0, block))
                .collect();
            put(&root(&upper, 1, context))?;
            for chunk in leaves.chunks(NODE_FANOUT) {
                put(&node(chunk, context.checksum))?;
            }
        }
        let ends = self.leaves.iter().skip(1).map(|&(first, _)| first);
        for (&(first, _), end) in self.leaves.iter().zip(ends.chain([self.order.len()])) {
            let mut leaf = Leaf::new(context.checksum);
            for &(_, at) in &self.order[first..end] {
                leaf.add(&items[at as usize]);
            }
            put(&leaf.finish())?;
        }
        Ok(())
    }
}

/// The first block of a tree: to a kernel that knows no trees, a block with `.` and a long `..`.
fn root(references: &[(u32, u32)], levels: u8, context: Context<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    header(&mut block, 0, &dot(context.number, b"."), 12);
    header(&mut block, 12, &dot(context.parent, b".."), BLOCK - 12);
    block.put8(28, HALF_MD4);
    block.put8(29, 8); // bytes of what tells about the tree
    block.put8(30, levels);
    refer(&mut block, ROOT_REFERENCES, references, context.checksum);
    block
}

/// A block between root and leaves: to a kernel that knows no trees, one unused entry.
fn node(references: &[(u32, u32)], checksum: Checksum) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.put16(4, BLOCK as u16);
    refer(&mut block, NODE_REFERENCES, references, checksum);
    block
}

/// Puts hashes and blocks, and the checksum behind the last place for them.
fn refer(block: &mut [u8; BLOCK], from: usize, references: &[(u32, u32)], checksum: Checksum) {
    for (place, &(hash, to)) in references.iter().enumerate() {
        block.put32(from + place * 8, hash);
        block.put32(from + place * 8 + 4, to);
    }
    // The first hash is that of the reference to here; in its place is how many there are.
    let limit = (BLOCK - from) / 8 - 1;
    block.put16(from, u16::try_from(limit).unwrap_or(0));
    block.put16(from + 2, u16::try_from(references.len()).unwrap_or(0));
    let used = from + references.len() * 8;
    let sum = checksum.bytes(&block[..used]).bytes(&[0; 8]).value();
    block.put32(from + limit * 8 + 4, sum);
}
