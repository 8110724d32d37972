//! Disks put together to the tree that their guest sees.

use crate::overlay::{self, Below};
use banger_ext4::{FileSystem, FileType, Named, Node, ReadAt, ReadError};
use banger_wire::guest::disks::{ENGINE_PLACES, ENGINES, HOME, MODULES, UPPER, VOLATILE};
use std::{collections::BTreeMap, fmt, io};

pub use crate::overlay::Names;

/// Symbolic links followed in one path, as the kernel has it.
const MAX_LINKS: u32 = 40;
/// Bytes of a path with the NUL at its end, and of a name, as the kernel has them.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// Bytes of a directory: names of a million files, or so. Its names are held in memory.
const MAX_DIRECTORY: u64 = 32 << 20;
/// Bytes of directories read for one path, which may lead through a long one again and again.
const MAX_WALK: u64 = 1 << 30;

/// One of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disk {
    /// The image below an overlay.
    Base,
    /// The disk of changes.
    Changes,
    /// A root that is one file system.
    Root,
    /// The work disk.
    Work,
    /// The kernel's modules.
    Modules,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Disk::Base => "image",
            Disk::Changes => "disk of changes",
            Disk::Root => "root disk",
            Disk::Work => "work disk",
            Disk::Modules => "disk of modules",
        })
    }
}

/// What a guest's root is made of.
#[derive(Debug)]
pub enum RootDisks<R> {
    /// Changes over an image.
    Overlay {
        /// The image.
        base: R,
        /// The disk of changes.
        changes: R,
    },
    /// One file system.
    One(R),
}

/// The disks of a VM.
#[derive(Debug)]
pub struct Disks<R> {
    /// Of its root.
    pub root: RootDisks<R>,
    /// The work disk.
    pub work: Option<R>,
    /// The kernel's release, and the disk with its modules.
    pub modules: Option<(String, R)>,
}

/// A disk that cannot be read.
#[derive(Debug)]
pub struct Unopened {
    /// Which.
    pub disk: Disk,
    /// Why.
    pub why: ReadError,
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} cannot be read: {}", self.disk, self.why)
    }
}

impl std::error::Error for Unopened {}

/// A directory of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// What overlayfs makes of two, or has in one layer only.
    Merged {
        /// Inode in the upper layer.
        upper: Option<u32>,
        /// Inode in the lower one.
        lower: Option<u32>,
    },
    /// One of a file system that is mounted as it is.
    Plain {
        /// The disk.
        disk: Disk,
        /// Its inode.
        inode: u32,
    },
    /// What is on no disk is mounted there.
    Volatile,
}

/// Something in a view.
#[derive(Debug, Clone)]
pub struct Found {
    /// The disk that its attributes and bytes are on.
    pub disk: Disk,
    /// Its inode there.
    pub node: Node,
    /// What it holds, if it is a directory.
    pub dir: Option<Dir>,
}

/// The tree that a guest sees.
#[derive(Debug)]
pub struct View<R> {
    disks: BTreeMap<Disk, FileSystem<R>>,
    root: Dir,
    /// What is mounted over which directory.
    over: BTreeMap<Dir, Dir>,
}

/// Bytes of directories that may still be read for one path.
struct Walk(u64);

impl<R: ReadAt> View<R> {
    /// Puts the disks together. A disk of changes or of work that was never formatted is empty.
    ///
    /// # Errors
    /// A disk is damaged, or uses what is not read here.
    pub fn open(disks: Disks<R>) -> Result<Self, Unopened> {
        let mut opened = BTreeMap::new();
        let mut open = |disk, source| -> Result<(), Unopened> {
            let opened_disk = FileSystem::open(source).map_err(|why| Unopened { disk, why })?;
            opened.insert(disk, opened_disk);
            Ok(())
        };
        let mut changes = None;
        let is_overlay = match disks.root {
            RootDisks::Overlay {
                base,
                changes: source,
            } => {
                open(Disk::Base, base)?;
                changes = Some(source);
                true
            }
            RootDisks::One(source) => {
                open(Disk::Root, source)?;
                false
            }
        };
        for (disk, source) in [(Disk::Changes, changes), (Disk::Work, disks.work)] {
            let Some(source) = source else { continue };
            let told = formatted(&source).map_err(|why| Unopened {
                disk,
                why: why.into(),
            })?;
            if told {
                open(disk, source)?;
            }
        }
        let mut release = None;
        if let Some((name, source)) = disks.modules {
            open(Disk::Modules, source)?;
            release = Some(name);
        }
        let mut view = View {
            disks: opened,
            root: Dir::Plain {
                disk: Disk::Root,
                inode: FileSystem::<R>::ROOT,
            },
            over: BTreeMap::new(),
        };
        if is_overlay {
            let upper = view.directory(Disk::Changes, UPPER);
            view.root = Dir::Merged {
                upper: upper.map_err(of(Disk::Changes))?,
                lower: Some(FileSystem::<R>::ROOT),
            };
        }
        view.mount(release.as_deref())?;
        Ok(view)
    }

