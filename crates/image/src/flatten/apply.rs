//! Takes the entries of a layer into the tree.

use super::nodes::{
    LayerId, Lost, Name, NodeId, NodeKind, Nodes, components, directory, implied, split,
};
use crate::layer::{Blob, Entry, Form, What, shown};
use crate::{Error, Limits, Result};
use banger_ext4::Meta;
use std::sync::Arc;

/// Components that are gone along to each entry there may be, on average: symlinks make tens of thousands of a short path.
const STEPS: u64 = 256;

/// An image while its layers are put on top of each other, oldest first.
#[derive(Debug)]
pub(crate) struct Flatten {
    pub(super) nodes: Nodes,
    limits: Limits,
    form: Form,
    layer: LayerId,
    /// Inodes made, without the root.
    made: u64,
    taken: u64,
}

impl Flatten {
    /// An image with nothing in it.
    pub(crate) fn new(limits: &Limits, form: Form) -> Self {
        Flatten {
            nodes: Nodes::new(),
            limits: *limits,
            form,
            layer: 0,
            made: 0,
            taken: 0,
        }
    }

    /// What follows is of the next layer.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// How many entries were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn take(&mut self, entry: Entry) -> Result<()> {
        self.taken += 1;
        let most = self.limits.entries.saturating_mul(STEPS);
        if self.nodes.steps() > most {
            let why = "the ways to it and the entries before it lead through too many directories";
            return Err(Error::refused(&entry.path, why));
        }
        let Entry { path, meta, what } = entry;
        if path.is_empty() && !matches!(what, What::Opaque) {
            return self.root(meta, &what);
        }
        match what {
            What::Whiteout => self.hide(&path),
            What::Opaque => self.hide_below(&path),
            What::Directory => return self.directory(&path, meta),
            What::HardLink(target) => return self.hard_link(&path, &target),
            What::File { size, pieces } => {
                let kind = NodeKind::File {
                    layer: self.layer,
                    size,
                    pieces: pieces.into(),
                };
                return self.leaf(&path, meta, kind);
            }
            What::Symlink(text) => return self.leaf(&path, meta, NodeKind::Symlink(text.into())),
            What::Char(major, minor) => {
                return self.leaf(&path, meta, NodeKind::Char(major, minor));
            }
            What::Block(major, minor) => {
                return self.leaf(&path, meta, NodeKind::Block(major, minor));
            }
            What::Fifo => return self.leaf(&path, meta, NodeKind::Fifo),
        }
        Ok(())
    }

    /// The root stays root's and 0755: an archive made of somebody's directory must not lock a guest's users out.
    fn root(&mut self, meta: Meta, what: &What) -> Result<()> {
        if *what != What::Directory {
            return Err(Error::refused(b"/", "it would replace the root directory"));
        }
        self.nodes.get_mut(NodeId::ROOT).meta = implied(&meta);
        Ok(())
    }

    fn directory(&mut self, path: &[u8], meta: Meta) -> Result<()> {
        let (parent, name) = self.parent(path, &meta)?;
        if let Some(there) = self.nodes.look(parent, name) {
            if self.nodes.dir(there.node).is_some() {
                self.nodes.get_mut(there.node).meta = meta;
                self.stamp(parent, name, there.node);
                return Ok(());
            }
            self.nodes.unlink(parent, name);
        }
        self.make(parent, name, meta, directory(parent), path)
            .map(drop)
    }

    /// A file, symlink, device or pipe: it takes the place of what is there.
    fn leaf(&mut self, path: &[u8], meta: Meta, kind: NodeKind) -> Result<()> {
        let (parent, name) = self.parent(path, &meta)?;
        self.free(parent, name, path)?;
        self.make(parent, name, meta, kind, path).map(drop)
    }

    /// A new inode at a name that is free, for the entry of this path.
    fn make(
        &mut self,
        parent: NodeId,
        name: &[u8],
        meta: Meta,
        kind: NodeKind,
        path: &[u8],
    ) -> Result<NodeId> {
        self.made += 1;
        if self.made > self.limits.entries {
            let why = format!(
                "it is one entry more than {} (images.max_entries)",
                self.limits.entries
            );
            return Err(Error::refused(path, &why));
        }
        self.check_room(parent, path)?;
        let node = self.nodes.add(meta, kind);
        let layer = self.layer;
        self.nodes.link(parent, name, Name { node, layer });
        Ok(node)
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let refuse = |why: &str| Err(Error::refused(path, why));
        let Ok(node) = self.nodes.find(target) else {
            let target = shown(target);
            return refuse(&format!(
                "it is a hard link to '{target}', which is no entry before it"
            ));
        };
        if self.nodes.dir(node).is_some() {
            return refuse("it is a hard link to a directory");
        }
        let meta = Meta {
            mtime: self.nodes.get(node).meta.mtime,
            ..Meta::default()
        };
        let (parent, name) = self.parent(path, &meta)?;
        if self
            .nodes
            .look(parent, name)
            .is_some_and(|there| there.node == node)
        {
            self.stamp(parent, name, node);
            return Ok(());
        }
        // Should this name be the file's way, it has another to live by.
        self.nodes.get_mut(node).names += 1;
        let linked = self
            .free(parent, name, path)
            .and_then(|()| self.check_room(parent, path));
        if linked.is_ok() {
            let layer = self.layer;
            self.nodes.link(parent, name, Name { node, layer });
        }
        self.nodes.get_mut(node).names -= 1;
        linked
    }

    /// Where an entry belongs; directories that lack on the way are made.
    fn parent<'p>(&mut self, path: &'p [u8], meta: &Meta) -> Result<(NodeId, &'p [u8])> {
        let (dir, name) = split(path);
        let reached = self.nodes.walk(dir).map_err(|lost| {
            let why = match lost {
                Lost::Circle => "a symlink on the way to it leads in a circle",
                _ => "something on the way to it is no directory inside the image",
            };
            Error::refused(path, why)
        })?;
        let mut at = reached.dir;
        let known = components(dir).count() - reached.missing;
        for part in components(dir).skip(known) {
            at = self.make(at, part, implied(meta), directory(at), path)?;
        }
        Ok((at, name))
    }

    /// Makes a name free. In a layer all below it goes, as every unpacker has it; in a flat archive a directory that
    /// has entries stays, because nothing else in it speaks of them any more.
    fn free(&mut self, parent: NodeId, name: &[u8], path: &[u8]) -> Result<()> {
        let Some(there) = self.nodes.look(parent, name) else {
            return Ok(());
        };
        let full = self
            .nodes
            .dir(there.node)
            .is_some_and(|d| !d.entries.is_empty());
        if full && self.form == Form::Flat {
            let why = "a directory with entries is at its place already";
            return Err(Error::refused(path, why));
        }
        self.nodes.unlink(parent, name);
        Ok(())
    }

    fn check_room(&self, dir: NodeId, path: &[u8]) -> Result<()> {
        let most = self.limits.in_directory;
        let here = self.nodes.dir(dir).map_or(0, |d| d.entries.len() as u64);
        if here >= most {
            let why = format!(
                "it is one entry more than {most} in its directory (images.max_directory_entries)"
            );
            return Err(Error::refused(path, &why));
        }
        Ok(())
    }

    /// Says that this layer has an entry for a name.
    fn stamp(&mut self, dir: NodeId, name: &[u8], node: NodeId) {
        let layer = self.layer;
        if let Some(there) = self
            .nodes
            .dir_mut(dir)
            .and_then(|d| d.entries.get_mut(name))
        {
            *there = Name { node, layer };
        }
    }

    /// Hides what lower layers have at a path; where there is nothing, nothing is to be hidden.
    fn hide(&mut self, path: &[u8]) {
        let (dir, name) = split(path);
        let Ok(parent) = self.nodes.find_dir(dir) else {
            return;
        };
        let Some(there) = self.nodes.look(parent, name) else {
            return;
        };
        if self.nodes.dir(there.node).is_some() {
            self.prune(there.node);
        }
        let empty = self
            .nodes
            .dir(there.node)
            .is_none_or(|d| d.entries.is_empty());
        if there.layer < self.layer {
            if empty {
                self.nodes.unlink(parent, name);
            } else {
                // What this layer has in it keeps it; what it was like below is hidden too.
                let node = self.nodes.get_mut(there.node);
                node.meta = implied(&node.meta);
                self.stamp(parent, name, there.node);
            }
        }
    }

    /// Hides what lower layers have in a directory. A symlink at its path is none: what it leads to is not spoken of.
    fn hide_below(&mut self, path: &[u8]) {
        if let Ok(dir) = self.nodes.find(path) {
            self.prune(dir);
        }
    }

    /// Takes away all below a directory that is of lower layers. A directory with entries of this layer in it stays.
    ///
    /// However many markers a layer has, it goes through each directory once: what is pruned stays so while the layer
    /// lasts, because what comes later is the layer's own. Below the oldest layer is nothing.
    fn prune(&mut self, top: NodeId) {
        // Each directory after those that are in it.
        let mut order = Vec::new();
        self.begin_prune(top, &mut order);
        let mut at = 0;
        while at < order.len() {
            let dir = order[at];
            at += 1;
            let entries = self.nodes.dir(dir).map(|d| &d.entries);
            let below = entries.into_iter().flat_map(|e| e.values());
            let nodes: Vec<_> = below.map(|name| name.node).collect();
            for node in nodes {
                self.begin_prune(node, &mut order);
            }
        }
        for dir in order.into_iter().rev() {
            self.prune_one(dir);
        }
    }

    /// Takes a directory into the order, if it was not pruned in this layer.
    fn begin_prune(&mut self, node: NodeId, order: &mut Vec<NodeId>) {
        let layer = self.layer;
        if let Some(dir) = self.nodes.dir_mut(node)
            && dir.pruned < layer
        {
            dir.pruned = layer;
            order.push(node);
        }
    }

    fn prune_one(&mut self, dir: NodeId) {
        let Some(directory) = self.nodes.dir(dir) else {
            return;
        };
        let layer = self.layer;
        let lower = directory
            .entries
            .iter()
            .filter(|(_, name)| name.layer < layer);
        let lower: Vec<_> = lower.map(|(name, to)| (name.clone(), to.node)).collect();
        for (name, node) in lower {
            let kept = self.nodes.dir(node).is_some_and(|d| !d.entries.is_empty());
            if kept {
                let kept = self.nodes.get_mut(node);
                kept.meta = implied(&kept.meta);
                self.stamp(dir, &name, node);
            } else {
                self.nodes.unlink(dir, &name);
            }
        }
    }

    /// Whether there is an entry of this path, symlinks on the way followed.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        self.nodes.find(path).is_ok()
    }

    /// Where a file lies as one piece in its layer: first byte and length. Its own symlink is followed.
    pub(crate) fn whole_file(&self, path: &[u8]) -> Option<(u64, u64)> {
        let mut node = self.nodes.find(path).ok()?;
        let mut at = path.to_owned();
        for _ in 0..8 {
            let NodeKind::Symlink(text) = &self.nodes.get(node).kind else {
                break;
            };
            let (dir, _) = split(&at);
            at = match text.first() {
                Some(b'/') => text.to_vec(),
                _ => [dir, text].join(&b'/'),
            };
            node = self.nodes.find(&at).ok()?;
        }
        let NodeKind::File { size, pieces, .. } = &self.nodes.get(node).kind else {
            return None;
        };
        // Runs of zeros are left out of the pieces, and lie in the stream all the same.
        let first = pieces.first()?;
        let start = first.from.checked_sub(first.offset)?;
        let whole = pieces
            .iter()
            .all(|piece| piece.from == start + piece.offset);
        whole.then_some((start, *size))
    }

    /// A file of an archive that lies unpacked in `file`, as the blob it is.
    pub(crate) fn blob(&self, path: &[u8], file: &Arc<std::fs::File>) -> Option<Blob> {
        let (start, len) = self.whole_file(path)?;
        let file = Arc::clone(file);
        Some(Blob { file, start, len })
    }
}
