//! From an archive to a directory tree, within limits (R-IMG-4).

use super::name::{clean, shown};
use super::packing::Unpacked;
use super::tar::{Entry, Kind, Reader};
use crate::{Error, Progress, Result};
use banger_host::tree::{Special, Tree};
use std::{
    collections::HashMap,
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Bytes of extended attributes one inode can have: its own room and one block.
const XATTRS_MAX: usize = 3800;
/// How often progress is told.
pub(crate) const TELL: Duration = Duration::from_millis(200);
/// Longest file an ext4 of 4 KiB blocks holds.
const FILE_MAX: u64 = 16 << 40;

/// What an archive may expand to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories, links, devices.
    pub entries: u64,
    /// Bytes when unpacked.
    pub bytes: u64,
    /// Entries in one directory.
    pub in_directory: u64,
    /// Device nodes.
    pub devices: u64,
    /// Bytes unpacked for each byte packed, above [`Limits::ratio_from`].
    pub ratio: u64,
    /// Up to so many unpacked bytes any ratio is good.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 4_000_000,
            bytes: 64 << 30,
            in_directory: 1_000_000,
            devices: 4096,
            ratio: 1000,
            ratio_from: 1 << 30,
        }
    }
}

impl Limits {
    /// Refuses a stream that unpacks to more than it may.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn check_stream(&self, (packed, unpacked): (u64, u64)) -> Result<()> {
        if unpacked > self.bytes {
            return Err(Error::TooLarge(format!(
                "it unpacks to more than {}",
                banger_model::ByteSize(self.bytes)
            )));
        }
        if unpacked > self.ratio_from && unpacked / self.ratio > packed {
            return Err(Error::TooLarge(format!(
                "each of its bytes unpacks to more than {}",
                self.ratio
            )));
        }
        Ok(())
    }
}

/// Unpacks into the directory, which is there and empty.
///
/// # Errors
/// Cut short, damaged, an entry refused, no room, a limit reached, cancelled, or the disk is full.
pub(crate) fn unpack(
    archive: Unpacked<'_>,
    root: &Path,
    limits: &Limits,
    room: &dyn Fn() -> Result<()>,
    progress: &dyn Progress,
) -> Result<()> {
    let tree = Tree::open(root).map_err(|source| Error::Read {
        path: root.to_owned(),
        source,
    })?;
    let mut unpacking = Unpacking {
        reader: Reader::new(archive),
        tree,
        limits,
        watch: Watch {
            limits,
            room,
            progress,
            told: Instant::now(),
        },
        entries: 0,
        extensions: 0,
        devices: 0,
        in_directory: HashMap::new(),
        directories: Vec::new(),
        buffer: vec![0; 256 << 10],
    };
    unpacking.run()
}

/// Between entries and within long ones: limits, cancelling, progress.
struct Watch<'a> {
    limits: &'a Limits,
    /// Refuses to go on when the disk becomes full.
    room: &'a dyn Fn() -> Result<()>,
    progress: &'a dyn Progress,
    told: Instant,
}

impl Watch<'_> {
    fn look_up(&mut self, source: &Unpacked<'_>) -> Result<()> {
        let counts = source.counts();
        self.limits.check_stream(counts)?;
        if self.progress.cancelled() {
            return Err(Error::Cancelled);
        }
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.progress.moved(counts.0);
            (self.room)()?;
        }
        Ok(())
    }
}

