//! Files and directories, in a directory of the test's own.

use super::{Answer, Group, Pair, Rng, done, shown};
use banger_host::{DiskRecipe, FileKind, Files, sim::Content};
use banger_model::ByteSize;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

/// Few paths, so that they meet: a file may be where a directory is named, and the other way round.
const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/e", "d/e/f", "a/x", "gone/x"];

#[derive(Debug)]
pub enum Op {
    Read(&'static str),
    Stat(&'static str),
    List(&'static str),
    Mkdir(&'static str),
    Write(&'static str, u8),
    SyncFile(&'static str),
    SyncDir(&'static str),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    SparseDisk(&'static str, u64),
    CopiedDisk(&'static str, &'static str),
    ClonedDisk(&'static str, &'static str),
    GrownDisk(&'static str, u64),
    DiskSpace(&'static str),
}

pub struct FileGroup {
    pair: Pair,
    root: PathBuf,
    _dir: tempfile::TempDir,
    /// What the simulation says about disks' bytes: equal for one and the same serial number.
    disks: BTreeMap<u32, Vec<u8>>,
}

impl FileGroup {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        FileGroup {
            pair: Pair::new(&root, &root),
            root,
            _dir: dir,
            disks: BTreeMap::new(),
        }
    }

    /// What is in a simulated file, the bytes of a disk from its number.
    fn simulated(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.pair.sim[0].world();
        let world = world.borrow();
        world.fs.content(path).map(|content| match content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::Disk(disk) => self.disks[&disk.serial].clone(),
        })
    }
}

fn print(bytes: &[u8]) -> String {
    let (head, tail) = bytes.split_at(bytes.len().min(512));
    let mut hasher = DefaultHasher::new();
    head.hash(&mut hasher);
    // Disks are zeros but for what was copied into them; comparing is faster than hashing.
    if tail != vec![0; tail.len()] {
        tail.hash(&mut hasher);
    }
    format!("{} bytes {:x}", bytes.len(), hasher.finish())
}

fn apply<H: Files>(host: &H, root: &Path, op: &Op) -> Answer {
    let at = |path: &str| match path {
        "" => root.to_owned(),
        path => root.join(path),
    };
    match op {
        Op::Read(p) => host
            .read(&at(p))
            .map(|bytes| format!("{:?}", bytes.map(|b| print(&b))))
            .map_err(|e| e.kind),
        Op::Stat(p) => shown(host.stat(&at(p)).map(|seen| {
            // A directory's length is the file system's own business.
            seen.map(|s| (s.kind, if s.kind == FileKind::Dir { 0 } else { s.len }))
        })),
        Op::List(p) => shown(host.list(&at(p))),
        Op::Mkdir(p) => done(host.mkdir(&at(p))),
        Op::Write(p, n) => done(host.write(&at(p), &vec![*n; usize::from(*n)])),
        Op::SyncFile(p) => done(host.sync_file(&at(p))),
        Op::SyncDir(p) => done(host.sync_dir(&at(p))),
        Op::Rename(from, to) => done(host.rename(&at(from), &at(to))),
        Op::Exchange(one, other) => done(host.exchange(&at(one), &at(other))),
        Op::Unlink(p) => done(host.unlink(&at(p))),
        Op::Rmdir(p) => done(host.rmdir(&at(p))),
        Op::SparseDisk(p, mib) => {
            let size = ByteSize::mib(*mib);
            done(host.make_disk(&at(p), &DiskRecipe::Sparse { size }))
        }
        Op::CopiedDisk(p, from) => {
            let template = at(from);
            done(host.make_disk(&at(p), &DiskRecipe::CopyOf { template }))
        }
        Op::ClonedDisk(p, from) => {
            let template = at(from);
            done(host.make_disk(&at(p), &DiskRecipe::CloneOf { template }))
        }
        Op::GrownDisk(p, mib) => done(host.grow_disk(&at(p), ByteSize::mib(*mib))),
        // How much there is differs; whether it can be asked does not.
        Op::DiskSpace(p) => done(host.disk_space(&at(p))),
    }
}

fn tree<H: Files>(
    host: &H,
    dir: &Path,
    read: &dyn Fn(&Path) -> Option<Vec<u8>>,
    seen: &mut Vec<String>,
) {
    for name in host.list(dir).unwrap() {
        let path = dir.join(name);
        let stat = host.stat(&path).unwrap().unwrap();
        let content = match stat.kind {
            FileKind::File => print(&read(&path).unwrap()),
            _ => String::new(),
        };
        seen.push(format!("{} {:?} {content}", path.display(), stat.kind));
        if stat.kind == FileKind::Dir {
            tree(host, &path, read, seen);
        }
    }
}

impl Group for FileGroup {
    type Op = Op;

    fn draw(&mut self, rng: &mut Rng) -> Op {
        let p = rng.pick(&PATHS);
        let q = rng.pick(&PATHS);
        let any = if rng.once_in(4) { "" } else { p };
        match rng.below(32) {
            0 | 1 => Op::Read(any),
            2 | 3 => Op::Stat(any),
            4 => Op::List(any),
            5..=8 => Op::Mkdir(any),
            9..=12 => Op::Write(p, u8::try_from(rng.below(200)).unwrap()),
            13 => Op::SyncFile(p),
            14 => Op::SyncDir(any),
            15..=18 => Op::Rename(p, q),
            19 | 20 => Op::Unlink(p),
            21 => Op::Rmdir(p),
            22 => Op::SparseDisk(p, 1 + rng.below(2) as u64),
            23 | 24 => Op::CopiedDisk(p, q),
            25 | 26 => Op::GrownDisk(p, 1 + rng.below(3) as u64),
            30 | 31 => Op::Exchange(p, q),
            27 | 28 => Op::ClonedDisk(p, q),
            _ => Op::DiskSpace(any),
        }
    }

    fn sim(&mut self, op: &Op) -> Answer {
        let template = match op {
            Op::CopiedDisk(_, from) | Op::ClonedDisk(_, from) => {
                self.simulated(&self.root.join(from))
            }
            _ => None,
        };
        let grown = match op {
            Op::GrownDisk(p, _) => self.simulated(&self.root.join(p)),
            _ => None,
        };
        let answer = apply(&self.pair.sim[0], &self.root, op)?;
        let path = |p: &&str| self.root.join(p);
        let (made, bytes) = match op {
            Op::Read(p) => {
                let content = self.simulated(&path(p));
                return Ok(format!("{:?}", content.map(|b| print(&b))));
            }
            Op::SparseDisk(p, mib) => (path(p), vec![0; usize::try_from(mib << 20).unwrap()]),
            Op::CopiedDisk(p, _) | Op::ClonedDisk(p, _) => (path(p), template.unwrap()),
            Op::GrownDisk(p, mib) => {
                let mut bytes = grown.unwrap_or_default();
                let len = usize::try_from(mib << 20).unwrap();
                bytes.resize(bytes.len().max(len), 0);
                (path(p), bytes)
            }
            _ => return Ok(answer),
        };
        let world = self.pair.sim[0].world();
        let serial = world
            .borrow()
            .fs
            .content(&made)
            .and_then(|c| c.as_disk().map(|d| d.serial));
        self.disks.extend(serial.map(|serial| (serial, bytes)));
        Ok(answer)
    }

    fn real(&mut self, op: &Op, _: &Answer) -> Answer {
        apply(&self.pair.real[0], &self.root, op)
    }

    fn seen_sim(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        let read = |path: &Path| self.simulated(path);
        tree(&self.pair.sim[0], &self.root, &read, &mut seen);
        seen
    }

    fn seen_real(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        let read = |path: &Path| self.pair.real[0].read(path).unwrap();
        tree(&self.pair.real[0], &self.root, &read, &mut seen);
        seen
    }
}