    /// What the agent mounts, in its order (`agent/src/boot/root.rs`).
    fn mount(&mut self, release: Option<&str>) -> Result<(), Unopened> {
        let home = self.directory(Disk::Work, HOME);
        if let Some(inode) = home.map_err(of(Disk::Work))? {
            let disk = Disk::Work;
            self.put("/root", Dir::Plain { disk, inode })?;
        }
        for place in VOLATILE {
            self.put(place, Dir::Volatile)?;
        }
        if let Some(release) = release {
            let place = format!("{MODULES}/{release}");
            let disk = Disk::Modules;
            let inode = FileSystem::<R>::ROOT;
            // Not where the image has modules of this very kernel.
            if let Some(own) = self.place(&place)?
                && self.is_empty(&own).map_err(of(self.root_disk()))?
            {
                self.over.insert(own, Dir::Plain { disk, inode });
            }
        }
        for place in ENGINE_PLACES {
            let name = place.rsplit('/').next().unwrap_or(place);
            let path = format!("{ENGINES}/{name}");
            let there = self.directory(Disk::Changes, &path);
            if let Some(inode) = there.map_err(of(Disk::Changes))? {
                let disk = Disk::Changes;
                self.put(place, Dir::Plain { disk, inode })?;
            }
        }
        Ok(())
    }

    /// Mounts over a path, if there is a directory.
    fn put(&mut self, path: &str, what: Dir) -> Result<(), Unopened> {
        if let Some(place) = self.place(path)? {
            self.over.insert(place, what);
        }
        Ok(())
    }

    /// The directory that a path of ours leads to.
    fn place(&self, path: &str) -> Result<Option<Dir>, Unopened> {
        let found = absent(self.resolve(path.as_bytes(), true));
        let found = found.map_err(of(self.root_disk()))?;
        Ok(found.and_then(|found| found.dir))
    }

    fn root_disk(&self) -> Disk {
        match self.root {
            Dir::Plain { disk, .. } => disk,
            _ => Disk::Changes,
        }
    }

    /// The inode of a directory of a disk that may not be there, by its path on the disk. A link in place of it is none; one
    /// on the way to it stays on that disk.
    fn directory(&self, disk: Disk, path: &str) -> Result<Option<u32>, ReadError> {
        let Some(fs) = self.disks.get(&disk) else {
            return Ok(None);
        };
        let node = absent(fs.resolve(path.as_bytes(), false))?;
        let node = node.filter(|node| node.file_type == FileType::Directory);
        Ok(node.map(|node| node.number))
    }

    /// The file system that something was found in.
    ///
    /// # Errors
    /// It is no disk of this VM.
    pub fn disk(&self, disk: Disk) -> Result<&FileSystem<R>, ReadError> {
        let missing = ReadError::Damaged("an inode is of a disk that is not there");
        self.disks.get(&disk).ok_or(missing)
    }

