//! From a view to a tar stream, entry for entry as `banger_tree::pack` makes it in the guest, but in the order of names.

use crate::view::{Dir, Disk, Found, Names, View};
use banger_ext4::{FileType, Node, ReadAt, ReadError};
use banger_tree::{
    Attributes, Destination, Emitter, Error, Output, Packed,
    tar::{self, Extent, Kind, MAX_EXTENTS, Time},
};
use rustix::io::Errno;
use std::{collections::HashSet, io, vec};

/// Files up to this size are told of without holes.
const SMALL: u64 = 64 * 1024;
/// Bytes that a copy may remember: names that are still to come, first names of files with several, directories passed.
const MEMORY: usize = 256 << 20;
/// What a remembered name takes besides its bytes, about.
const EACH: usize = 64;

/// What to pack.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// A file or a directory, from the guest's root on. With a slash at the end a symbolic link is followed.
    pub path: &'a [u8],
    /// What it is called in the stream; `.` without a name.
    pub name: &'a [u8],
    /// Follow a symbolic link at the path itself.
    pub follow: bool,
}

/// Packs a tree. Symbolic links inside are entries themselves; sockets, devices and fifos are left out with a warning. Ends
/// with an error of a lost stream soon after `cancelled` says so.
///
/// # Errors
/// The first thing that cannot be read, with its name; or the stream is not taken.
pub fn pack<R: ReadAt>(
    view: &View<R>,
    what: &What<'_>,
    output: &mut dyn Output,
    cancelled: &dyn Fn() -> bool,
) -> Result<Packed, Error> {
    let follow = what.follow || Destination::name_of(what.path).is_none();
    let mut packer = Packer {
        view,
        to: Emitter::new(output, what.path, what.name),
        left: MEMORY,
        passed: HashSet::new(),
    };
    let mut path = what.name.to_vec();
    let root = view.resolve(what.path, follow);
    let root = root.map_err(|why| packer.failed("cannot read", &path, why))?;
    if !matches!(
        root.node.file_type,
        FileType::Directory | FileType::File | FileType::Symlink
    ) {
        return Err(Error::entry(
            "this is neither file nor directory:",
            what.path,
        ));
    }
    let mut levels = Vec::new();
    levels.extend(packer.entry(&root, &path)?.map(|level| (level, path.len())));
    while let Some((level, length)) = levels.last_mut() {
        if cancelled() {
            let gone = io::ErrorKind::ConnectionAborted;
            return Err(Error::stream("the copy was cancelled").because(gone));
        }
        path.truncate(*length);
        let Some(names) = level.names.next() else {
            packer.left += level.held;
            levels.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&names.name);
        let found = view.child(&level.dir, &names);
        let found = found.map_err(|why| packer.failed("cannot look at", &path, why))?;
        if let Some(found) = found
            && let Some(level) = packer.entry(&found, &path)?
        {
            levels.push((level, path.len()));
        }
    }
    packer.to.end()
}

/// A directory on the way, and what is still to come of it.
struct Level {
    dir: Dir,
    names: vec::IntoIter<Names>,
    held: usize,
}

struct Packer<'a, R> {
    view: &'a View<R>,
    to: Emitter<'a>,
    left: usize,
    passed: HashSet<Dir>,
}

