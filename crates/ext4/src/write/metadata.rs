//! Everything but the bytes of files.

use super::census::{LOST_AND_FOUND, Node};
use super::directory::{self, Context, Item};
use super::extents::{self, Fork, Run};
use super::geometry::Geometry;
use super::groups::Used;
use super::inode::{self, Record};
use super::sink::{Sink, WriteAt};
use super::superblock::Superblock;
use super::xattr::{INLINE, Xattrs};
use super::{Layout, journal, resize};
use crate::checksum::Checksum;
use crate::format::{
    BLOCK, BLOCK_BYTES, DESCRIPTOR, INODE, SUPERBLOCK_OFFSET, flag, low32, mode, number,
};
use crate::tree::{Inode, Kind, Tree};
use std::io;

/// Writes it, the superblock last: where the bytes of files are there already, a file that was not finished is no file system.
pub fn write(layout: &Layout, tree: &Tree, out: &dyn WriteAt) -> io::Result<()> {
    if tree.inodes.len() != layout.nodes.len() {
        return Err(another_tree());
    }
    let mut writer = Writer {
        layout,
        tree,
        checksum: Checksum::of_file_system(&layout.options.uuid),
        sink: Sink::new(out),
    };
    writer.directories()?;
    writer.links_and_attributes()?;
    writer.inodes()?;
    let journal = writer.own_inodes()?;
    writer.groups(journal)?;
    writer.sink.flush()
}

fn another_tree() -> io::Error {
    let why = "the tree is not the one that the file system was laid out for";
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

struct Writer<'a> {
    layout: &'a Layout,
    tree: &'a Tree,
    checksum: Checksum,
    sink: Sink<'a>,
}

