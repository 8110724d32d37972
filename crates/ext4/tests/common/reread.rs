//! A file system read back by this crate's own reader, as a tree.

use super::{Image, content};
use banger_ext4::{Entry, FileSystem, FileType, Inode, InodeId, Kind, Meta, Node, Tree, Xattr};
use std::collections::HashMap;
use std::fs::File;

/// Asserts that the reader finds the tree, and the content of files up to a length.
pub fn assert_equals(tree: &Tree, image: &Image) {
    let (mut found, nodes, view) = read(&image.path);
    let mut expected = Tree {
        inodes: tree.inodes.clone(),
    };
    let mut ids = Vec::new();
    order(&mut expected, InodeId::ROOT, &mut HashMap::new(), &mut ids);
    let mut back = Vec::new();
    order(&mut found, InodeId::ROOT, &mut HashMap::new(), &mut back);
    assert_eq!(back.len(), ids.len(), "inodes");
    for (mine, theirs) in back.iter().zip(&ids) {
        let (mine, theirs) = (mine.0 as usize, theirs.0 as usize);
        let (one, other) = (&found.inodes[mine], &expected.inodes[theirs]);
        let other_meta = as_stored(&other.meta);
        assert_eq!(one.meta, other_meta, "{theirs}: {:?}", other.kind);
        assert_eq!(shape(one), shape(other), "{theirs}");
        if let Kind::File { size, data } = &other.kind {
            let bytes = view.content(&nodes[mine]).unwrap();
            let mut read = vec![0; usize::try_from((*size).min(100_000)).unwrap()];
            assert_eq!(view.read(&bytes, 0, &mut read).unwrap(), read.len());
            for extent in data {
                let mut read = vec![0; usize::try_from(extent.len).unwrap()];
                view.read(&bytes, extent.offset, &mut read).unwrap();
                let id = InodeId(u32::try_from(theirs).unwrap());
                assert!(read == content(id, extent.offset, extent.len), "{theirs}");
            }
        }
    }
}

/// Times are kept in a range, attributes in an order.
fn as_stored(meta: &Meta) -> Meta {
    let mut meta = meta.clone();
    let seconds = meta.mtime.seconds;
    meta.mtime.seconds = seconds.clamp(-0x8000_0000, 0x2_7fff_ffff);
    if meta.mtime.seconds != seconds {
        meta.mtime.nanos = 0;
    }
    // The id of an ACL's entry that has none.
    for Xattr { name, value } in &mut meta.xattrs {
        if name.starts_with(b"system.") {
            for entry in value[4..].chunks_exact_mut(8) {
                if ![2, 8].contains(&entry[0]) {
                    entry[4..].fill(0xff);
                }
            }
        }
    }
    meta.xattrs.sort();
    meta
}

/// What an inode is, with files' data rounded to blocks, and without entries.
fn shape(inode: &Inode) -> Kind {
    match &inode.kind {
        Kind::Directory(_) => Kind::Directory(vec![]),
        Kind::File { size, data } => {
            let mut blocks: Vec<banger_ext4::Extent> = Vec::new();
            for extent in data {
                let offset = extent.offset & !4095;
                let end = (extent.offset + extent.len)
                    .next_multiple_of(4096)
                    .min(*size);
                match blocks.last_mut() {
                    Some(last) if last.offset + last.len >= offset => last.len = end - last.offset,
                    _ => blocks.push(banger_ext4::Extent {
                        offset,
                        len: end - offset,
                    }),
                }
            }
            Kind::File {
                size: *size,
                data: blocks,
            }
        }
        other => other.clone(),
    }
}

/// Inodes in the order of paths, each once; entries are sorted for that.
fn order(tree: &mut Tree, id: InodeId, seen: &mut HashMap<InodeId, ()>, all: &mut Vec<InodeId>) {
    if seen.insert(id, ()).is_some() {
        return;
    }
    all.push(id);
    let Kind::Directory(entries) = &mut tree.inodes[id.0 as usize].kind else {
        return;
    };
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let entries = entries.clone();
    for entry in entries {
        // It is not the tree's.
        if id == InodeId::ROOT && *entry.name == *b"lost+found" {
            continue;
        }
        order(tree, entry.inode, seen, all);
    }
}

/// The whole of a file system.
pub fn read(path: &std::path::Path) -> (Tree, Vec<Node>, FileSystem<File>) {
    let view = FileSystem::open(File::open(path).unwrap()).unwrap();
    let mut nodes = vec![view.node(FileSystem::<File>::ROOT).unwrap()];
    let mut ids = HashMap::from([(nodes[0].number, InodeId::ROOT)]);
    let mut inodes = Vec::new();
    while inodes.len() < nodes.len() {
        let node = nodes[inodes.len()].clone();
        let kind = kind(&view, &node, &mut nodes, &mut ids);
        let meta = Meta {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            xattrs: view.xattrs(&node).unwrap(),
        };
        inodes.push(Inode { meta, kind });
    }
    (Tree { inodes }, nodes, view)
}

fn kind(
    view: &FileSystem<File>,
    node: &Node,
    nodes: &mut Vec<Node>,
    ids: &mut HashMap<u32, InodeId>,
) -> Kind {
    let device = node.device().unwrap_or_default();
    let (major, minor) = device;
    match node.file_type {
        FileType::Directory => {
            let entries = view.entries(node).unwrap().into_iter();
            let entries = entries.map(|named| {
                let inode = *ids.entry(named.inode).or_insert_with(|| {
                    nodes.push(view.node(named.inode).unwrap());
                    InodeId(u32::try_from(nodes.len() - 1).unwrap())
                });
                Entry {
                    name: named.name,
                    inode,
                }
            });
            Kind::Directory(entries.collect())
        }
        FileType::File => Kind::File {
            size: node.size,
            data: view.data(&view.content(node).unwrap()),
        },
        FileType::Symlink => Kind::Symlink(view.target(node).unwrap().into()),
        FileType::CharDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    }
}
