//! From a tree to a stream.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::emit::{Attributes, Emitter, Packed};
use crate::tar::{self, Extent, Kind, MAX_EXTENTS, Time};
use crate::{Destination, Error};

/// Files up to this size are read before their header is written. Files of `/proc` and `/sys` do not tell their size.
const SMALL: i64 = 64 * 1024;
/// How much is read of a file that has more than it says.
const MOST_UNTOLD: usize = 1024 * 1024;

/// Where the stream goes. Data is read straight into its buffers.
pub trait Output {
    /// Room to write to, never empty.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    fn space(&mut self) -> io::Result<&mut [u8]>;

    /// So many bytes of the room were written.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    fn advance(&mut self, count: usize) -> io::Result<()>;

    /// Something was left out.
    fn warn(&mut self, text: String);
}

/// What to pack.
#[derive(Debug, Clone)]
pub struct Pack<'a> {
    /// A file or a directory. With a slash at the end a symbolic link is followed.
    pub source: &'a Path,
    /// Follow a symbolic link at the source itself.
    pub follow: bool,
    /// What the source is called in the stream; `.` without a name.
    pub name: &'a [u8],
}

/// Packs a tree. Symbolic links inside are entries themselves; sockets, devices and fifos are left out with a warning.
///
/// # Errors
/// The first thing that cannot be read, with its name; or the stream is not taken.
pub fn pack(what: &Pack<'_>, output: &mut dyn Output) -> Result<Packed, Error> {
    let source = what.source.as_os_str().as_bytes();
    let follow = what.follow || source.ends_with(b"/") || Destination::name_of(source).is_none();
    let mut packer = Packer {
        to: Emitter::new(output, source, what.name),
        small: Vec::new(),
    };
    let mut path = what.name.to_vec();
    let root = Found {
        at: CWD,
        name: source,
        follow,
    };
    let mut levels = Vec::new();
    let found = packer.stat(&root, &path)?;
    if !matches!(
        FileType::from_raw_mode(found.st_mode),
        FileType::Directory | FileType::RegularFile | FileType::Symlink
    ) {
        return Err(Error::entry("this is neither file nor directory:", source));
    }
    levels.extend(
        packer
            .entry(&root, &found, &path)?
            .map(|dir| (dir, path.len())),
    );
    while let Some((dir, length)) = levels.last_mut() {
        path.truncate(*length);
        let Some(next) = dir.read() else {
            levels.pop();
            continue;
        };
        let next =
            next.map_err(|errno| packer.to.failed("cannot read the directory", &path, errno))?;
        let name = next.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let at = dir
            .fd()
            .map_err(|errno| packer.to.failed("cannot open", &path, errno))?;
        let found = Found {
            at,
            name,
            follow: false,
        };
        if let Some(dir) = packer.next(&found, &path)? {
            levels.push((dir, path.len()));
        }
    }
    packer.to.end()
}

/// A name in an open directory.
struct Found<'a> {
    at: BorrowedFd<'a>,
    name: &'a [u8],
    follow: bool,
}

impl Found<'_> {
    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        // A fifo that has taken a file's place must not make us wait.
        let mut flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        if !self.follow {
            flags |= OFlags::NOFOLLOW;
        }
        rustix::fs::openat(self.at, OsStr::from_bytes(self.name), flags, Mode::empty())
    }
}

struct Packer<'a> {
    to: Emitter<'a>,
    small: Vec<u8>,
}

