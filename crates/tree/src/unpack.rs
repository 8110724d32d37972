//! From a stream to a tree.
//!
//! The stream is not trusted. Every name is taken apart, and every directory on its way is opened below the
//! destination by the kernel ([`Reach`]); the last part of a name is only ever made or replaced in such a directory,
//! never opened if it was there. A file has a temporary name until it is complete, so nothing is ever half there
//! under its own.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::destination::{Place, is_plain};
use crate::emit::MOST_WARNINGS;
use crate::tar::{Entry, Extent, Kind, Reader};
use crate::{Destination, Error, Shown};

/// How often the kernel is asked again when somebody renames directories meanwhile.
const AGAIN: u32 = 32;

/// Who gets what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever unpacks.
    Us,
    /// The numbers in the stream.
    AsInStream,
}

/// Which symbolic links that are there already may be passed on the way to an entry's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None.
    NoLinks,
    /// Those that stay below the destination.
    Below,
}

/// How to unpack.
#[derive(Debug)]
pub struct Unpack {
    /// Where.
    pub destination: Destination,
    /// The stream is somebody's archive, to be unpacked in the destination, and not what [`crate::pack`] wrote of one
    /// source.
    pub archive: bool,
    /// Who gets what is made.
    pub owner: Owner,
    /// Which links may be passed.
    pub reach: Reach,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries that were made.
    pub entries: u64,
}

/// Unpacks a stream to its end. Devices, fifos and what is unknown is left out with a warning.
///
/// # Errors
/// The stream is broken, an entry would leave the destination, or cannot be made: the first of these, with its name.
pub fn unpack<R: BufRead>(
    input: R,
    how: &Unpack,
    warn: &mut dyn FnMut(String),
) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(input);
    let mut count = 0;
    if how.archive {
        let mut tree = Tree::new(how, how.destination.existing()?);
        while let Some(entry) = reader.next_entry()? {
            count += u64::from(tree.entry(&mut reader, &entry, warn)?);
        }
        tree.finish()?;
    } else {
        let root = reader.next_entry()?;
        let root = root.ok_or_else(|| Error::stream("the tar stream is empty"))?;
        if !entry_parts(&root.path)?.is_empty() {
            return Err(Error::entry(
                "the tar stream does not begin with its root but with",
                &root.path,
            ));
        }
        let mut tree = root_of(&mut reader, &root, how)?;
        count += 1;
        while let Some(entry) = reader.next_entry()? {
            let Some(tree) = &mut tree else {
                return Err(Error::entry(
                    "the source is no directory but has",
                    &entry.path,
                ));
            };
            count += u64::from(tree.entry(&mut reader, &entry, warn)?);
        }
        if let Some(tree) = tree {
            tree.finish()?;
        }
    }
    reader.finish()?;
    Ok(Unpacked { entries: count })
}

/// Makes the source itself; its tree if it is a directory.
fn root_of<'a, R: BufRead>(
    reader: &mut Reader<R>,
    root: &Entry,
    how: &'a Unpack,
) -> Result<Option<Tree<'a>>, Error> {
    let (parent, name, shown) = match how.destination.place(&root.kind)? {
        Place::Into(_) if root.kind != Kind::Directory => {
            return Err(Error::stream("the source is no directory and has no name"));
        }
        // The directory is the user's; only what is copied gets the source's times and modes.
        Place::Into(directory) => return Ok(Some(Tree::new(how, directory))),
        Place::At {
            parent,
            name,
            shown,
        } => (parent, name, shown),
    };
    let root = Entry {
        path: shown.clone(),
        ..root.clone()
    };
    let place = Spot {
        parent: parent.as_fd(),
        name: &name,
        shown: &shown,
    };
    if root.kind != Kind::Directory {
        make(reader, &root, &place, how.owner)?;
        return Ok(None);
    }
    let made = place.directory()?;
    let flags = if made { OFlags::RDONLY } else { OFlags::PATH };
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = rustix::fs::openat(&parent, OsStr::from_bytes(&name), flags, Mode::empty());
    let base = base.map_err(|errno| place.failed("a directory cannot take the place of", errno))?;
    let mut tree = Tree::new(how, base);
    tree.root = made.then_some(root);
    Ok(Some(tree))
}