    /// What a path names, from the guest's root on; links on the way are followed in the guest's tree, and the last one if
    /// `follow`, or if a slash or a dot comes after it.
    ///
    /// # Errors
    /// As the kernel's for a path that leads nowhere; or what is on the way is damaged.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Found, ReadError> {
        let mut ahead = parts(path)?;
        let mut way = vec![self.attributes(self.root)?];
        let mut walk = Walk(MAX_WALK);
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let here = way.last().ok_or(ReadError::NotFound)?;
            let dir = here.dir.ok_or(ReadError::NotADirectory)?;
            match &*part {
                b"." => continue,
                b".." => {
                    way.truncate(way.len().max(2) - 1);
                    continue;
                }
                _ => {}
            }
            let found = self.look_up(&dir, &part, &mut walk)?;
            let found = found.ok_or(ReadError::NotFound)?;
            if found.node.file_type != FileType::Symlink || (ahead.is_empty() && !follow) {
                way.push(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(ReadError::TooManyLinks);
            }
            let target = self.disk(found.disk)?.target(&found.node)?;
            if target.is_empty() {
                return Err(ReadError::NotFound);
            }
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            ahead.extend(parts(&target)?);
        }
        way.pop().ok_or(ReadError::NotFound)
    }

    /// What a directory holds, by name; some of it may be gone nevertheless, as [`View::child`] says.
    ///
    /// # Errors
    /// It is damaged, or longer than is read.
    pub fn list(&self, dir: &Dir) -> Result<Vec<Names>, ReadError> {
        self.names(dir, &mut Walk(u64::MAX))
    }

    /// What a name of a directory is; `None` if it is gone.
    ///
    /// # Errors
    /// It is damaged.
    pub fn child(&self, dir: &Dir, names: &Names) -> Result<Option<Found>, ReadError> {
        self.found(dir, names, &mut Walk(MAX_WALK))
    }

    /// Whether a directory shows nothing: what was removed from an image has a name, and is nothing.
    fn is_empty(&self, dir: &Dir) -> Result<bool, ReadError> {
        for names in self.list(dir)? {
            if self.child(dir, &names)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn names(&self, dir: &Dir, walk: &mut Walk) -> Result<Vec<Names>, ReadError> {
        let of = |disk, inode: Option<u32>, walk: &mut Walk| match inode {
            Some(inode) => self.entries(disk, inode, walk),
            None => Ok(Vec::new()),
        };
        let (upper, lower) = match *dir {
            Dir::Merged { upper, lower } => (
                of(Disk::Changes, upper, walk)?,
                of(Disk::Base, lower, walk)?,
            ),
            Dir::Plain { disk, inode } => (Vec::new(), of(disk, Some(inode), walk)?),
            Dir::Volatile => (Vec::new(), Vec::new()),
        };
        Ok(overlay::join(upper, lower))
    }

    fn look_up(&self, dir: &Dir, name: &[u8], walk: &mut Walk) -> Result<Option<Found>, ReadError> {
        if name.len() > MAX_NAME {
            return Err(ReadError::NameTooLong);
        }
        let of = |disk, inode: Option<u32>, walk: &mut Walk| match inode {
            Some(inode) => self.number(disk, inode, name, walk),
            None => Ok(None),
        };
        let (upper, lower) = match *dir {
            Dir::Merged { upper, lower } => (
                of(Disk::Changes, upper, walk)?,
                of(Disk::Base, lower, walk)?,
            ),
            Dir::Plain { disk, inode } => (None, of(disk, Some(inode), walk)?),
            Dir::Volatile => (None, None),
        };
        let names = Names {
            name: name.into(),
            upper,
            lower,
        };
        self.found(dir, &names, walk)
    }

    fn found(&self, dir: &Dir, names: &Names, walk: &mut Walk) -> Result<Option<Found>, ReadError> {
        let found = match *dir {
            Dir::Merged { lower, .. } => self.merged(lower, names, walk)?,
            Dir::Plain { disk, .. } => match names.lower {
                Some(inode) => {
                    let node = self.disk(disk)?.node(inode)?;
                    let is_dir = node.file_type == FileType::Directory;
                    let dir = is_dir.then_some(Dir::Plain { disk, inode });
                    Some(Found { disk, node, dir })
                }
                None => None,
            },
            Dir::Volatile => None,
        };
        match found {
            Some(found) => self.mounted(found).map(Some),
            None => Ok(None),
        }
    }

    /// What overlayfs makes of a name in a directory with this lower half.
    fn merged(
        &self,
        parent: Option<u32>,
        names: &Names,
        walk: &mut Walk,
    ) -> Result<Option<Found>, ReadError> {
        let Some(number) = names.upper else {
            return self.lower(names.lower);
        };
        let fs = self.disk(Disk::Changes)?;
        let node = fs.node(number)?;
        if overlay::is_whiteout(&node) {
            return Ok(None);
        }
        let xattrs = match node.file_type {
            FileType::Directory | FileType::File => fs.xattrs(&node)?,
            _ => Vec::new(),
        };
        overlay::whole(&xattrs)?;
        let mut dir = None;
        if node.file_type == FileType::Directory {
            let below = match overlay::below(&xattrs)? {
                Below::Nothing => None,
                Below::SameName => names.lower,
                Below::Sibling(name) => match parent {
                    Some(parent) => self.number(Disk::Base, parent, &name, walk)?,
                    None => None,
                },
                Below::At(path) => self.in_base(&path, walk)?,
            };
            // What is no directory there, or gone, is hidden by this one.
            let below = self.lower(below)?;
            let lower = below.filter(|b| b.dir.is_some()).map(|b| b.node.number);
            let upper = Some(number);
            dir = Some(Dir::Merged { upper, lower });
        }
        let disk = Disk::Changes;
        Ok(Some(Found { disk, node, dir }))
    }

    /// What the lower layer alone has.
    fn lower(&self, inode: Option<u32>) -> Result<Option<Found>, ReadError> {
        let Some(inode) = inode else { return Ok(None) };
        let disk = Disk::Base;
        let fs = self.disk(disk)?;
        let node = fs.node(inode)?;
        if overlay::is_whiteout(&node) {
            return Ok(None);
        }
        if node.file_type == FileType::File {
            overlay::whole(&fs.xattrs(&node)?)?;
        }
        let is_dir = node.file_type == FileType::Directory;
        let (upper, lower) = (None, Some(inode));
        let dir = is_dir.then_some(Dir::Merged { upper, lower });
        Ok(Some(Found { disk, node, dir }))
    }

    /// The inode at a path of the lower layer; no link is followed.
    fn in_base(&self, path: &[Vec<u8>], walk: &mut Walk) -> Result<Option<u32>, ReadError> {
        let mut here = FileSystem::<R>::ROOT;
        for name in path {
            let inside = self.lower(Some(here))?.and_then(|found| found.dir);
            let next = match inside {
                Some(_) => self.number(Disk::Base, here, name, walk)?,
                None => None,
            };
            let Some(next) = next else { return Ok(None) };
            here = next;
        }
        Ok(Some(here))
    }

    /// What is seen of a directory that something is mounted over. Of what is on no disk the place below is shown, empty.
    fn mounted(&self, found: Found) -> Result<Found, ReadError> {
        let over = found.dir.as_ref().and_then(|dir| self.over.get(dir));
        match over {
            None => Ok(found),
            Some(Dir::Volatile) => Ok(Found {
                dir: Some(Dir::Volatile),
                ..found
            }),
            Some(dir) => self.attributes(*dir),
        }
    }

    /// A directory as something found.
    fn attributes(&self, dir: Dir) -> Result<Found, ReadError> {
        let (disk, inode) = match dir {
            Dir::Merged {
                upper: Some(inode), ..
            } => (Disk::Changes, inode),
            Dir::Merged {
                lower: Some(inode), ..
            } => (Disk::Base, inode),
            Dir::Plain { disk, inode } => (disk, inode),
            Dir::Merged { .. } | Dir::Volatile => return Err(ReadError::NotFound),
        };
        let node = self.disk(disk)?.node(inode)?;
        let dir = Some(dir);
        Ok(Found { disk, node, dir })
    }

    /// The inode of a name in a directory of a disk.
    fn number(
        &self,
        disk: Disk,
        directory: u32,
        name: &[u8],
        walk: &mut Walk,
    ) -> Result<Option<u32>, ReadError> {
        let entries = self.entries(disk, directory, walk)?;
        let found = entries.into_iter().find(|entry| *entry.name == *name);
        Ok(found.map(|entry| entry.inode))
    }

    fn entries(&self, disk: Disk, inode: u32, walk: &mut Walk) -> Result<Vec<Named>, ReadError> {
        let fs = self.disk(disk)?;
        let node = fs.node(inode)?;
        if node.size > MAX_DIRECTORY {
            return Err(ReadError::Unsupported("a directory of more than 32 MiB"));
        }
        let left = walk.0.checked_sub(node.size);
        let too_far = ReadError::Unsupported("a path through so many long directories");
        walk.0 = left.ok_or(too_far)?;
        fs.entries(&node)
    }
}

/// What is not there, or not to be reached, as nothing.
fn absent<T>(found: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ReadError::NotFound | ReadError::NotADirectory | ReadError::TooManyLinks) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of(disk: Disk) -> impl FnOnce(ReadError) -> Unopened {
    move |why| Unopened { disk, why }
}

/// A path's parts, the last first. A slash at the end is a dot after it: what comes before must be a directory.
fn parts(path: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
    if path.len() >= MAX_PATH {
        return Err(ReadError::NameTooLong);
    }
    let dot: &[&[u8]] = if path.ends_with(b"/") { &[b"."] } else { &[] };
    let parts = path.split(|&byte| byte == b'/').rev();
    let parts = parts.filter(|part| !part.is_empty());
    Ok(dot
        .iter()
        .copied()
        .chain(parts)
        .map(<[u8]>::to_vec)
        .collect())
}

/// Whether there is anything where a superblock would be.
fn formatted<R: ReadAt>(source: &R) -> io::Result<bool> {
    let mut superblock = [0; 1024];
    match source.read_exact_at(&mut superblock, 1024) {
        Ok(()) => Ok(superblock.iter().any(|byte| *byte != 0)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