impl Packer<'_> {
    /// An entry below the root: one that has gone since its directory was read is no failure.
    fn next(&mut self, found: &Found<'_>, path: &[u8]) -> Result<Option<Dir>, Error> {
        let stat = match rustix::fs::statat(found.at, found.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                self.to.warn("has gone meanwhile", path);
                return Ok(None);
            }
            stat => stat.map_err(|errno| self.to.failed("cannot look at", path, errno))?,
        };
        self.entry(found, &stat, path)
    }

    fn stat(&self, root: &Found<'_>, path: &[u8]) -> Result<Stat, Error> {
        let flags = if root.follow {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        let stat = rustix::fs::statat(root.at, root.name, flags);
        stat.map_err(|errno| self.to.failed("cannot read", path, errno))
    }

    /// Writes an entry; a directory is opened for what is in it.
    fn entry(&mut self, found: &Found<'_>, stat: &Stat, path: &[u8]) -> Result<Option<Dir>, Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::Directory) && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.to.first_name(key) {
                let target = first.to_vec();
                self.to
                    .header(path, Kind::HardLink { target }, &attributes(stat))?;
                return Ok(None);
            }
            if matches!(kind, FileType::RegularFile | FileType::Symlink) {
                self.to.remember(key, path);
            }
        }
        match kind {
            FileType::Directory => self.directory(found, stat, path).map(Some),
            FileType::RegularFile => self.file(found, path).map(|()| None),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(found.at, found.name, Vec::new());
                let target =
                    target.map_err(|errno| self.to.failed("cannot read the link", path, errno))?;
                let target = target.into_bytes();
                self.to
                    .header(path, Kind::Symlink { target }, &attributes(stat))?;
                Ok(None)
            }
            other => {
                let text = match other {
                    FileType::Socket => "is a socket and left out",
                    FileType::Fifo => "is a fifo and left out",
                    _ => "is a device and left out",
                };
                self.to.warn(text, path);
                Ok(None)
            }
        }
    }

    fn directory(&mut self, found: &Found<'_>, stat: &Stat, path: &[u8]) -> Result<Dir, Error> {
        let dir = found
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(Dir::new)
            .map_err(|errno| self.to.failed("cannot open the directory", path, errno))?;
        self.to.header(path, Kind::Directory, &attributes(stat))?;
        Ok(dir)
    }

    fn file(&mut self, found: &Found<'_>, path: &[u8]) -> Result<(), Error> {
        let file = found
            .open(OFlags::RDONLY)
            .map_err(|errno| self.to.failed("cannot open", path, errno))?;
        // What was opened counts: another file may have taken the place of the one that was looked at.
        let stat = rustix::fs::fstat(&file)
            .map_err(|errno| self.to.failed("cannot look at", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.to
                .warn("became something else meanwhile and is left out", path);
            return Ok(());
        }
        if stat.st_size <= SMALL {
            return self.small_file(&file, &stat, path);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let has_holes = stat.st_blocks.saturating_mul(512) < stat.st_size;
        let data = if has_holes {
            extents(&file, size).map_err(|errno| self.to.failed("cannot read", path, errno))?
        } else {
            None
        };
        let pieces = data.clone().unwrap_or_else(|| {
            vec![Extent {
                offset: 0,
                length: size,
            }]
        });
        self.to
            .header(path, Kind::File { size, data }, &attributes(&stat))?;
        let mut whole = true;
        for piece in &pieces {
            whole &= self.data(&file, *piece, path)?;
        }
        if !whole {
            self.to
                .warn("shrank while it was read; its end is zeros", path);
        }
        self.to
            .zeros(tar::padding(pieces.iter().map(|p| p.length).sum()) as u64)
    }

    /// A file that is read before its size is told.
    fn small_file(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let mut small = std::mem::take(&mut self.small);
        let mut filled = 0;
        loop {
            if filled == small.len() {
                let more = usize::try_from(SMALL).unwrap_or(0) + 1;
                small.resize(filled + more, 0);
            }
            match rustix::io::read(file, &mut small[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.to.failed("cannot read", path, errno)),
            }
            if filled > MOST_UNTOLD {
                self.to
                    .warn("has more than it says; only its beginning was read", path);
                break;
            }
        }
        let size = filled as u64;
        self.to
            .header(path, Kind::File { size, data: None }, &attributes(stat))?;
        self.to.write(&small[..filled])?;
        self.small = small;
        self.to.zeros(tar::padding(size) as u64)
    }

    /// Sends a piece of a file; `false` if the file ended before it did.
    fn data(&mut self, file: &OwnedFd, piece: Extent, path: &[u8]) -> Result<bool, Error> {
        let (mut offset, mut left) = (piece.offset, piece.length);
        while left > 0 {
            let space = self.to.space()?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
            match rustix::io::pread(file, &mut space[..most], offset) {
                Ok(0) => {
                    self.to.zeros(left)?;
                    return Ok(false);
                }
                Ok(count) => {
                    self.to.advance(count)?;
                    offset += count as u64;
                    left -= count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.to.failed("cannot read", path, errno)),
            }
        }
        Ok(true)
    }
}

/// What an entry says of itself.
fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}

/// Where a file's data lies; `None` if its file system cannot tell, or if all of it is data.
fn extents(file: &impl AsFd, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(offset) if offset < size => offset,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // A file that is cut to very many pieces: the rest is taken as one, holes and all.
        let end = if extents.len() + 2 < MAX_EXTENTS {
            rustix::fs::seek(file, SeekFrom::Hole(offset))?.min(size)
        } else {
            size
        };
        extents.push(Extent {
            offset,
            length: end - offset,
        });
        at = end;
    }
    let whole = [Extent {
        offset: 0,
        length: size,
    }];
    Ok((extents != whole).then_some(extents))
}
