//! Disks made for a test, and streams taken apart.
#![allow(dead_code, reason = "each test file uses its part")]

use banger_disks::{Disks, RootDisks, View, What, pack};
use banger_ext4::{
    Entry, Extent, Inode, InodeId, Kind, Layout, Meta, Options, ReadAt, Time, Tree, Xattr,
};
use banger_tree::tar::{self, Reader};
use banger_tree::{Error, Output};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// What a disk is to hold at a path.
#[derive(Debug, Clone)]
pub enum Is {
    Dir,
    File(&'static str),
    Link(&'static str),
    Char(u32, u32),
    Socket,
    Fifo,
    /// A name of what is at this path.
    Same(&'static str),
}

/// A disk, its parents made as they are needed. Attributes come with what they belong to.
pub struct Maker {
    tree: Tree,
    content: Vec<(InodeId, Vec<u8>)>,
}

impl Maker {
    pub fn new() -> Maker {
        Maker {
            tree: Tree {
                inodes: vec![inode(Kind::Directory(Vec::new()))],
            },
            content: Vec::new(),
        }
    }

    pub fn of(entries: &[(&str, Is)]) -> Maker {
        let mut maker = Maker::new();
        for (path, is) in entries {
            maker.put(path, is.clone());
        }
        maker
    }

    fn entries(&mut self, id: InodeId) -> &mut Vec<Entry> {
        match &mut self.tree.inodes[id.0 as usize].kind {
            Kind::Directory(entries) => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    /// The inode at a path; directories are made.
    pub fn at(&mut self, path: &str) -> InodeId {
        let mut here = InodeId::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self
                .entries(here)
                .iter()
                .find(|e| *e.name == *name.as_bytes());
            here = match found.map(|entry| entry.inode) {
                Some(found) => found,
                None => self.add(here, name, Kind::Directory(Vec::new())),
            };
        }
        here
    }

    fn add(&mut self, parent: InodeId, name: &str, kind: Kind) -> InodeId {
        let id = InodeId(u32::try_from(self.tree.inodes.len()).unwrap());
        self.tree.inodes.push(inode(kind));
        self.name(parent, name, id);
        id
    }

    fn name(&mut self, parent: InodeId, name: &str, inode: InodeId) {
        let name = name.as_bytes().into();
        self.entries(parent).push(Entry { name, inode });
    }

    pub fn put(&mut self, path: &str, is: Is) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.at(parent);
        let kind = match is {
            Is::Dir => {
                self.at(path);
                return;
            }
            Is::Same(other) => {
                let other = self.at(other);
                return self.name(parent, name, other);
            }
            Is::File(text) => {
                let size = text.len() as u64;
                let whole = Extent {
                    offset: 0,
                    len: size,
                };
                let data = if size > 0 { vec![whole] } else { vec![] };
                let id = self.add(parent, name, Kind::File { size, data });
                return self.content.push((id, text.as_bytes().to_vec()));
            }
            Is::Link(target) => Kind::Symlink(target.as_bytes().into()),
            Is::Char(major, minor) => Kind::CharDevice { major, minor },
            Is::Socket => Kind::Socket,
            Is::Fifo => Kind::Fifo,
        };
        self.add(parent, name, kind);
    }

    /// Gives what is at a path an attribute.
    pub fn mark(mut self, path: &str, name: &str, value: &str) -> Maker {
        let id = self.at(path);
        self.tree.inodes[id.0 as usize].meta.xattrs.push(Xattr {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        });
        self
    }

    /// Writes it.
    pub fn write(&self, options: &Options) -> File {
        let file = tempfile::tempfile().unwrap();
        self.write_to(&file, options);
        file
    }

    pub fn write_to(&self, file: &File, options: &Options) {
        let layout = Layout::new(&self.tree, options).unwrap();
        file.set_len(layout.size()).unwrap();
        layout.write_metadata(&self.tree, file).unwrap();
        for (id, bytes) in &self.content {
            layout.place(*id, 0, bytes, file).unwrap();
        }
    }

    pub fn disk(&self) -> File {
        self.write(&Options::new(*b"banger-disks-tst"))
    }
}

fn inode(kind: Kind) -> Inode {
    let meta = Meta {
        mode: 0o755,
        mtime: Time {
            seconds: 1_600_000_000,
            nanos: 5,
        },
        ..Meta::default()
    };
    Inode { meta, kind }
}

/// The root of an overlay alone.
pub fn overlay<R: ReadAt>(base: R, changes: R) -> View<R> {
    let root = RootDisks::Overlay { base, changes };
    let (work, modules) = (None, None);
    View::open(Disks {
        root,
        work,
        modules,
    })
    .unwrap()
}

/// A stream in memory.
#[derive(Default)]
pub struct Sink {
    room: Vec<u8>,
    pub bytes: Vec<u8>,
    pub warnings: Vec<String>,
}

impl Output for Sink {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        self.room.resize(5000, 0);
        Ok(&mut self.room)
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.bytes.extend_from_slice(&self.room[..count]);
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

pub fn packed<R: ReadAt>(view: &View<R>, path: &str, follow: bool) -> Result<Sink, Error> {
    let mut sink = Sink::default();
    let what = What {
        path: path.as_bytes(),
        name: b"",
        follow,
    };
    pack(view, &what, &mut sink, &|| false)?;
    Ok(sink)
}

/// What a stream says of a path: kind and attributes, and bytes; of a file with several names, all of them.
pub type Told = (String, Vec<u8>, Vec<String>);

/// A stream by its paths, whatever the order of its entries.
pub fn told(stream: &[u8]) -> BTreeMap<String, Told> {
    let mut reader = Reader::new(stream);
    let mut all: BTreeMap<String, Told> = BTreeMap::new();
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if let tar::Kind::HardLink { target } = &entry.kind {
            let target = String::from_utf8_lossy(target).into_owned();
            first.insert(path, target);
            continue;
        }
        let mut bytes = Vec::new();
        if let tar::Kind::File { .. } = entry.kind {
            while let Some(data) = Some(reader.data(u64::MAX).unwrap()).filter(|d| !d.is_empty()) {
                let count = data.len();
                bytes.extend_from_slice(data);
                reader.consume(count);
            }
        }
        let tar::Entry {
            kind,
            mode,
            uid,
            gid,
            mtime,
            ..
        } = entry;
        let said = format!("{kind:?} {mode:o} {uid}:{gid} {mtime:?}");
        let before = all.insert(path.clone(), (said, bytes, vec![path]));
        assert!(before.is_none(), "told twice");
    }
    for (path, target) in &first {
        all.get_mut(target)
            .expect("a first name")
            .2
            .push(path.clone());
    }
    let files: Vec<Told> = all.values().cloned().collect();
    for (said, bytes, mut names) in files {
        names.sort();
        for name in names.clone() {
            all.insert(name, (said.clone(), bytes.clone(), names.clone()));
        }
    }
    all
}
