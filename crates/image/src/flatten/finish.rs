//! From the tree of a flattened image to what is written: inodes by number, and the bytes to fetch by where they are.

use super::apply::Flatten;
use super::nodes::{Node, NodeKind};
use banger_ext4::{Entry, Extent, Inode, InodeId, Kind, Tree};

/// Bytes that a file system gives away together.
const BLOCK: u64 = 4096;

/// A flattened image.
#[derive(Debug)]
pub(crate) struct Flattened {
    /// Its inodes: those of one layer are in the order of its stream, so that reading it writes forwards.
    pub tree: Tree,
    /// The bytes of its files, by layer and place in the stream.
    pub winners: Vec<Winner>,
}

/// Bytes of a file that nothing has taken the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Winner {
    /// The layer they are in.
    pub layer: u32,
    /// First byte in its unpacked stream.
    pub from: u64,
    /// Number of bytes.
    pub len: u64,
    /// The file.
    pub inode: InodeId,
    /// First byte in the file.
    pub offset: u64,
}

impl Flatten {
    /// The image, when no more layers come.
    pub(crate) fn finish(self) -> Flattened {
        let table = self.nodes.into_table();
        // Inodes that have no name any more have no number.
        let mut numbers = Vec::with_capacity(table.len());
        let mut next = 0;
        for node in &table {
            numbers.push(InodeId(next));
            next += u32::from(!matches!(node.kind, NodeKind::Gone));
        }
        let mut inodes = Vec::with_capacity(next as usize);
        let mut winners = Vec::new();
        for (node, number) in table.into_iter().zip(&numbers) {
            inodes.extend(inode(node, *number, &numbers, &mut winners));
        }
        winners.sort_unstable();
        let tree = Tree { inodes };
        Flattened { tree, winners }
    }
}

fn inode(
    node: Node,
    number: InodeId,
    numbers: &[InodeId],
    winners: &mut Vec<Winner>,
) -> Option<Inode> {
    let kind = match node.kind {
        NodeKind::Gone => return None,
        NodeKind::Directory(directory) => {
            let entries = directory.entries.into_iter();
            Kind::Directory(
                entries
                    .map(|(name, to)| Entry {
                        name,
                        inode: numbers[to.node.0 as usize],
                    })
                    .collect(),
            )
        }
        NodeKind::File {
            layer,
            size,
            pieces,
        } => {
            winners.extend(pieces.iter().map(|piece| Winner {
                layer,
                from: piece.from,
                len: piece.len,
                inode: number,
                offset: piece.offset,
            }));
            let data = blocks(size, pieces.iter().map(|p| (p.offset, p.len)));
            Kind::File { size, data }
        }
        NodeKind::Symlink(text) => Kind::Symlink(text),
        NodeKind::Char(major, minor) => Kind::CharDevice { major, minor },
        NodeKind::Block(major, minor) => Kind::BlockDevice { major, minor },
        NodeKind::Fifo => Kind::Fifo,
    };
    let meta = node.meta;
    Some(Inode { meta, kind })
}

/// The blocks that ranges of a file touch, each once.
fn blocks(size: u64, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (offset, len) in ranges.filter(|(_, len)| *len > 0) {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + len).next_multiple_of(BLOCK).min(size);
        match extents.last_mut() {
            Some(last) if last.offset + last.len >= start => last.len = end - last.offset,
            _ => extents.push(Extent {
                offset: start,
                len: end - start,
            }),
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_blocks() {
        let extents = |ranges: &[(u64, u64)]| {
            let found = blocks(20_000, ranges.iter().copied()).into_iter();
            found.map(|e| (e.offset, e.len)).collect::<Vec<_>>()
        };
        assert_eq!(extents(&[(0, 20_000)]), [(0, 20_000)]);
        assert_eq!(extents(&[(0, 1), (2, 1), (4095, 2)]), [(0, 8192)]);
        assert_eq!(extents(&[(0, 1), (9000, 1)]), [(0, 4096), (8192, 4096)]);
        assert_eq!(extents(&[(19_999, 1)]), [(16_384, 3616)]);
        assert_eq!(extents(&[(0, 0)]), []);
    }
}
