//! What of a tree becomes inodes: numbers, links, sizes; and whether it can be written at all.

use super::directory;
use super::inode;
use super::xattr::Xattrs;
use crate::error::{Error, Path, Why};
use crate::format::{BLOCK_BYTES, MAX_LINKS, number};
use crate::tree::{Entry, Extent, Inode, InodeId, Kind, Tree};
use std::collections::HashSet;

/// The name of the directory that e2fsck wants in the root.
pub const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Blocks it has, so that there is room when it is needed.
pub const LOST_AND_FOUND_BLOCKS: u32 = 4;
/// Files end before this block.
const FILE_BLOCKS: u64 = u32::MAX as u64;

/// What is known of an inode without its content.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Its number; 0 if nothing leads from the root to it, so that it is left out.
    pub number: u32,
    /// For a directory, which inode of the tree it is in.
    pub parent: u32,
    /// Names, for a directory as `i_links_count` has it.
    pub links: u16,
    /// Whether attributes need a block; once placed, which.
    pub xattr_block: u32,
    /// Its runs of blocks: the first, and how many.
    pub first_run: u32,
    /// How many runs it has.
    pub runs: u32,
    /// `i_size`.
    pub size: u64,
}

/// All inodes of a tree.
#[derive(Debug)]
pub struct Census {
    /// One for each of the tree's.
    pub nodes: Vec<Node>,
    /// Whether a `lost+found` is to be added.
    pub lost_and_found: bool,
    /// The highest number in use.
    pub last: u32,
    /// Blocks of directories, files, links and attributes, without the trees that tell where they are.
    pub blocks: u64,
}

impl Census {
    /// Counts a tree, or says which entry cannot be written and why.
    pub fn of(tree: &Tree, hash_seed: &[u8; 16]) -> Result<Census, Error> {
        let root = root_entries(tree)?;
        let lost_and_found = match root.iter().find(|entry| *entry.name == *LOST_AND_FOUND) {
            None => true,
            Some(found) => match tree.inodes.get(found.inode.0 as usize) {
                Some(inode) if !matches!(inode.kind, Kind::Directory(_)) => {
                    return Err(Error::Inode {
                        path: Path::below(tree, 0, LOST_AND_FOUND),
                        why: Why::LostAndFound,
                    });
                }
                _ => false,
            },
        };
        let mut census = Census {
            nodes: vec![Node::default(); tree.inodes.len()],
            lost_and_found,
            last: 0,
            blocks: 0,
        };
        let names = census.walk(tree)?;
        census.number(tree, &names)?;
        for (id, inode) in tree.inodes.iter().enumerate() {
            if census.nodes[id].number != 0 {
                census
                    .measure(id, inode, hash_seed)
                    .map_err(|why| Error::Inode {
                        path: Path::of(tree, id),
                        why,
                    })?;
            }
        }
        Ok(census)
    }

    /// Follows every entry from the root on. How many names each inode has; a directory's subdirectories count.
    fn walk(&mut self, tree: &Tree) -> Result<Vec<u32>, Error> {
        let mut names = vec![0u32; tree.inodes.len()];
        // The root is in itself, by `..`.
        names[0] = 2 + u32::from(self.lost_and_found);
        let mut ahead = vec![0usize];
        while let Some(parent) = ahead.pop() {
            let Kind::Directory(entries) = &tree.inodes[parent].kind else {
                continue;
            };
            check_names(tree, parent, entries)?;
            for entry in entries {
                let id = entry.inode.0 as usize;
                let inode = tree.inodes.get(id).ok_or_else(|| Error::NoInode {
                    path: Path::below(tree, parent, &entry.name),
                    inode: entry.inode.0,
                    inodes: tree.inodes.len(),
                })?;
                if !matches!(inode.kind, Kind::Directory(_)) {
                    names[id] = names[id].saturating_add(1);
                    continue;
                }
                if names[id] != 0 {
                    return Err(Error::DirectoryAgain {
                        path: Path::below(tree, parent, &entry.name),
                    });
                }
                names[id] = 2;
                names[parent] = names[parent].saturating_add(1);
                self.nodes[id].parent = u32::try_from(parent).unwrap_or(0);
                ahead.push(id);
            }
        }
        Ok(names)
    }

