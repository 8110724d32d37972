//! A directory that is filled with entries whose names and contents come from strangers.
//!
//! Every name is resolved by the kernel inside the directory (`openat2`, RESOLVE_IN_ROOT): a symlink that is an entry
//! leads to where it would lead if the directory were `/`, `..` ends there, and nothing outside is ever reached, however
//! entries are swapped meanwhile. What is made here is not durable; whoever publishes the tree or what becomes of it
//! makes that so.

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::{fs, io::Errno};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

/// Bytes that become a hole where all of them are zero: a block of the file systems we make.
const HOLE: usize = 4096;

/// Owner, permissions and the like of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Extended attributes: full name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is besides a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Character device of these numbers.
    Char(u32, u32),
    /// Block device of these numbers.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// The directory entries are made in.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// The directory the last entry was made in: most follow each other.
    last: Option<(Vec<u8>, Parent)>,
}

/// A directory in the tree.
#[derive(Debug)]
struct Parent {
    dir: OwnedFd,
    inode: u64,
}

/// A file being filled.
#[derive(Debug)]
pub struct NewFile {
    file: File,
}

impl Tree {
    /// The tree in a directory that is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(dir: &Path) -> io::Result<Tree> {
        let root = fs::open(
            dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Tree { root, last: None })
    }

    /// Inode of the directory this entry belongs in; directories that lack are made (root's, 0755).
    ///
    /// # Errors
    /// Something on the way is no directory, or the system refuses.
    pub fn parent_of(&mut self, path: &[u8]) -> io::Result<u64> {
        let (dir, _) = split(path);
        self.enter(dir).map(|parent| parent.inode)
    }

    /// A directory; one that is there is kept with what is in it and takes the attributes (its time: [`Tree::set_time`]).
    ///
    /// # Errors
    /// Something else that cannot be replaced is there, or the system refuses.
    pub fn directory(&mut self, path: &[u8], attributes: &Attributes) -> io::Result<()> {
        if path.is_empty() {
            return Ok(()); // the root of the tree is no entry of it
        }
        let (parent, name) = self.place(path)?;
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if kind(&there) == FileType::Directory => {}
            Ok(_) => {
                fs::unlinkat(parent, name, AtFlags::empty())?;
                fs::mkdirat(parent, name, Mode::RWXU)?;
            }
            Err(Errno::NOENT) => fs::mkdirat(parent, name, Mode::RWXU)?,
            Err(error) => return Err(error.into()),
        }
        describe(parent, name, attributes, true)?;
        self.last = None; // what was a link to elsewhere may be a directory now
        Ok(())
    }

    /// A new file, empty; what is there is replaced.
    ///
    /// # Errors
    /// A directory with entries is there, or the system refuses.
    pub fn file(&mut self, path: &[u8]) -> io::Result<NewFile> {
        let (parent, name) = self.free(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(NewFile { file: file.into() })
    }

    /// A symlink with this text, stored as it is.
    ///
    /// # Errors
    /// A directory with entries is there, or the system refuses.
    pub fn symlink(&mut self, path: &[u8], text: &[u8], attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.free(path)?;
        fs::symlinkat(text, parent, name)?;
        describe(parent, name, attributes, false)?;
        set_time(parent, name, attributes.mtime)
    }

    /// A second name of a file, device or symlink of this tree.
    ///
    /// # Errors
    /// There is no such entry, it is a directory, or the system refuses.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (dir, target_name) = split(target);
        let from = self.look(dir)?;
        let there = fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind(&there) == FileType::Directory {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (parent, name) = self.place(path)?;
        if let Ok(old) = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (old.st_dev, old.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        let (parent, name) = self.free(path)?;
        fs::linkat(&from, target_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    /// A device or named pipe.
    ///
    /// # Errors
    /// A directory with entries is there, or the system refuses (devices are root's to make).
    pub fn special(
        &mut self,
        path: &[u8],
        what: Special,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let (kind, device) = match what {
            Special::Char(major, minor) => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Special::Block(major, minor) => (FileType::BlockDevice, fs::makedev(major, minor)),
            Special::Fifo => (FileType::Fifo, 0),
        };
        let (parent, name) = self.free(path)?;
        fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?;
        describe(parent, name, attributes, true)?;
        set_time(parent, name, attributes.mtime)
    }

    /// Sets the time of a directory, when nothing more is put into it. One that was replaced meanwhile is let be.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_time(&mut self, path: &[u8], mtime: (i64, u32)) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if kind(&there) == FileType::Directory => set_time(parent, name, mtime),
            _ => Ok(()),
        }
    }

    /// Whether there is an entry of this name, symlinks not followed.
    pub fn has(&self, path: &[u8]) -> bool {
        let (dir, name) = split(path);
        self.look(dir)
            .is_ok_and(|dir| fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Directory and name of an entry, with nothing at the name.
    fn free<'p>(&mut self, path: &'p [u8]) -> io::Result<(BorrowedFd<'_>, &'p OsStrName)> {
        let (parent, name) = self.place(path)?;
        let old = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if kind(&there) == FileType::Directory => Some(AtFlags::REMOVEDIR),
            Ok(_) => Some(AtFlags::empty()),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(flags) = old {
            fs::unlinkat(parent, name, flags)?;
            // The directory remembered may have been reached through what is gone.
            self.last = None;
        }
        self.place(path)
    }

    fn place<'p>(&mut self, path: &'p [u8]) -> io::Result<(BorrowedFd<'_>, &'p OsStrName)> {
        let (dir, name) = split(path);
        if name.is_empty() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let parent = self.enter(dir)?;
        Ok((parent.dir.as_fd(), OsStrName::from_bytes(name)))
    }

    /// The directory of this name; what lacks is made.
    fn enter(&mut self, dir: &[u8]) -> io::Result<&Parent> {
        if self.last.as_ref().is_none_or(|(path, _)| path != dir) {
            let fd = self.look_or_make(dir)?;
            let inode = fs::fstat(&fd)?.st_ino;
            self.last = None;
            self.last = Some((dir.to_owned(), Parent { dir: fd, inode }));
        }
        match &self.last {
            Some((_, parent)) => Ok(parent),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn look(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let path = if dir.is_empty() { b"." } else { dir };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(fs::openat2(
            &self.root,
            OsStrName::from_bytes(path),
            flags,
            Mode::empty(),
            inside,
        )?)
    }

    fn look_or_make(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let mut missing = Vec::new();
        let mut there = dir;
        let mut fd = loop {
            match self.look(there) {
                Ok(fd) => break fd,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !there.is_empty() => {
                    let (parent, name) = split(there);
                    missing.push(name);
                    there = parent;
                }
                Err(error) => return Err(error),
            }
        };
        let mode = Mode::from_raw_mode(0o755);
        for name in missing.into_iter().rev() {
            let name = OsStrName::from_bytes(name);
            // Something is there after all: a symlink that leads nowhere.
            fs::mkdirat(&fd, name, mode).map_err(|errno| match errno {
                Errno::EXIST => io::Error::from(io::ErrorKind::NotADirectory),
                errno => errno.into(),
            })?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = fs::openat(&fd, name, flags, Mode::empty())?;
            // Whatever the umask of this process took away.
            fs::chmodat(&fd, name, mode, AtFlags::empty())?;
            fd = made;
        }
        Ok(fd)
    }
}

/// A name as the system calls take it.
type OsStrName = std::ffi::OsStr;

impl NewFile {
    /// Writes at an offset; blocks of zeros stay holes.
    ///
    /// # Errors
    /// The system refuses (disk full).
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_sparse(&self.file, bytes, offset)
    }

    /// Gives the file its length and its attributes, and ends it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn finish(self, len: u64, attributes: &Attributes) -> io::Result<()> {
        self.file.set_len(len)?;
        own(&self.file, attributes)?;
        for (name, value) in &attributes.xattrs {
            let name = OsStrName::from_bytes(name);
            fs::fsetxattr(&self.file, name, value, XattrFlags::empty())?;
        }
        Ok(fs::futimens(&self.file, &times(attributes.mtime))?)
    }
}

/// Writes a stream into a new file of ours (mode 0600) and gives its length; blocks of zeros stay holes. Not durable.
///
/// # Errors
/// Reading or writing failed.
pub fn spool(path: &Path, source: &mut dyn Read) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = File::from(fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        // Whole blocks, or no block would be a hole.
        let mut filled = 0;
        while filled < buffer.len() {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        write_sparse(&file, &buffer[..filled], len)?;
        len += filled as u64;
        if filled < buffer.len() {
            file.set_len(len)?;
            return Ok(len);
        }
    }
}

/// Takes an exclusive lock (flock) on a directory for as long as the result lives; `None` if somebody has it.
///
/// # Errors
/// It cannot be opened.
pub fn lock_dir(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::open(dir, flags, Mode::empty())?;
    match fs::flock(&fd, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(fd)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let zero = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    let mut at = 0;
    while at < bytes.len() {
        let piece = |from: usize| &bytes[from..bytes.len().min(from + HOLE)];
        if zero(piece(at)) {
            at += HOLE;
            continue;
        }
        let start = at;
        while at < bytes.len() && !zero(piece(at)) {
            at += HOLE;
        }
        let end = at.min(bytes.len());
        file.write_all_at(&bytes[start..end], offset + start as u64)?;
    }
    Ok(())
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn kind(stat: &fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_time(parent: BorrowedFd<'_>, name: &OsStrName, mtime: (i64, u32)) -> io::Result<()> {
    Ok(fs::utimensat(
        parent,
        name,
        &times(mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Owner first: it takes setuid and capabilities away.
fn own(file: &File, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = owner(attributes);
    fs::fchown(file, uid, gid)?;
    Ok(fs::fchmod(
        file,
        Mode::from_raw_mode(attributes.mode & 0o7777),
    )?)
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
    )
}

/// Owner, mode and attributes of what is no file; never of what a symlink points to.
fn describe(
    parent: BorrowedFd<'_>,
    name: &OsStrName,
    attributes: &Attributes,
    has_mode: bool,
) -> io::Result<()> {
    let (uid, gid) = owner(attributes);
    fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if has_mode {
        // Made by us a moment ago, or seen to be a directory: no symlink.
        let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
        fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    if attributes.xattrs.is_empty() {
        return Ok(());
    }
    // lsetxattr has no form with a descriptor; the one of the directory leads there.
    let mut path = Vec::new();
    write!(path, "/proc/self/fd/{}/", parent.as_raw_fd())?;
    path.extend_from_slice(name.as_bytes());
    for (key, value) in &attributes.xattrs {
        let key = OsStrName::from_bytes(key);
        fs::lsetxattr(
            OsStrName::from_bytes(&path),
            key,
            value,
            XattrFlags::empty(),
        )?;
    }
    Ok(())
}
