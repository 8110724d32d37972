//! ext4 file systems: trees written and read back, and file systems with damage read.

use banger_ext4::{
    Entry, Extent, FileSystem, FileType, Inode, InodeId, Kind, Layout, Meta, Options, Time, Tree,
    WriteAt, Xattr,
};
use std::io;
use std::sync::{Mutex, OnceLock};

/// A file in memory.
struct Memory(Mutex<Vec<u8>>);

impl WriteAt for Memory {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut all = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let end = from + bytes.len();
        assert!(end <= all.len(), "nothing is written beyond the size");
        all[from..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// A tree from bytes: each four say what an inode is, where it is, and what its name begins with.
pub fn tree_of(data: &[u8]) -> Tree {
    let directory = || Kind::Directory(Vec::new());
    let mut inodes = vec![inode(directory(), 0)];
    let mut directories = vec![0];
    for (at, step) in data.chunks_exact(4).take(64).enumerate() {
        let [what, place, name, size] = [step[0], step[1], step[2], step[3]];
        let id = inodes.len();
        let len = u64::from(size) * 37;
        inodes.push(match what % 8 {
            0 => inode(directory(), size),
            1 => inode(Kind::Symlink(vec![b'l'; usize::from(size)].into()), size),
            2 => inode(Kind::Fifo, size),
            3 => inode(sparse(len), size),
            4 => device(size, u32::from(name) << 4, u32::from(place) << 12),
            _ => inode(whole(len), size),
        });
        if matches!(inodes[id].kind, Kind::Directory(_)) {
            directories.push(id);
        }
        let parent = directories[usize::from(place) % directories.len()];
        if parent == id {
            continue;
        }
        // Any byte, so that some names are none; the number makes the others differ.
        let mut bytes = vec![name];
        bytes.extend(format!("{at}").bytes());
        bytes.resize(bytes.len() + usize::from(what) / 2, name);
        if let Kind::Directory(entries) = &mut inodes[parent].kind {
            entries.push(Entry {
                name: bytes.into(),
                inode: InodeId(u32::try_from(id).unwrap_or(0)),
            });
        }
    }
    Tree { inodes }
}

/// An inode whose attributes follow from a byte.
pub fn inode(kind: Kind, seed: u8) -> Inode {
    let value = vec![seed; usize::from(seed) * 4];
    let xattr = Xattr {
        name: b"user.seed"[..].into(),
        value: value.into(),
    };
    let meta = Meta {
        mode: u16::from(seed),
        uid: u32::from(seed) << 20,
        gid: u32::from(seed),
        mtime: Time {
            seconds: i64::from(seed) << 24,
            nanos: u32::from(seed),
        },
        xattrs: if seed.is_multiple_of(3) {
            vec![xattr]
        } else {
            vec![]
        },
    };
    Inode { meta, kind }
}

fn device(seed: u8, major: u32, minor: u32) -> Inode {
    inode(Kind::CharDevice { major, minor }, seed)
}

fn whole(size: u64) -> Kind {
    let all = Extent {
        offset: 0,
        len: size,
    };
    let data = if size == 0 { vec![] } else { vec![all] };
    Kind::File { size, data }
}

fn sparse(len: u64) -> Kind {
    let data = (0..len / 37).map(|at| Extent {
        offset: at * 20_000,
        len: 7,
    });
    Kind::File {
        size: len / 37 * 20_000,
        data: data.collect(),
    }
}

/// Small, and as it stays.
pub fn options() -> Options {
    let mut options = Options::new([7; 16]);
    options.bytes_per_inode = 0;
    options.grow_to = 0;
    options
}

/// A tree's file system, each file full of a byte of its own.
pub fn written(tree: &Tree, layout: &Layout) -> Vec<u8> {
    let size = usize::try_from(layout.size()).expect("a small file system");
    let memory = Memory(Mutex::new(vec![0; size]));
    layout
        .write_metadata(tree, &memory)
        .expect("memory takes everything");
    for (id, inode) in (0..).map(InodeId).zip(&tree.inodes) {
        if let Kind::File { data, .. } = &inode.kind
            && layout.position(id, 0).is_some()
        {
            for extent in data {
                let bytes = vec![id.0 as u8 | 1; usize::try_from(extent.len).unwrap_or(0)];
                layout
                    .place(id, extent.offset, &bytes, &memory)
                    .expect("the tree says there is data");
            }
        }
    }
    memory.0.into_inner().expect("no one panicked")
}

/// A tree is refused in words, or written and found again.
pub fn written_and_read(data: &[u8]) {
    let tree = tree_of(data);
    match Layout::new(&tree, &options()) {
        Err(refused) => assert!(!refused.to_string().is_empty()),
        Ok(layout) => {
            let view = FileSystem::open(written(&tree, &layout)).expect("what was written is read");
            let root = view.node(FileSystem::<Vec<u8>>::ROOT).expect("a root");
            compare(&tree, 0, &view, &root);
        }
    }
}

fn compare(tree: &Tree, id: usize, view: &FileSystem<Vec<u8>>, node: &banger_ext4::Node) {
    let inode = &tree.inodes[id];
    let meta = Meta {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        xattrs: view.xattrs(node).expect("attributes"),
    };
    assert_eq!(meta, inode.meta);
    match &inode.kind {
        Kind::Directory(entries) => {
            let found = view.entries(node).expect("entries");
            let added = usize::from(id == 0);
            assert_eq!(found.len(), entries.len() + added);
            for entry in entries {
                let named = found.iter().find(|named| named.name == entry.name);
                let below = view
                    .node(named.expect("the name").inode)
                    .expect("the inode");
                compare(tree, entry.inode.0 as usize, view, &below);
            }
        }
        Kind::File { size, data } => {
            assert_eq!(node.size, *size);
            let content = view.content(node).expect("content");
            for extent in data {
                let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
                view.read(&content, extent.offset, &mut bytes)
                    .expect("bytes");
                assert!(bytes.iter().all(|&byte| byte == id as u8 | 1));
            }
        }
        Kind::Symlink(target) => assert_eq!(view.target(node).expect("target"), target[..]),
        Kind::CharDevice { major, minor } => assert_eq!(node.device(), Some((*major, *minor))),
        _ => assert_eq!(node.file_type, FileType::Fifo),
    }
}

/// What is there, with other bytes where the data say so.
pub fn changed(whole: &[u8], data: &[u8]) -> Vec<u8> {
    let mut image = whole.to_vec();
    for change in data.chunks_exact(4) {
        // Most of what tells about files is at the beginning.
        let at = usize::from(change[0]) << 12
            | usize::from(change[1]) << 4
            | usize::from(change[2] & 15);
        let at = at % image.len();
        image[at] = change[3];
    }
    image
}

/// A file system in which the bytes say which bytes are others: it ends, and takes no more than is there.
pub fn damaged(data: &[u8]) {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| {
        let steps: Vec<u8> = (0..64).flat_map(|at| [at, at / 9, b'a', at * 4]).collect();
        let tree = tree_of(&steps);
        let layout = Layout::new(&tree, &options()).expect("a good tree");
        let mut image = written(&tree, &layout);
        // Without the flag of checksums damage is met where it is used.
        image[1024 + 0x65] &= !0x4;
        image
    });
    let Ok(view) = FileSystem::open(changed(whole, data)) else {
        return;
    };
    for number in 1..80 {
        let Ok(node) = view.node(number) else {
            continue;
        };
        let _ = (view.entries(&node).is_ok(), view.xattrs(&node).is_ok());
        let _ = view.target(&node).is_ok();
        if let Ok(content) = view.content(&node) {
            let mut bytes = [0; 5000];
            let read = view.read(&content, node.size / 2, &mut bytes);
            assert!(read.is_err() || read.is_ok_and(|read| read <= 5000));
        }
    }
    let _ = view.resolve(b"a1/../a10", true).is_ok();
}
