//! A file system that forgets what was not synced.
//!
//! Every directory keeps its durable entries and, in order, the changes made since its last
//! `fsync`; every file keeps its live and its durable content. A host reboot keeps of each directory
//! a *prefix* of those changes (journals are ordered), and of each file not synced nothing, half or
//! all. Directories are independent of each other; a rename between two is one transaction.

use super::content::{Content, Disk};
use crate::{ErrorKind, FileKind, FileSeen};
use std::{collections::BTreeMap, path::Path, rc::Rc};

/// Number of an inode, never used twice.
pub type Ino = u32;

/// Why an effect was refused: the kind the kernel would answer with, and in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub ErrorKind, pub &'static str);

/// Answer of the simulated kernel.
pub type Answer<T> = Result<T, Refusal>;

fn refuse<T>(kind: ErrorKind, why: &'static str) -> Answer<T> {
    Err(Refusal(kind, why))
}

/// A change of a directory that is not durable yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Change {
    Link(Rc<str>, Ino),
    Unlink(Rc<str>),
    /// Within one directory, atomic.
    Rename(Rc<str>, Rc<str>, Ino),
    /// Within one directory, atomic: what each name stands for afterwards.
    Exchange((Rc<str>, Ino), (Rc<str>, Ino)),
}

/// A change and the transaction it is part of (renames between directories have two).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pending {
    change: Change,
    transaction: Option<u32>,
}

type Entries = BTreeMap<Rc<str>, Ino>;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Inode {
    Dir {
        live: Entries,
        durable: Entries,
        pending: Vec<Pending>,
    },
    File {
        live: Content,
        /// What a reboot leaves at least; `None` where it was never synced.
        durable: Option<Content>,
    },
    Socket,
}

impl Inode {
    fn new_dir() -> Self {
        Inode::Dir {
            live: Entries::new(),
            durable: Entries::new(),
            pending: Vec::new(),
        }
    }
}

fn apply(entries: &mut Entries, change: &Change) {
    match change {
        Change::Link(name, ino) => {
            entries.insert(name.clone(), *ino);
        }
        Change::Unlink(name) => {
            entries.remove(name);
        }
        Change::Rename(from, to, ino) => {
            entries.remove(from);
            entries.insert(to.clone(), *ino);
        }
        Change::Exchange(one, other) => {
            entries.extend([one.clone(), other.clone()]);
        }
    }
}

/// How much of what was not synced outlives a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survival {
    /// Changes kept per directory (a prefix); all where the directory is not named.
    dirs: BTreeMap<Ino, usize>,
    /// What is left of each file that was not synced; all where it is not named.
    files: BTreeMap<Ino, Left>,
}

/// What a reboot leaves of a file's unsynced content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The last synced content, or nothing.
    Durable,
    /// The first half of the new content.
    Half,
}

/// The tree. Cloning is cheap: inodes are shared until changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fs {
    inodes: Rc<BTreeMap<Ino, Rc<Inode>>>,
    next: Ino,
    next_transaction: u32,
}

impl Default for Fs {
    fn default() -> Self {
        Fs {
            inodes: Rc::new(BTreeMap::from([(ROOT, Rc::new(Inode::new_dir()))])),
            next: ROOT + 1,
            next_transaction: 0,
        }
    }
}

const ROOT: Ino = 1;

fn split(path: &Path) -> Answer<(&str, &str)> {
    let text = path.to_str().unwrap_or("");
    match text.rsplit_once('/') {
        Some((dir, name)) if !name.is_empty() => Ok((dir, name)),
        _ => refuse(ErrorKind::Other, "not an absolute path"),
    }
}

/// What a power loss leaves of content that was on its way to the disk. A length is changed at once or not at all.
fn half_written(live: &Content, durable: Option<&Content>) -> Content {
    match (live.as_disk(), durable) {
        (Some(disk), Some(durable)) if durable.as_disk().is_some_and(|d| d.grew_to(disk)) => {
            durable.clone()
        }
        _ => live.half(),
    }
}