/// The parts of an entry's path below the destination; none for the destination itself.
///
/// # Errors
/// It is absolute, or leads out of the destination.
pub fn entry_parts(path: &[u8]) -> Result<Vec<&[u8]>, Error> {
    if path.starts_with(b"/") {
        return Err(Error::entry("refused, for it is an absolute name:", path));
    }
    let parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.iter().all(|part| is_plain(part)) {
        Ok(parts)
    } else {
        Err(Error::entry(
            "refused, for it leads out of the destination:",
            path,
        ))
    }
}

/// The tree below one directory.
struct Tree<'a> {
    how: &'a Unpack,
    base: OwnedFd,
    /// The root's entry, if we made it.
    root: Option<Entry>,
    /// Directories that we made; times and modes are set when nothing more comes into them.
    made: Vec<Entry>,
    /// The directory that was used last.
    last: Option<(Vec<u8>, OwnedFd)>,
    warnings: u64,
}

impl<'a> Tree<'a> {
    fn new(how: &'a Unpack, base: OwnedFd) -> Self {
        Self {
            how,
            base,
            root: None,
            made: Vec::new(),
            last: None,
            warnings: 0,
        }
    }

    /// Makes an entry; `false` if it was left out.
    fn entry<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        entry: &Entry,
        warn: &mut dyn FnMut(String),
    ) -> Result<bool, Error> {
        if let Kind::Other { name } = &entry.kind {
            self.warnings += 1;
            if self.warnings <= MOST_WARNINGS {
                warn(format!("'{}' is a {name} and left out", Shown(&entry.path)));
            }
            return Ok(false);
        }
        let parts = entry_parts(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            // An archive may name the directory it was made in.
            return match entry.kind {
                Kind::Directory => Ok(false),
                _ => Err(Error::entry(
                    "refused, for it names the destination:",
                    &entry.path,
                )),
            };
        };
        let target = match &entry.kind {
            Kind::HardLink { target } => Some(self.link_target(entry, target)?),
            _ => None,
        };
        let how = self.how;
        let parent = self.parent(parents, &entry.path)?;
        let spot = Spot {
            parent,
            name,
            shown: &entry.path,
        };
        match (&entry.kind, target) {
            (Kind::Directory, _) => {
                if spot.directory()? {
                    let mut made = entry.clone();
                    made.path = parts.join(&b'/');
                    self.made.push(made);
                } else {
                    self.open(&parts.join(&b'/'), OFlags::PATH, &entry.path)?;
                }
            }
            (_, Some((directory, target))) => spot.replace(|temporary| {
                rustix::fs::linkat(
                    &directory,
                    OsStr::from_bytes(&target),
                    spot.parent,
                    temporary,
                    AtFlags::empty(),
                )
            })?,
            (_, None) => make(reader, entry, &spot, how.owner)?,
        }
        Ok(true)
    }

    /// The directory and the name of what a hard link names.
    fn link_target(&mut self, entry: &Entry, target: &[u8]) -> Result<(OwnedFd, Vec<u8>), Error> {
        let refused = |_| {
            Error::entry(
                "refused, for it is a hard link out of the destination:",
                &entry.path,
            )
        };
        let target = entry_parts(target).map_err(refused)?;
        let Some((name, parents)) = target.split_last() else {
            return Err(refused(Error::stream("")));
        };
        let directory = self.open(&parents.join(&b'/'), OFlags::PATH, &entry.path)?;
        Ok((directory, name.to_vec()))
    }

    /// The directory of an entry, made if it is missing: archives need not name directories.
    fn parent(&mut self, parents: &[&[u8]], shown: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        let Some((name, above)) = parents.split_last() else {
            return Ok(self.base.as_fd());
        };
        let path = parents.join(&b'/');
        if self.last.as_ref().is_none_or(|(last, _)| *last != path) {
            let directory = match self.try_open(&path, OFlags::PATH) {
                Err(Errno::NOENT) => {
                    let above = self.parent(above, shown)?;
                    let mode = Mode::from_raw_mode(0o755);
                    match rustix::fs::mkdirat(above, OsStr::from_bytes(name), mode) {
                        Ok(()) | Err(Errno::EXIST) => self.open(&path, OFlags::PATH, shown)?,
                        Err(errno) => {
                            return Err(
                                Error::entry("cannot make the directory of", shown).because(errno)
                            );
                        }
                    }
                }
                opened => opened.map_err(|errno| unreachable_entry(shown, errno))?,
            };
            self.last = Some((path, directory));
        }
        Ok(self
            .last
            .as_ref()
            .map_or(self.base.as_fd(), |(_, fd)| fd.as_fd()))
    }

    fn open(&self, path: &[u8], how: OFlags, shown: &[u8]) -> Result<OwnedFd, Error> {
        self.try_open(path, how)
            .map_err(|errno| unreachable_entry(shown, errno))
    }

    /// Opens a directory below the base. The kernel sees to it that nothing on the way leads elsewhere.
    fn try_open(&self, path: &[u8], how: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if self.how.reach == Reach::NoLinks {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut left = AGAIN;
        loop {
            let path = OsStr::from_bytes(path);
            match rustix::fs::openat2(&self.base, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if left > 0 => left -= 1,
                opened => return opened,
            }
        }
    }

    /// Sets times, modes and owners of the directories that were made, the deepest first.
    fn finish(mut self) -> Result<(), Error> {
        while let Some(entry) = self.made.pop() {
            let directory = self.open(&entry.path, OFlags::RDONLY, &entry.path)?;
            attributes(&directory, &entry, self.how.owner)?;
        }
        match &self.root {
            Some(root) => attributes(&self.base, root, self.how.owner),
            None => Ok(()),
        }
    }
}

