//! Files that share their blocks (reflinks): making one, whether two places can have such, and what a file has alone.

use super::ioctl;
use rustix::{fs::ioctl_ficlone, io::Errno};
use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Why two files cannot share blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unshared {
    /// The file system has no such thing.
    #[error("{} is on {kind}, which does not share blocks between files", .dir.display())]
    FileSystem {
        /// A directory on it.
        dir: PathBuf,
        /// What it is called.
        kind: String,
    },
    /// They are on two file systems.
    #[error("{} and {} are on two file systems, which share no blocks", .from.display(), .to.display())]
    Apart {
        /// One directory.
        from: PathBuf,
        /// The other.
        to: PathBuf,
    },
    /// It could not be tried.
    #[error("whether files in {} can share blocks could not be tried: {why}", .dir.display())]
    Untried {
        /// Where.
        dir: PathBuf,
        /// Why.
        why: String,
    },
}

/// Makes the empty file `to` a clone of `from`.
pub(super) fn share(from: &File, to: &File) -> Result<(), Errno> {
    ioctl_ficlone(to, from)
}

/// Whether this failure of [`share`] says that it cannot be here, and not that something went wrong.
pub(super) fn cannot(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::ISDIR
    )
}

/// A failure of [`share`] in words, if it says that these two files cannot.
pub(super) fn refusal(errno: Errno, from: &Path, to: &Path) -> Option<Unshared> {
    let dir = |path: &Path| path.parent().unwrap_or(path).to_owned();
    cannot(errno).then(|| unshared(errno, &dir(from), &dir(to)))
}

fn unshared(errno: Errno, from: &Path, to: &Path) -> Unshared {
    match errno {
        Errno::XDEV => Unshared::Apart {
            from: from.to_owned(),
            to: to.to_owned(),
        },
        _ => Unshared::FileSystem {
            dir: to.to_owned(),
            kind: file_system(to),
        },
    }
}

/// Tries whether a file in the directory `to` can share the blocks of one in `from`: with two files of one block that
/// have no name, so that nothing is left whatever happens.
///
/// # Errors
/// Why not.
pub fn shares_blocks(from: &Path, to: &Path) -> Result<(), Unshared> {
    let untried = |dir: &Path, error: &io::Error| Unshared::Untried {
        dir: dir.to_owned(),
        why: error.to_string(),
    };
    let mut template = tempfile::tempfile_in(from).map_err(|e| untried(from, &e))?;
    let clone = tempfile::tempfile_in(to).map_err(|e| untried(to, &e))?;
    template
        .write_all(&[1; 4096])
        .map_err(|e| untried(from, &e))?;
    share(&template, &clone).map_err(|errno| match cannot(errno) {
        true => unshared(errno, from, to),
        false => untried(to, &errno.into()),
    })
}

/// The name of the file system that a path is on (linux/magic.h), for a person.
fn file_system(path: &Path) -> String {
    let Ok(seen) = rustix::fs::statfs(path) else {
        return "a file system".to_owned();
    };
    // The field is signed on some architectures; the numbers have 32 bits.
    let magic = seen.f_type as u32;
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "XFS made without reflink=1",
        0x9123_683e => "Btrfs without copy-on-write (nodatacow)",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "an overlay",
        0x6969 => "NFS",
        0xf2f5_2010 => "F2FS",
        0x2fc1_2fc1 => "ZFS without block cloning",
        0x6573_5546 => "FUSE",
        _ => return format!("a file system of type {magic:#x}"),
    };
    name.to_owned()
}

/// `struct fiemap` (linux/fiemap.h) with room for some extents.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more: [u32; 3],
}

/// Extents that are asked for at a time.
const EXTENTS: usize = 64;
const FS_IOC_FIEMAP: u32 = 0xc020_660b;
const EXTENT_LAST: u32 = 0x1;
const EXTENT_SHARED: u32 = 0x2000;

/// Bytes of disk that a file has for itself: what would be free without it. Where the file system does not say what it
/// shares, all it has.
///
/// # Errors
/// It cannot be looked at.
pub fn own_bytes(path: &Path) -> io::Result<u64> {
    let meta = std::fs::symlink_metadata(path)?;
    let allocated = meta.blocks() * 512;
    if !meta.is_file() {
        return Ok(allocated);
    }
    Ok(allocated.saturating_sub(shared(&File::open(path)?).unwrap_or(0)))
}

/// Bytes of a file whose blocks others have too.
fn shared(file: impl AsFd) -> Result<u64, Errno> {
    let (mut at, mut sum) = (0, 0);
    loop {
        let none = Extent {
            logical: 0,
            physical: 0,
            length: 0,
            reserved: [0; 2],
            flags: 0,
            more: [0; 3],
        };
        let mut map = Fiemap {
            start: at,
            length: u64::MAX - at,
            flags: 0,
            mapped: 0,
            count: u32::try_from(EXTENTS).unwrap_or(0),
            reserved: 0,
            extents: [none; EXTENTS],
        };
        // SAFETY: FS_IOC_FIEMAP reads a struct fiemap and writes it and as many extents as `count` says, all integers.
        unsafe { ioctl::change::<FS_IOC_FIEMAP, _>(&file, &mut map) }?;
        let mapped = map.extents.get(..map.mapped as usize).unwrap_or_default();
        sum += mapped
            .iter()
            .filter(|extent| extent.flags & EXTENT_SHARED != 0)
            .map(|extent| extent.length)
            .sum::<u64>();
        match mapped.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => at = last.logical + last.length,
            _ => return Ok(sum),
        }
    }
}