    /// Numbers what was reached, in the tree's order.
    fn number(&mut self, tree: &Tree, names: &[u32]) -> Result<(), Error> {
        let mut next = u64::from(number::FIRST) + u64::from(self.lost_and_found);
        for (id, (node, &names)) in self.nodes.iter_mut().zip(names).enumerate() {
            let directory = matches!(tree.inodes[id].kind, Kind::Directory(_));
            node.links = match u16::try_from(names) {
                Ok(links) if u32::from(links) <= MAX_LINKS => links,
                // Of so many it is not told how many.
                _ if directory => 1,
                _ => {
                    return Err(Error::Inode {
                        path: Path::of(tree, id),
                        why: Why::Links(u64::from(names)),
                    });
                }
            };
            if id == InodeId::ROOT.0 as usize {
                node.number = number::ROOT;
            } else if names > 0 {
                node.number = u32::try_from(next).map_err(|_| Error::TooManyInodes(next))?;
                next += 1;
            }
        }
        self.last = u32::try_from(next - 1).map_err(|_| Error::TooManyInodes(next))?;
        Ok(())
    }

    /// Sizes of an inode.
    fn measure(&mut self, id: usize, inode: &Inode, seed: &[u8; 16]) -> Result<(), Why> {
        inode::check(inode)?;
        let xattrs = Xattrs::of(inode)?;
        let (size, blocks) = match &inode.kind {
            Kind::Directory(entries) => {
                let added = (id == 0 && self.lost_and_found).then_some(LOST_AND_FOUND);
                let names = entries.iter().map(|entry| &entry.name[..]);
                let blocks = u64::from(directory::blocks(names.chain(added), seed)?);
                (blocks * BLOCK_BYTES, blocks)
            }
            Kind::File { size, data } => {
                check_data(*size, data)?;
                let blocks = logical_runs(data).map(|(_, len)| u64::from(len)).sum();
                (*size, blocks)
            }
            Kind::Symlink(target) => {
                let slow = target.len() >= inode::FAST_SYMLINK;
                (target.len() as u64, u64::from(slow))
            }
            _ => (0, 0),
        };
        let node = &mut self.nodes[id];
        node.size = size;
        node.xattr_block = u32::from(xattrs.needs_block());
        self.blocks = self
            .blocks
            .saturating_add(blocks)
            .saturating_add(u64::from(node.xattr_block));
        Ok(())
    }
}

fn root_entries(tree: &Tree) -> Result<&[Entry], Error> {
    match tree.inodes.first().map(|root| &root.kind) {
        Some(Kind::Directory(entries)) => Ok(entries),
        _ => Err(Error::NoRoot),
    }
}

/// Names of one directory: each legal, none twice.
fn check_names(tree: &Tree, directory: usize, entries: &[Entry]) -> Result<(), Error> {
    for entry in entries {
        let why = match &entry.name[..] {
            b"" => "a name is not empty",
            b"." | b".." => "every directory has this entry of its own",
            name if name.len() > 255 => "a name has at most 255 bytes",
            name if name.contains(&0) => "a name has no NUL byte",
            name if name.contains(&b'/') => "a name has no '/'",
            _ => continue,
        };
        return Err(Error::Name {
            path: Path::below(tree, directory, &entry.name),
            why,
        });
    }
    // Sorted, as most are, they are compared with their neighbours only.
    if entries.windows(2).all(|pair| pair[0].name < pair[1].name) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(entries.len());
    match entries.iter().find(|entry| !seen.insert(&entry.name)) {
        None => Ok(()),
        Some(entry) => Err(Error::Duplicate {
            path: Path::below(tree, directory, &entry.name),
        }),
    }
}

fn check_data(size: u64, data: &[Extent]) -> Result<(), Why> {
    if size > FILE_BLOCKS * BLOCK_BYTES {
        return Err(Why::Size(size));
    }
    let mut from = 0;
    for extent in data {
        let end = extent.offset.saturating_add(extent.len);
        if extent.len == 0 || extent.offset < from || end > size {
            return Err(Why::Data {
                offset: extent.offset,
                end,
            });
        }
        from = end;
    }
    Ok(())
}

/// Runs of a file's blocks in which there is data: the first block and how many. Checked before.
pub fn logical_runs(data: &[Extent]) -> impl Iterator<Item = (u32, u32)> {
    let mut extents = data
        .iter()
        .map(|extent| {
            let end = (extent.offset + extent.len).div_ceil(BLOCK_BYTES);
            (extent.offset / BLOCK_BYTES, end)
        })
        .peekable();
    std::iter::from_fn(move || {
        let (from, mut end) = extents.next()?;
        while let Some((_, more)) = extents.next_if(|&(next, _)| next <= end) {
            end = more;
        }
        Some((u32::try_from(from).ok()?, u32::try_from(end - from).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::logical_runs;
    use crate::tree::Extent;

    #[test]
    fn data_in_one_block_or_in_neighbours_is_one_run() {
        let data = [
            (0, 1),
            (4000, 50),
            (4096, 4096),
            (20_000, 1),
            (40_960, 4097),
        ];
        let data = data.map(|(offset, len)| Extent { offset, len });
        let runs: Vec<_> = logical_runs(&data).collect();
        assert_eq!(runs, [(0, 2), (4, 1), (10, 2)]);
    }
}