impl<R: ReadAt> Packer<'_, R> {
    /// Writes an entry; gives what is in a directory.
    fn entry(&mut self, found: &Found, path: &[u8]) -> Result<Option<Level>, Error> {
        let node = &found.node;
        if let Some(dir) = found.dir {
            return self.directory(dir, node, path).map(Some);
        }
        if node.links > 1 {
            let file = key(found.disk, node);
            if let Some(first) = self.to.first_name(file) {
                let target = first.to_vec();
                self.header(path, Kind::HardLink { target }, node)?;
                return Ok(None);
            }
            if matches!(node.file_type, FileType::File | FileType::Symlink) {
                self.hold(path.len() + EACH, path)?;
                self.to.remember(file, path);
            }
        }
        match node.file_type {
            FileType::File => self.file(found, path)?,
            FileType::Symlink => {
                let target = self.view.disk(found.disk).and_then(|fs| fs.target(node));
                let target =
                    target.map_err(|why| self.failed("cannot read the link", path, why))?;
                self.header(path, Kind::Symlink { target }, node)?;
            }
            FileType::Socket => self.to.warn("is a socket and left out", path),
            FileType::Fifo => self.to.warn("is a fifo and left out", path),
            _ => self.to.warn("is a device and left out", path),
        }
        Ok(None)
    }

    fn directory(&mut self, dir: Dir, node: &Node, path: &[u8]) -> Result<Level, Error> {
        if dir != Dir::Volatile {
            self.hold(EACH, path)?;
            if !self.passed.insert(dir) {
                let why = ReadError::Damaged("a directory is in itself, or in two others");
                return Err(self.failed("cannot open the directory", path, why));
            }
        }
        let names = self.view.list(&dir);
        let names = names.map_err(|why| self.failed("cannot read the directory", path, why))?;
        let held = names.iter().map(|names| names.name.len() + EACH);
        // The path too: every entry below repeats it.
        let held = held.sum::<usize>() + path.len();
        self.hold(held, path)?;
        self.header(path, Kind::Directory, node)?;
        let names = names.into_iter();
        Ok(Level { dir, names, held })
    }

    fn file(&mut self, found: &Found, path: &[u8]) -> Result<(), Error> {
        let (view, node) = (self.view, &found.node);
        let content = view.disk(found.disk).and_then(|fs| {
            let content = fs.content(node)?;
            Ok((fs, content))
        });
        let (fs, content) = content.map_err(|why| self.failed("cannot open", path, why))?;
        let size = node.size;
        let whole = Extent {
            offset: 0,
            length: size,
        };
        let mut pieces = vec![whole];
        let mut data = None;
        if size > SMALL {
            let found = extents(size, &fs.data(&content));
            if found != pieces {
                data = Some(found.clone());
                pieces = found;
            }
        }
        self.header(path, Kind::File { size, data }, node)?;
        for Extent { offset, length } in &pieces {
            let (mut offset, mut left) = (*offset, *length);
            while left > 0 {
                let space = self.to.space()?;
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
                let read = fs.read(&content, offset, &mut space[..most]);
                let count = read.map_err(|why| self.failed("cannot read", path, why))?;
                if count == 0 {
                    let why = ReadError::Damaged("a file ends before it does");
                    return Err(self.failed("cannot read", path, why));
                }
                self.to.advance(count)?;
                offset += count as u64;
                left -= count as u64;
            }
        }
        self.to
            .zeros(tar::padding(pieces.iter().map(|p| p.length).sum()) as u64)
    }

    /// Counts what is remembered. What a real guest has comes nowhere near.
    fn hold(&mut self, bytes: usize, path: &[u8]) -> Result<(), Error> {
        let left = self.left.checked_sub(bytes);
        let why = ReadError::Unsupported("more names than are held in memory at once");
        self.left = left.ok_or_else(|| self.failed("cannot go on at", path, why))?;
        Ok(())
    }

    fn header(&mut self, path: &[u8], kind: Kind, node: &Node) -> Result<(), Error> {
        let attributes = Attributes {
            mode: u32::from(node.mode),
            uid: node.uid,
            gid: node.gid,
            mtime: Time {
                seconds: node.mtime.seconds,
                nanoseconds: node.mtime.nanos,
            },
        };
        self.to.header(path, kind, &attributes)
    }

    fn failed(&self, what: &str, path: &[u8], why: ReadError) -> Error {
        self.to.failed(what, path, as_told(why))
    }
}

/// What tells that two names are one file's.
fn key(disk: Disk, node: &Node) -> (u64, u64) {
    (disk as u64, u64::from(node.number))
}

/// In the words of the system where it has some, as the guest would say it.
fn as_told(why: ReadError) -> io::Error {
    let errno = match why {
        ReadError::Io(error) => return error,
        ReadError::NotFound => Errno::NOENT,
        ReadError::NotADirectory => Errno::NOTDIR,
        ReadError::NameTooLong => Errno::NAMETOOLONG,
        ReadError::TooManyLinks => Errno::LOOP,
        ReadError::Unsupported(_) => {
            return io::Error::other(format!("{why}; start the VM and copy from there"));
        }
        other => return io::Error::other(other.to_string()),
    };
    errno.into()
}

/// Where a file's data lies. Of one that is cut to very many pieces the rest is taken as one, holes and all.
fn extents(size: u64, data: &[banger_ext4::Extent]) -> Vec<Extent> {
    let mut pieces: Vec<Extent> = data
        .iter()
        .take(MAX_EXTENTS - 1)
        .map(|piece| Extent {
            offset: piece.offset,
            length: piece.len,
        })
        .collect();
    if data.len() > pieces.len()
        && let Some(last) = pieces.last_mut()
    {
        last.length = size - last.offset;
    }
    pieces
}
