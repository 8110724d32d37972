//! The inodes of an image while its layers are put on top of each other, and finding one's way among them.

use crate::layer::Piece;
use banger_ext4::Meta;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Symlinks that are followed on one way: as many as Linux does (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// Which inode: its place in [`Nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub u32);

impl NodeId {
    /// The root directory.
    pub(crate) const ROOT: NodeId = NodeId(0);
}

/// Which layer, counted from the oldest.
pub(crate) type LayerId = u32;

/// One inode.
#[derive(Debug)]
pub(crate) struct Node {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// Names it has.
    pub names: u32,
    /// What it is.
    pub kind: NodeKind,
}

/// What an inode is.
#[derive(Debug)]
pub(crate) enum NodeKind {
    /// A directory.
    Directory(Directory),
    /// A file of this layer.
    File {
        layer: LayerId,
        size: u64,
        pieces: Box<[Piece]>,
    },
    /// A symlink.
    Symlink(Box<[u8]>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// It has no name any more.
    Gone,
}

/// What a directory has.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The directory it is in; its own for the root.
    pub parent: NodeId,
    /// The last layer that hid what lower ones had in it: below it are only entries of that layer and later ones.
    pub pruned: LayerId,
    /// Its entries.
    pub entries: BTreeMap<Box<[u8]>, Name>,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    /// What it names.
    pub node: NodeId,
    /// The last layer that has an entry for it.
    pub layer: LayerId,
}

/// Why a way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// There is nothing of this name.
    Nothing,
    /// What is there is no directory, or a symlink leads to nothing.
    NoDirectory,
    /// Symlinks lead in a circle.
    Circle,
}

/// The inodes. Those without a name stay in the table, empty.
#[derive(Debug)]
pub(crate) struct Nodes {
    table: Vec<Node>,
    /// Components that were gone along, of all ways.
    steps: Cell<u64>,
}

/// How far a way goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The directory reached.
    pub dir: NodeId,
    /// How many components of the path are left, of which nothing is there.
    pub missing: usize,
}

impl Nodes {
    /// A root directory (root's, 0755) and nothing else.
    pub(crate) fn new() -> Self {
        let root = Node {
            meta: implied(&Meta::default()),
            names: 1,
            kind: directory(NodeId::ROOT),
        };
        Nodes {
            table: vec![root],
            steps: Cell::new(0),
        }
    }

    /// How many components were gone along until now.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// All of them, those without a name too.
    pub(crate) fn into_table(self) -> Vec<Node> {
        self.table
    }

    pub(crate) fn get(&self, node: NodeId) -> &Node {
        &self.table[node.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> &mut Node {
        &mut self.table[node.0 as usize]
    }

    /// Takes in an inode that gets its first name next. Every entry makes one or none, and of entries there are never
    /// 2^32 ([`crate::Limits`]).
    pub(crate) fn add(&mut self, meta: Meta, kind: NodeKind) -> NodeId {
        let node = NodeId(u32::try_from(self.table.len()).unwrap_or(u32::MAX));
        let names = 0;
        self.table.push(Node { meta, names, kind });
        node
    }

    pub(crate) fn dir(&self, node: NodeId) -> Option<&Directory> {
        match &self.get(node).kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn dir_mut(&mut self, node: NodeId) -> Option<&mut Directory> {
        match &mut self.get_mut(node).kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// What a directory has under this name.
    pub(crate) fn look(&self, dir: NodeId, name: &[u8]) -> Option<Name> {
        self.dir(dir)?.entries.get(name).copied()
    }

    /// Gives an inode a name that is free; false if `dir` is no directory.
    pub(crate) fn link(&mut self, dir: NodeId, name: &[u8], to: Name) -> bool {
        let Some(directory) = self.dir_mut(dir) else {
            return false;
        };
        directory.entries.insert(name.into(), to);
        self.get_mut(to.node).names += 1;
        true
    }

    /// Takes a name away, with all that is below it.
    pub(crate) fn unlink(&mut self, dir: NodeId, name: &[u8]) {
        let entries = self.dir_mut(dir).map(|directory| &mut directory.entries);
        let mut unnamed: Vec<_> = entries.and_then(|e| e.remove(name)).into_iter().collect();
        // However deep it is, this stack is not that of the thread.
        while let Some(name) = unnamed.pop() {
            let node = self.get_mut(name.node);
            node.names -= 1;
            if node.names > 0 {
                continue;
            }
            node.meta = Meta::default();
            if let NodeKind::Directory(gone) = std::mem::replace(&mut node.kind, NodeKind::Gone) {
                unnamed.extend(gone.entries.into_values());
            }
        }
    }

    /// Goes from the root along a path; symlinks are followed, the last component's too. Where components lack that no
    /// symlink speaks of, it is told how many.
    ///
    /// # Errors
    /// The way is lost.
    pub(crate) fn walk(&self, path: &[u8]) -> Result<Reached, Lost> {
        let mut left: Vec<&[u8]> = components(path).rev().collect();
        // So many of those at the end are the path's own; others come from symlinks.
        let mut own = left.len();
        let (mut at, mut links) = (NodeId::ROOT, 0);
        while let Some(component) = left.pop() {
            self.steps.set(self.steps.get() + 1);
            let of_link = left.len() >= own;
            own = own.min(left.len());
            let directory = self.dir(at).ok_or(Lost::NoDirectory)?;
            if component == b".." {
                at = directory.parent;
                continue;
            }
            let Some(name) = directory.entries.get(component) else {
                return match of_link {
                    true => Err(Lost::NoDirectory),
                    false => Ok(Reached {
                        dir: at,
                        missing: left.len() + 1,
                    }),
                };
            };
            match &self.get(name.node).kind {
                NodeKind::Directory(_) => at = name.node,
                NodeKind::Symlink(text) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Lost::Circle);
                    }
                    if text.first() == Some(&b'/') {
                        at = NodeId::ROOT;
                    }
                    left.extend(components(text).rev());
                }
                _ => return Err(Lost::NoDirectory),
            }
        }
        Ok(Reached {
            dir: at,
            missing: 0,
        })
    }

    /// The directory of this path.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find_dir(&self, path: &[u8]) -> Result<NodeId, Lost> {
        match self.walk(path)? {
            Reached { dir, missing: 0 } => Ok(dir),
            _ => Err(Lost::Nothing),
        }
    }

    /// What is at this path, its own symlink not followed.
    ///
    /// # Errors
    /// Nothing is.
    pub(crate) fn find(&self, path: &[u8]) -> Result<NodeId, Lost> {
        let (dir, name) = split(path);
        if name.is_empty() {
            return Ok(NodeId::ROOT);
        }
        let dir = self.find_dir(dir)?;
        self.look(dir, name)
            .map(|name| name.node)
            .ok_or(Lost::Nothing)
    }
}

/// An empty directory.
pub(crate) fn directory(parent: NodeId) -> NodeKind {
    NodeKind::Directory(Directory {
        parent,
        pruned: 0,
        entries: BTreeMap::new(),
    })
}

/// What a directory is like that only the path of an entry speaks of: root's, 0755, as old as that.
pub(crate) fn implied(entry: &Meta) -> Meta {
    Meta {
        mode: 0o755,
        mtime: entry.mtime,
        ..Meta::default()
    }
}

/// Directory and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Components without those that mean where one is.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}
