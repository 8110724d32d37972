//! The work disk: `/root` of the guest, a copy of the image's `/root`.
//!
//! As a rule the disk comes with the copy in it; where the host could not make one, it is filled here, once.
//! The disk's directory `root` is what is mounted at `/root`; a copy under way is called `root.new`. The name
//! `root` is given when the whole copy is on the disk, so a copy is made exactly once, and one that was cut off is
//! made anew. The name itself is not synced: the journal keeps the order of changes, so that whatever is synced below
//! it brings it along, and a machine that dies before finds an untouched copy to make anew.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr,
    mknodat, syncfs, utimensat,
};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};
use rustix::time::Timespec;

use super::{Reason, mounts};

const STAGE: &str = "/work";
const FILLED: &str = "/work/root";
const FILLING: &str = "/work/root.new";

/// Fills the disk if that has not been done, and mounts it at `/root` of the new root, which is given back.
pub fn mount(device: &Path, new_root: &str) -> Result<String, Reason> {
    mounts::ext4(device, STAGE, MountFlags::empty(), c"")?;
    let home = format!("{new_root}/root");
    if !Path::new(FILLED).is_dir() {
        fill(Path::new(&home)).map_err(|error| {
            format!("the image's /root cannot be copied to the work disk: {error}")
        })?;
    }
    own(Path::new(FILLED)).map_err(|error| format!("the work disk cannot be root's: {error}"))?;
    mounts::make_dir(Path::new(&home), 0o755)?;
    mount_bind(FILLED, &*home).map_err(|error| format!("/root cannot be mounted: {error}"))?;
    unmount(STAGE, UnmountFlags::empty())
        .map_err(|error| format!("the work disk cannot be taken from {STAGE}: {error}"))?;
    mounts::on_disk(&home)?;
    Ok(home)
}

/// root:root 0755 at every mount, whatever was done to it before.
fn own(path: &Path) -> io::Result<()> {
    lchown(path, Some(0), Some(0))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn fill(from: &Path) -> io::Result<()> {
    if fs::symlink_metadata(FILLING).is_ok() {
        fs::remove_dir_all(FILLING)?;
    }
    match fs::symlink_metadata(from) {
        Ok(metadata) if metadata.is_dir() => copy(from, Path::new(FILLING), &metadata)?,
        _ => fs::create_dir(FILLING)?,
    }
    syncfs(&fs::File::open(STAGE)?)?;
    fs::rename(FILLING, FILLED)
}

/// Copies one entry with all below it: content, owner, mode, extended attributes, times. Hard links become files
/// of their own.
pub fn copy(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(
                &entry.path(),
                &to.join(entry.file_name()),
                &entry.metadata()?,
            )?;
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        let mut source = fs::File::open(from)?;
        let mut target = fs::File::create_new(to)?;
        io::copy(&mut source, &mut target)?;
        fchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
    } else if kind.is_fifo() {
        mknodat(
            CWD,
            to,
            FileType::Fifo,
            Mode::from_raw_mode(metadata.mode()),
            0,
        )?;
    } else {
        // Sockets are dead without their process, and device nodes have no business in a home.
        return Ok(());
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !kind.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    copy_attributes(from, to)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    // Most files have none, and a buffer for all that there may be is many pages.
    let mut names = match llistxattr(from, &mut [0_u8; 0][..]) {
        Ok(0) => return Ok(()),
        Ok(length) => vec![0_u8; length],
        // A file system without attributes.
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let length = llistxattr(from, &mut names[..])?;
    let mut value = Vec::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        // The overlay's own notes mean nothing elsewhere.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        value.resize(64 * 1024, 0);
        let length = lgetxattr(from, name, &mut value[..])?;
        lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