fn unreachable_entry(shown: &[u8], errno: Errno) -> Error {
    let what = match errno {
        Errno::LOOP | Errno::XDEV => {
            return Error::entry("refused, for a symbolic link is on the way to", shown);
        }
        Errno::NOTDIR => "something that is no directory is on the way to",
        Errno::NOSYS => "copying safely needs the system call openat2 (Linux 5.6); cannot make",
        _ => "cannot open the directory of",
    };
    Error::entry(what, shown).because(errno)
}

/// A name in an open directory.
struct Spot<'a> {
    parent: BorrowedFd<'a>,
    name: &'a [u8],
    shown: &'a [u8],
}

impl Spot<'_> {
    fn failed(&self, what: &str, errno: Errno) -> Error {
        Error::entry(what, self.shown).because(errno)
    }

    /// Makes a directory that only we may enter until it is complete; `false` if something has that name.
    fn directory(&self) -> Result<bool, Error> {
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(self.parent, OsStr::from_bytes(self.name), mode) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.failed("cannot make the directory", errno)),
        }
    }

    /// Makes something under a temporary name and gives it its own.
    fn replace(&self, make: impl Fn(&OsStr) -> Result<(), Errno>) -> Result<(), Error> {
        let temporary = loop {
            let name = temporary_name();
            let name = OsStr::new(&name);
            match make(name) {
                Ok(()) => break name.to_owned(),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("cannot make", errno)),
            }
        };
        self.rename(&temporary)
    }

    /// Gives what has a temporary name its own.
    fn rename(&self, temporary: &OsStr) -> Result<(), Error> {
        let name = OsStr::from_bytes(self.name);
        let renamed = rustix::fs::renameat(self.parent, temporary, self.parent, name);
        // It is still there if the rename failed, and if both are names of one file.
        let _ = rustix::fs::unlinkat(self.parent, temporary, AtFlags::empty());
        renamed.map_err(|errno| self.failed("cannot make", errno))
    }
}

fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".banger-cp-{}-{count}", std::process::id())
}

/// Makes a file or a symbolic link.
fn make<R: BufRead>(
    reader: &mut Reader<R>,
    entry: &Entry,
    spot: &Spot<'_>,
    owner: Owner,
) -> Result<(), Error> {
    match &entry.kind {
        Kind::File { size, data } => file(reader, entry, spot, owner, *size, data.as_deref()),
        Kind::Symlink { target } => spot.replace(|temporary| {
            rustix::fs::symlinkat(OsStr::from_bytes(target), spot.parent, temporary)?;
            let dress = || {
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                if owner == Owner::AsInStream {
                    let (uid, gid) = ids(entry)?;
                    rustix::fs::chownat(spot.parent, temporary, Some(uid), Some(gid), nofollow)?;
                }
                rustix::fs::utimensat(spot.parent, temporary, &times(entry), nofollow)
            };
            dress().inspect_err(|_| {
                let _ = rustix::fs::unlinkat(spot.parent, temporary, AtFlags::empty());
            })
        }),
        _ => Err(Error::entry(
            "refused, for it cannot be the root:",
            &entry.path,
        )),
    }
}

fn file<R: BufRead>(
    reader: &mut Reader<R>,
    entry: &Entry,
    spot: &Spot<'_>,
    owner: Owner,
    size: u64,
    data: Option<&[Extent]>,
) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (temporary, file) = loop {
        let name = temporary_name();
        match rustix::fs::openat(spot.parent, &name, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => break (name, file),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(spot.failed("cannot make", errno)),
        }
    };
    let whole = [Extent {
        offset: 0,
        length: size,
    }];
    let filled = data
        .unwrap_or(&whole)
        .iter()
        .try_for_each(|piece| fill(reader, &file, *piece, spot))
        .and_then(|()| match data {
            // The end may be a hole.
            Some(_) => rustix::fs::ftruncate(&file, size)
                .map_err(|errno| spot.failed("cannot write", errno)),
            None => Ok(()),
        })
        .and_then(|()| attributes(&file, entry, owner));
    match filled {
        Ok(()) => spot.rename(OsStr::new(&temporary)),
        Err(error) => {
            let _ = rustix::fs::unlinkat(spot.parent, &temporary, AtFlags::empty());
            Err(error)
        }
    }
}

fn fill<R: BufRead>(
    reader: &mut Reader<R>,
    file: &OwnedFd,
    piece: Extent,
    spot: &Spot<'_>,
) -> Result<(), Error> {
    let (mut offset, mut left) = (piece.offset, piece.length);
    while left > 0 {
        let data = reader.data(left)?;
        match rustix::io::pwrite(file, data, offset) {
            Ok(count) => {
                reader.consume(count);
                offset += count as u64;
                left -= count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(spot.failed("cannot write", errno)),
        }
    }
    Ok(())
}

/// Owner, mode and time: in this order, for a change of owner takes away setuid.
fn attributes(file: &OwnedFd, entry: &Entry, owner: Owner) -> Result<(), Error> {
    let set = || {
        let kept = match owner {
            // Setuid and setgid lend the owner's rights: they do not pass from another's file to one of ours.
            Owner::Us => 0o1777,
            Owner::AsInStream => {
                let (uid, gid) = ids(entry)?;
                rustix::fs::fchown(file, Some(uid), Some(gid))?;
                0o7777
            }
        };
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode & kept))?;
        rustix::fs::futimens(file, &times(entry))
    };
    set().map_err(|errno: Errno| {
        Error::entry("cannot set owner, mode and time of", &entry.path).because(errno)
    })
}

fn ids(entry: &Entry) -> Result<(Uid, Gid), Errno> {
    // The highest number means "leave it" to the kernel.
    let id = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or(Errno::INVAL)
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: entry.mtime.seconds,
            tv_nsec: i64::from(entry.mtime.nanoseconds),
        },
    }
}