impl Fs {
    fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino).map(|i| &**i)
    }

    fn inode_mut(&mut self, ino: Ino) -> Answer<&mut Inode> {
        match Rc::make_mut(&mut self.inodes).get_mut(&ino) {
            Some(inode) => Ok(Rc::make_mut(inode)),
            None => refuse(ErrorKind::NotFound, "no such inode"),
        }
    }

    fn add(&mut self, inode: Inode) -> Ino {
        let ino = self.next;
        self.next += 1;
        Rc::make_mut(&mut self.inodes).insert(ino, Rc::new(inode));
        ino
    }

    /// The inode at a path.
    pub fn lookup(&self, path: &Path) -> Option<Ino> {
        self.walk(path.to_str()?)
    }

    fn walk(&self, text: &str) -> Option<Ino> {
        let mut at = ROOT;
        for part in text.split('/').filter(|p| !p.is_empty()) {
            match self.inode(at)? {
                Inode::Dir { live, .. } => at = *live.get(part)?,
                _ => return None,
            }
        }
        Some(at)
    }

    /// The inode at a path, `None` if there is none. What is not a directory and is used as one is
    /// ENOTDIR, never "not there" (path_resolution(7)).
    pub(super) fn resolve(&self, path: &Path) -> Answer<Option<Ino>> {
        let mut at = ROOT;
        let text = path.to_str().unwrap_or("");
        for part in text.split('/').filter(|p| !p.is_empty()) {
            match self.inode(at) {
                Some(Inode::Dir { live, .. }) => match live.get(part) {
                    Some(ino) => at = *ino,
                    None => return Ok(None),
                },
                _ => return refuse(ErrorKind::Other, "not a directory"),
            }
        }
        Ok(Some(at))
    }

    fn parent<'p>(&self, path: &'p Path) -> Answer<(Ino, &'p str)> {
        let (dir, name) = split(path)?;
        match self.resolve(Path::new(dir))? {
            Some(ino) => match self.inode(ino) {
                Some(Inode::Dir { .. }) => Ok((ino, name)),
                _ => refuse(ErrorKind::Other, "not a directory"),
            },
            None => refuse(ErrorKind::NotFound, "no such directory"),
        }
    }

    fn change(&mut self, dir: Ino, change: Change, transaction: Option<u32>) -> Answer<()> {
        match self.inode_mut(dir)? {
            Inode::Dir { live, pending, .. } => {
                apply(live, &change);
                pending.push(Pending {
                    change,
                    transaction,
                });
                Ok(())
            }
            _ => refuse(ErrorKind::Other, "not a directory"),
        }
    }

    /// Whole content as `open` and `read` give it: a directory is EISDIR, a socket ENXIO.
    pub(super) fn read(&self, path: &Path) -> Answer<Option<&Content>> {
        match self.resolve(path)?.and_then(|ino| self.inode(ino)) {
            None => Ok(None),
            Some(Inode::File { live, .. }) => Ok(Some(live)),
            Some(Inode::Dir { .. }) => refuse(ErrorKind::Other, "is a directory"),
            Some(Inode::Socket) => refuse(ErrorKind::NoDevice, "is a socket"),
        }
    }

    /// What is at a path.
    pub fn stat(&self, path: &Path) -> Option<FileSeen> {
        Some(match self.inode(self.lookup(path)?)? {
            Inode::Dir { .. } => FileSeen {
                kind: FileKind::Dir,
                len: 0,
            },
            Inode::Socket => FileSeen {
                kind: FileKind::Socket,
                len: 0,
            },
            Inode::File { live, .. } => FileSeen {
                kind: FileKind::File,
                len: live.len(),
            },
        })
    }

    /// Content of a file, `None` if there is none.
    pub fn content(&self, path: &Path) -> Option<&Content> {
        match self.inode(self.lookup(path)?)? {
            Inode::File { live, .. } => Some(live),
            _ => None,
        }
    }

    /// Names in a directory, sorted; `None` if it is none.
    pub fn list(&self, dir: &Path) -> Option<Vec<String>> {
        match self.inode(self.lookup(dir)?)? {
            Inode::Dir { live, .. } => Some(live.keys().map(|n| n.to_string()).collect()),
            _ => None,
        }
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, path: &Path) -> Answer<()> {
        let (dir, name) = self.parent(path)?;
        if self.lookup(path).is_some() {
            return refuse(ErrorKind::Exists, "file exists");
        }
        let ino = self.add(Inode::new_dir());
        self.change(dir, Change::Link(name.into(), ino), None)
    }

    /// Creates or truncates a file and gives it content.
    pub fn write(&mut self, path: &Path, content: Content) -> Answer<Ino> {
        let (dir, name) = self.parent(path)?;
        if let Some(ino) = self.lookup(path) {
            return match self.inode_mut(ino)? {
                Inode::File { live, .. } => {
                    *live = content;
                    Ok(ino)
                }
                // open(2) of a socket is ENXIO.
                Inode::Socket => refuse(ErrorKind::NoDevice, "is a socket"),
                Inode::Dir { .. } => refuse(ErrorKind::Other, "is a directory"),
            };
        }
        let ino = self.add(Inode::File {
            live: content,
            durable: None,
        });
        self.change(dir, Change::Link(name.into(), ino), None)?;
        Ok(ino)
    }

    /// Opens for appending: made empty if it is not there.
    pub fn open_append(&mut self, path: &Path) -> Answer<Ino> {
        match self.read(path)? {
            Some(_) => self
                .lookup(path)
                .ok_or(Refusal(ErrorKind::NotFound, "no such file")),
            None => self.write(path, Content::empty()),
        }
    }

    /// Binds a socket; a file of that name is in the way.
    pub fn bind(&mut self, path: &Path) -> Answer<Ino> {
        let (dir, name) = self.parent(path)?;
        if self.lookup(path).is_some() {
            return refuse(ErrorKind::Exists, "address already in use");
        }
        let ino = self.add(Inode::Socket);
        self.change(dir, Change::Link(name.into(), ino), None)?;
        Ok(ino)
    }

    /// Removes the name of a file or socket.
    pub fn unlink(&mut self, path: &Path) -> Answer<()> {
        let (dir, name) = self.parent(path)?;
        match self.lookup(path).and_then(|i| self.inode(i)) {
            None => refuse(ErrorKind::NotFound, "no such file"),
            Some(Inode::Dir { .. }) => refuse(ErrorKind::Other, "is a directory"),
            Some(_) => self.change(dir, Change::Unlink(name.into()), None),
        }
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, path: &Path) -> Answer<()> {
        let (dir, name) = self.parent(path)?;
        match self.lookup(path).and_then(|i| self.inode(i)) {
            None => refuse(ErrorKind::NotFound, "no such directory"),
            Some(Inode::Dir { live, .. }) if live.is_empty() => {
                self.change(dir, Change::Unlink(name.into()), None)
            }
            Some(Inode::Dir { .. }) => refuse(ErrorKind::Exists, "directory not empty"),
            Some(_) => refuse(ErrorKind::Other, "not a directory"),
        }
    }

    /// Renames; replaces an existing file, refuses an existing directory that is not empty.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Answer<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let Some(ino) = self.lookup(from) else {
            return refuse(ErrorKind::NotFound, "no such file");
        };
        let is_dir = matches!(self.inode(ino), Some(Inode::Dir { .. }));
        // rename(2): EINVAL into what is below itself, ENOTEMPTY over what it is in, asked first.
        if from != to && to.starts_with(from) {
            return refuse(ErrorKind::Other, "a directory does not go below itself");
        }
        if from != to && from.starts_with(to) {
            return refuse(ErrorKind::Exists, "directory not empty");
        }
        match self.lookup(to).and_then(|i| self.inode(i)) {
            None => {}
            Some(Inode::Dir { live, .. }) if is_dir && live.is_empty() => {}
            Some(Inode::Dir { .. }) if is_dir && from == to => {}
            Some(Inode::Dir { .. }) if is_dir => {
                return refuse(ErrorKind::Exists, "directory not empty");
            }
            // EISDIR, whether the directory is empty or not.
            Some(Inode::Dir { .. }) => return refuse(ErrorKind::Other, "is a directory"),
            Some(_) if is_dir => return refuse(ErrorKind::Other, "not a directory"),
            Some(_) => {}
        }
        let (from_name, to_name): (Rc<str>, Rc<str>) = (from_name.into(), to_name.into());
        if from_dir == to_dir {
            return self.change(from_dir, Change::Rename(from_name, to_name, ino), None);
        }
        let transaction = Some(self.next_transaction);
        self.next_transaction += 1;
        self.change(to_dir, Change::Link(to_name, ino), transaction)?;
        self.change(from_dir, Change::Unlink(from_name), transaction)
    }

    /// Exchanges what two names of one directory stand for.
    pub fn exchange(&mut self, one: &Path, other: &Path) -> Answer<()> {
        if one.parent() != other.parent() {
            return refuse(ErrorKind::Other, "names of two directories");
        }
        let (dir, one_name) = self.parent(one)?;
        let (_, other_name) = self.parent(other)?;
        let (Some(one), Some(other)) = (self.lookup(one), self.lookup(other)) else {
            return refuse(ErrorKind::NotFound, "no such file");
        };
        let changed = ((one_name.into(), other), (other_name.into(), one));
        self.change(dir, Change::Exchange(changed.0, changed.1), None)
    }

    /// fsync of a file.
    pub fn sync_file(&mut self, path: &Path) -> Answer<()> {
        match self.resolve(path)? {
            None => refuse(ErrorKind::NotFound, "no such file"),
            Some(ino) => match self.inode_mut(ino)? {
                Inode::File { live, durable } => {
                    *durable = Some(live.clone());
                    Ok(())
                }
                // fsync(2) takes any descriptor that open(2) gives.
                Inode::Dir { .. } => self.flush(ino, usize::MAX),
                Inode::Socket => refuse(ErrorKind::NoDevice, "is a socket"),
            },
        }
    }

    /// fsync of a directory, with the other half of every rename it took part in.
    pub fn sync_dir(&mut self, path: &Path) -> Answer<()> {
        let Some(ino) = self.resolve(path)? else {
            return refuse(ErrorKind::NotFound, "no such directory");
        };
        self.flush(ino, usize::MAX)
    }

    fn flush(&mut self, dir: Ino, upto: usize) -> Answer<()> {
        let Inode::Dir {
            durable, pending, ..
        } = self.inode_mut(dir)?
        else {
            return refuse(ErrorKind::Other, "not a directory");
        };
        let flushed: Vec<_> = pending.drain(..upto.min(pending.len())).collect();
        flushed.iter().for_each(|p| apply(durable, &p.change));
        for transaction in flushed.iter().filter_map(|p| p.transaction) {
            let partner = self.inodes.iter().find_map(|(ino, inode)| match &**inode {
                Inode::Dir { pending, .. } => pending
                    .iter()
                    .position(|p| p.transaction == Some(transaction))
                    .map(|at| (*ino, at + 1)),
                _ => None,
            });
            if let Some((ino, upto)) = partner {
                self.flush(ino, upto)?;
            }
        }
        Ok(())
    }

    /// Every file below a path with its content, for the oracle.
    pub fn files_below(&self, dir: &Path) -> Vec<(String, &Content)> {
        let mut found = Vec::new();
        if let Some(ino) = self.lookup(dir) {
            self.collect(ino, &dir.display().to_string(), &mut found);
        }
        found
    }

    fn collect<'a>(&'a self, ino: Ino, path: &str, found: &mut Vec<(String, &'a Content)>) {
        match self.inode(ino) {
            Some(Inode::Dir { live, .. }) => {
                for (name, child) in live {
                    self.collect(*child, &format!("{path}/{name}"), found);
                }
            }
            Some(Inode::File { live, .. }) => found.push((path.to_owned(), live)),
            _ => {}
        }
    }

    /// Whether an inode still has a name.
    pub fn is_linked(&self, ino: Ino) -> bool {
        ino == ROOT
            || self.inodes.values().any(|inode| match &**inode {
                Inode::Dir { live, .. } => live.values().any(|i| *i == ino),
                _ => false,
            })
    }

    /// Makes a file longer, if it is not that long; not durable.
    pub fn grow(&mut self, path: &Path, len: u64) -> Answer<()> {
        let Some(ino) = self.resolve(path)? else {
            return refuse(ErrorKind::NotFound, "no such file");
        };
        match self.inode_mut(ino)? {
            Inode::File { live, .. } => {
                live.grow(len);
                Ok(())
            }
            // open(2) of a socket is ENXIO.
            Inode::Socket => refuse(ErrorKind::NoDevice, "is a socket"),
            Inode::Dir { .. } => refuse(ErrorKind::Other, "is a directory"),
        }
    }

    /// A guest writes to its disk and syncs: durable, where the file itself is.
    pub fn scribble(&mut self, ino: Ino) {
        if let Ok(Inode::File { live, durable }) = self.inode_mut(ino) {
            live.scribble();
            if let Some(durable) = durable {
                durable.scribble();
            }
        }
    }

    /// Whether a guest has written to the disk in a file.
    pub fn is_scribbled(&self, ino: Ino) -> bool {
        self.disk(ino).is_some_and(|disk| disk.writes > 0)
    }

    /// The disk in a file, by inode.
    pub fn disk(&self, ino: Ino) -> Option<&Disk> {
        match self.inode(ino)? {
            Inode::File { live, .. } => live.as_disk(),
            _ => None,
        }
    }

    /// Changes that no reboot may lose any more are all there are.
    pub fn all_durable(&self) -> bool {
        self.inodes.values().all(|inode| match &**inode {
            Inode::Dir { pending, .. } => pending.is_empty(),
            Inode::File { live, durable } => durable.as_ref() == Some(live),
            Inode::Socket => true,
        })
    }

    /// The ways a reboot may leave this file system: everything kept, nothing kept, and each single
    /// directory or file on its own lost, cut short or kept. At most `limit` of them.
    pub fn survivals(&self, limit: usize) -> Vec<Survival> {
        let mut none = Survival::default();
        let mut single = Vec::new();
        for (ino, inode) in &*self.inodes {
            match &**inode {
                Inode::Dir { pending, .. } if !pending.is_empty() => {
                    none.dirs.insert(*ino, 0);
                    single.extend((0..pending.len()).map(|kept| Survival {
                        dirs: BTreeMap::from([(*ino, kept)]),
                        files: BTreeMap::new(),
                    }));
                }
                Inode::File { live, durable } if durable.as_ref() != Some(live) => {
                    none.files.insert(*ino, Left::Durable);
                    single.extend([Left::Durable, Left::Half].map(|left| Survival {
                        dirs: BTreeMap::new(),
                        files: BTreeMap::from([(*ino, left)]),
                    }));
                }
                _ => {}
            }
        }
        if none == Survival::default() {
            return vec![none];
        }
        let mut all = vec![none.clone(), Survival::default()];
        // The opposite of each single loss: only this one kept.
        for dir in none.dirs.keys() {
            let mut only = none.clone();
            only.dirs.remove(dir);
            all.push(only);
        }
        for file in none.files.keys() {
            let mut only = none.clone();
            only.files.remove(file);
            all.push(only);
        }
        all.extend(single);
        let mut distinct: Vec<Survival> = Vec::new();
        for survival in all {
            if distinct.len() < limit && !distinct.contains(&survival) {
                distinct.push(survival);
            }
        }
        distinct
    }

    /// Reboots: applies what survived, forgets the rest, and everything below `volatile`.
    pub fn reboot(&mut self, survival: &Survival, volatile: &[Rc<str>]) {
        let dirs: Vec<(Ino, usize)> = survival.dirs.iter().map(|(i, n)| (*i, *n)).collect();
        let inos: Vec<Ino> = self.inodes.keys().copied().collect();
        for ino in &inos {
            let kept = dirs.iter().find(|(i, _)| i == ino).map(|(_, n)| *n);
            if matches!(self.inode(*ino), Some(Inode::Dir { pending, .. }) if !pending.is_empty()) {
                let _ = self.flush(*ino, kept.unwrap_or(usize::MAX));
            }
        }
        for ino in inos {
            match self.inode_mut(ino) {
                Ok(Inode::Dir {
                    live,
                    durable,
                    pending,
                }) => {
                    pending.clear();
                    *live = durable.clone();
                }
                Ok(Inode::File { live, durable }) => {
                    let settled = match survival.files.get(&ino) {
                        None => live.clone(),
                        Some(Left::Half) => half_written(live, durable.as_ref()),
                        Some(Left::Durable) => durable.clone().unwrap_or_else(Content::empty),
                    };
                    *live = settled.clone();
                    *durable = Some(settled);
                }
                _ => {}
            }
        }
        for root in volatile {
            if let Some(ino) = self.walk(root)
                && let Ok(Inode::Dir { live, durable, .. }) = self.inode_mut(ino)
            {
                live.clear();
                durable.clear();
            }
        }
        self.drop_unreachable(&[]);
    }

    /// Frees inodes that have no name and are not held open.
    pub fn drop_unreachable(&mut self, held: &[Ino]) {
        let mut reachable = std::collections::BTreeSet::new();
        let mut todo: Vec<Ino> = vec![ROOT];
        todo.extend(held);
        while let Some(ino) = todo.pop() {
            if !reachable.insert(ino) {
                continue;
            }
            if let Some(Inode::Dir {
                live,
                durable,
                pending,
            }) = self.inode(ino)
            {
                todo.extend(live.values().chain(durable.values()));
                // What is exchanged was named before, and is so by what is durable or pending.
                todo.extend(pending.iter().filter_map(|p| match p.change {
                    Change::Link(_, ino) | Change::Rename(_, _, ino) => Some(ino),
                    Change::Unlink(_) | Change::Exchange(..) => None,
                }));
            }
        }
        if reachable.len() != self.inodes.len() {
            Rc::make_mut(&mut self.inodes).retain(|ino, _| reachable.contains(ino));
        }
    }
}