struct Unpacking<'a> {
    reader: Reader<Unpacked<'a>>,
    tree: Tree,
    limits: &'a Limits,
    watch: Watch<'a>,
    entries: u64,
    /// Headers that are no entries.
    extensions: u64,
    devices: u64,
    /// Entries made in each directory, by its inode.
    in_directory: HashMap<u64, u64>,
    /// Directories and their times, which are set when nothing more is put into them.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(entry) = self.next()? {
            self.watch.look_up(self.reader.source())?;
            self.entry(&entry)?;
        }
        let watch = &mut self.watch;
        self.reader.finish_stream(|source| watch.look_up(source))?;
        if self.entries == 0 {
            return Err(Error::NotAnImage("the archive has no entries".to_owned()));
        }
        self.check_root()?;
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let set = self.tree.set_time(&path, mtime);
            set.map_err(|error| made(&path, error))?;
        }
        Ok(())
    }

    /// An archive of an image's layers is a tar too, and nothing that boots.
    fn check_root(&self) -> Result<()> {
        let any = |names: &[&str]| names.iter().any(|name| self.tree.has(name.as_bytes()));
        if any(&["manifest.json", "oci-layout"]) && !any(&["bin", "sbin", "usr", "etc", "init"]) {
            return Err(Error::NotAnImage(
                "it is an archive of image layers (docker save, an OCI layout), not of a root file system".to_owned(),
            ));
        }
        Ok(())
    }

    /// The next entry of the archive; a header that is none counts as one, or a flood of them would have no limit.
    fn next(&mut self) -> Result<Option<Entry>> {
        let Unpacking { reader, watch, .. } = self;
        let (extensions, most) = (&mut self.extensions, self.limits.entries);
        let entries = self.entries;
        reader.entry(&mut |source, header| {
            watch.look_up(source)?;
            let Some(header) = header else {
                return Ok(());
            };
            *extensions += 1;
            if entries + *extensions > most {
                return Err(one_too_many(&header.path_bytes(), most));
            }
            Ok(())
        })
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let name = &entry.name;
        let refuse = |why: &str| Error::refused(name, why);
        let path = clean(name).map_err(|bad| refuse(bad.why()))?;
        if path.is_empty() {
            // The root itself: ext4 makes it.
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(refuse("it would replace the root directory")),
            };
        }
        self.count(&path, entry)?;
        let attributes = &entry.attributes;
        let xattrs: usize = attributes
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum();
        if xattrs > XATTRS_MAX {
            return Err(refuse("it has more extended attributes than ext4 keeps"));
        }
        let result = match &entry.kind {
            Kind::File => return self.file(&path, entry),
            Kind::Directory => {
                self.directories.push((path.clone(), attributes.mtime));
                self.tree.directory(&path, attributes)
            }
            Kind::Symlink(text) => {
                if text.is_empty() || text.contains(&0) {
                    return Err(refuse("its target is empty or has a NUL byte"));
                }
                self.tree.symlink(&path, text, attributes)
            }
            Kind::HardLink(target) => {
                let to = clean(target)
                    .map_err(|bad| refuse(&format!("of its target: {}", bad.why())))?;
                let linked = self.tree.hard_link(&path, &to);
                return linked.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => refuse(&format!(
                        "it is a hard link to '{}', which is no entry before it",
                        shown(target)
                    )),
                    io::ErrorKind::IsADirectory => refuse("it is a hard link to a directory"),
                    _ => made(&path, error),
                });
            }
            Kind::Special(special) => self.tree.special(&path, *special, attributes),
        };
        result.map_err(|error| made(&path, error))
    }

    fn count(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let refuse = |why: String| Err(Error::refused(path, &why));
        self.entries += 1;
        if self.entries + self.extensions > self.limits.entries {
            return Err(one_too_many(path, self.limits.entries));
        }
        if matches!(
            entry.kind,
            Kind::Special(Special::Char(..) | Special::Block(..))
        ) {
            self.devices += 1;
            if self.devices > self.limits.devices {
                return refuse(format!(
                    "it is one device more than {}",
                    self.limits.devices
                ));
            }
        }
        let parent = self
            .tree
            .parent_of(path)
            .map_err(|error| made(path, error))?;
        let here = self.in_directory.entry(parent).or_default();
        *here += 1;
        if *here > self.limits.in_directory {
            let most = self.limits.in_directory;
            return refuse(format!("it is one entry more than {most} in its directory"));
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        if entry.len > FILE_MAX {
            return Err(Error::refused(path, "it is longer than a file can be"));
        }
        let file = self.tree.file(path).map_err(|error| made(path, error))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for (offset, length) in &entry.pieces {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let want = usize::try_from(end - at).map_or(buffer.len(), |n| n.min(buffer.len()));
                let mut filled = 0;
                // Whole blocks, so that holes are found.
                while filled < want {
                    match self.reader.data(&mut buffer[filled..want])? {
                        0 => return Err(Error::Truncated),
                        n => filled += n,
                    }
                }
                let written = file.write_at(&buffer[..filled], at);
                written.map_err(|error| made(path, error))?;
                at += filled as u64;
                self.watch.look_up(self.reader.source())?;
            }
        }
        self.buffer = buffer;
        let finished = file.finish(entry.len, &entry.attributes);
        finished.map_err(|error| made(path, error))
    }
}

fn one_too_many(name: &[u8], most: u64) -> Error {
    Error::refused(name, &format!("it is one entry more than {most}"))
}

/// An entry that could not be made, in words.
fn made(path: &[u8], error: io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            return Error::DiskFull {
                doing: "unpacking the image",
                source: error,
            };
        }
        io::ErrorKind::NotADirectory => {
            "something on the way to it is no directory inside the image".to_owned()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "a symlink on the way to it leads in a circle".to_owned()
        }
        io::ErrorKind::DirectoryNotEmpty => {
            "a directory with entries is at its place already".to_owned()
        }
        io::ErrorKind::IsADirectory => "a directory is at its place".to_owned(),
        _ => format!("it cannot be made here: {error}"),
    };
    Error::refused(path, &why)
}