impl<'a> Writer<'a> {
    /// Inodes that are written, with what is known of them.
    fn live(&self) -> impl Iterator<Item = (u32, &'a Node, &'a Inode)> + use<'a> {
        (0..)
            .zip(&self.layout.nodes)
            .zip(&self.tree.inodes)
            .map(|((id, node), inode)| (id, node, inode))
            .filter(|(_, node, _)| node.number != 0)
    }

    fn directories(&mut self) -> io::Result<()> {
        if !self.layout.placing.lost_and_found.is_empty() {
            self.lost_and_found()?;
        }
        for (id, node, inode) in self.live() {
            if let Kind::Directory(entries) = &inode.kind {
                let mut items = Vec::with_capacity(entries.len() + 1);
                for entry in entries {
                    let target = entry.inode.0 as usize;
                    let named = self.tree.inodes.get(target).ok_or_else(another_tree)?;
                    items.push(Item {
                        name: &entry.name,
                        number: self.layout.nodes[target].number,
                        kind: directory::type_code(&named.kind),
                    });
                }
                if id == 0 && !self.layout.placing.lost_and_found.is_empty() {
                    items.push(Item {
                        name: LOST_AND_FOUND,
                        number: number::FIRST,
                        kind: 2,
                    });
                }
                let parent = self.layout.nodes[node.parent as usize].number;
                self.directory(node.number, parent, &items, self.layout.runs(node))?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        number: u32,
        parent: u32,
        items: &[Item<'_>],
        runs: &[Run],
    ) -> io::Result<()> {
        let context = Context {
            number,
            parent,
            seed: &self.layout.options.hash_seed,
            checksum: self.checksum.of_inode(number),
        };
        let mut places = runs.iter().flat_map(|run| run.disk..run.disk + run.len);
        let sink = &mut self.sink;
        directory::encode(items, context, &mut |block| {
            sink.block(places.next().ok_or_else(another_tree)?, block)
        })?;
        match places.next() {
            None => Ok(()),
            Some(_) => Err(another_tree()),
        }
    }

    fn lost_and_found(&mut self) -> io::Result<()> {
        let checksum = self.checksum.of_inode(number::FIRST);
        let runs = &self.layout.placing.lost_and_found;
        let mut blocks = runs.iter().flat_map(|run| run.disk..run.disk + run.len);
        let first = blocks.next().map(|disk| Run {
            logical: 0,
            disk,
            len: 1,
        });
        self.directory(number::FIRST, number::ROOT, &[], first.as_slice())?;
        blocks.try_for_each(|block| self.sink.block(block, &directory::empty(checksum)))
    }

    fn links_and_attributes(&mut self) -> io::Result<()> {
        for (_, node, inode) in self.live() {
            if node.xattr_block != 0 {
                let xattrs = Xattrs::of(inode).map_err(|_| another_tree())?;
                let block = xattrs.encode_block(node.xattr_block, self.checksum);
                self.sink.block(node.xattr_block, &block)?;
            }
            if let (Kind::Symlink(target), [run]) = (&inode.kind, self.layout.runs(node)) {
                let mut block = [0; BLOCK];
                let place = block.get_mut(..target.len()).ok_or_else(another_tree)?;
                place.copy_from_slice(target);
                self.sink.block(run.disk, &block)?;
            }
        }
        Ok(())
    }

    fn inodes(&mut self) -> io::Result<()> {
        for (id, node, inode) in self.live() {
            let record = self.record(id, node, inode)?;
            self.inode(node.number, &record)?;
        }
        Ok(())
    }

    fn inode(&mut self, number: u32, record: &Record) -> io::Result<()> {
        let group_inodes = self.layout.placing.geometry.group_inodes;
        let table = self.layout.placing.groups[((number - 1) / group_inodes) as usize].table;
        let offset = u64::from((number - 1) % group_inodes) * INODE as u64;
        let bytes = record.encode(self.checksum.of_inode(number));
        self.sink
            .put(u64::from(table) * BLOCK_BYTES + offset, &bytes)
    }

    fn record(&mut self, id: u32, node: &Node, inode: &Inode) -> io::Result<Record> {
        let runs = self.layout.runs(node);
        let tree_blocks = self.layout.placing.trees.get(&id);
        let tree_blocks = tree_blocks.map_or(&[][..], Vec::as_slice);
        let mut flags = 0;
        let fork = match &inode.kind {
            Kind::Symlink(target) if runs.is_empty() => {
                let mut fork = [0; 60];
                let place = fork.get_mut(..target.len()).ok_or_else(another_tree)?;
                place.copy_from_slice(target);
                fork
            }
            Kind::Directory(_) | Kind::File { .. } | Kind::Symlink(_) => {
                flags |= flag::EXTENTS;
                self.extents(node.number, runs, tree_blocks)?
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                inode::device(*major, *minor)
            }
            Kind::Fifo | Kind::Socket => [0; 60],
        };
        if matches!(inode.kind, Kind::Directory(_)) && node.size > BLOCK_BYTES {
            flags |= flag::INDEX;
        }
        let xattrs = Xattrs::of(inode).map_err(|_| another_tree())?;
        let blocks: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        Ok(Record {
            mode: inode::type_bits(&inode.kind) | inode.meta.mode,
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            size: node.size,
            links: node.links,
            blocks: blocks + tree_blocks.len() as u64 + u64::from(node.xattr_block != 0),
            flags,
            time: inode.meta.mtime,
            fork,
            xattr_block: node.xattr_block,
            xattrs: xattrs.encode_inline(),
        })
    }

    fn extents(&mut self, number: u32, runs: &[Run], tree_blocks: &[u32]) -> io::Result<Fork> {
        let sink = &mut self.sink;
        let checksum = self.checksum.of_inode(number);
        extents::encode(runs, tree_blocks, checksum, &mut |place, block| {
            sink.block(place, block)
        })
    }

    /// The inodes that no entry of the tree names; the journal's extents and size.
    fn own_inodes(&mut self) -> io::Result<Option<(Fork, u64)>> {
        let placing = &self.layout.placing;
        let file = mode::REGULAR | 0o600;
        if let Some(place) = placing.resize {
            let blocks = resize::blocks(&placing.geometry);
            let record = self.own(file, resize::SIZE, blocks, resize::fork(place));
            self.inode(number::RESIZE, &record)?;
            let block = resize::doubly_indirect(&placing.geometry);
            self.sink.block(place, &block)?;
        }
        let mut journal = None;
        if let Some(first) = placing.journal.first() {
            let fork = self.extents(number::JOURNAL, &placing.journal, &[])?;
            let blocks: u32 = placing.journal.iter().map(|run| run.len).sum();
            let size = u64::from(blocks) * BLOCK_BYTES;
            let mut record = self.own(file, size, u64::from(blocks), fork);
            record.flags = flag::EXTENTS;
            self.inode(number::JOURNAL, &record)?;
            let block = journal::superblock(blocks, &self.layout.options.uuid);
            self.sink.block(first.disk, &block)?;
            journal = Some((fork, size));
        }
        if !placing.lost_and_found.is_empty() {
            let fork = self.extents(number::FIRST, &placing.lost_and_found, &[])?;
            let blocks = placing.lost_and_found.iter().map(|run| u64::from(run.len));
            let blocks = blocks.sum();
            let mut record = self.own(mode::DIRECTORY | 0o700, blocks * BLOCK_BYTES, blocks, fork);
            record.flags = flag::EXTENTS;
            record.links = 2;
            self.inode(number::FIRST, &record)?;
        }
        Ok(journal)
    }

    fn own(&self, mode: u16, size: u64, blocks: u64, fork: Fork) -> Record {
        Record {
            mode,
            uid: 0,
            gid: 0,
            size,
            links: 1,
            blocks,
            flags: 0,
            time: self.layout.options.time,
            fork,
            xattr_block: 0,
            xattrs: [0; INLINE],
        }
    }

    /// Bitmaps, then descriptors and superblock with their copies.
    fn groups(&mut self, journal: Option<(Fork, u64)>) -> io::Result<()> {
        let placing = &self.layout.placing;
        let geometry = &placing.geometry;
        let used = Used {
            geometry,
            blocks: placing.blocks,
            end: placing.end,
            gaps: &placing.gaps,
            inodes: self.layout.last,
        };
        let directories = self.directories_by_group();
        let mut descriptors = Vec::with_capacity(placing.groups.len() * DESCRIPTOR);
        let mut inode_bitmaps = Vec::new();
        let mut free_blocks = 0;
        for ((group, places), directories) in (0..).zip(&placing.groups).zip(directories) {
            let made = used.group(group, *places, directories, self.checksum);
            descriptors.extend_from_slice(&made.descriptor);
            free_blocks += u64::from(made.free_blocks);
            if let Some(bitmap) = made.block_bitmap {
                self.sink.block(places.block_bitmap, &bitmap[..])?;
            }
            inode_bitmaps.extend(made.inode_bitmap.map(|bits| (places.inode_bitmap, bits)));
        }
        for (place, bitmap) in inode_bitmaps {
            self.sink.block(place, &bitmap[..])?;
        }
        let superblock = Superblock {
            geometry,
            blocks: placing.blocks,
            free_blocks,
            free_inodes: low32(geometry.inodes()) - self.layout.last,
            uuid: &self.layout.options.uuid,
            hash_seed: &self.layout.options.hash_seed,
            label: &self.layout.options.label,
            time: self.layout.options.time,
            journal,
        };
        if geometry.backups().next().is_some() {
            for kept in resize::kept(geometry) {
                self.sink
                    .block(low32(kept), &resize::indirect(geometry, kept))?;
            }
        }
        for group in geometry.backups() {
            let start = Geometry::start(group) * BLOCK_BYTES;
            self.sink.put(start, &superblock.encode(group))?;
            self.sink.put(start + BLOCK_BYTES, &descriptors)?;
        }
        self.sink.put(BLOCK_BYTES, &descriptors)?;
        self.sink.flush()?;
        self.sink.put(SUPERBLOCK_OFFSET, &superblock.encode(0))
    }

    fn directories_by_group(&self) -> Vec<u32> {
        let group_inodes = self.layout.placing.geometry.group_inodes;
        let mut counts = vec![0; self.layout.placing.groups.len()];
        let own = (!self.layout.placing.lost_and_found.is_empty()).then_some(number::FIRST);
        let directories = self
            .live()
            .filter(|(_, _, inode)| matches!(inode.kind, Kind::Directory(_)))
            .map(|(_, node, _)| node.number);
        for number in directories.chain(own) {
            counts[((number - 1) / group_inodes) as usize] += 1;
        }
        counts
    }
}
