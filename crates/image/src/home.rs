//! The copy of an image's `/root` that work disks start from.

use crate::error::Doing;
use crate::{Error, Result};
use banger_host::Files;
use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Whether all in the directory belongs to root, here as in the guest. What a user without rights has copied here
/// belongs to that user, and a file system made of it would say so in the guest.
///
/// # Errors
/// The directory is there and cannot be read.
pub(crate) fn is_roots(dir: &Path) -> Result<bool> {
    let mut all = true;
    let mut look = |_: &Path, meta: &Metadata| {
        all &= meta.uid() == 0 && meta.gid() == 0;
        Ok(())
    };
    match fs::symlink_metadata(dir) {
        Ok(_) => walk(dir, &mut look)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(dir, error)),
    }
    Ok(all)
}

/// Makes files and directories durable.
///
/// # Errors
/// Something cannot be read, or the system refuses.
pub(crate) fn sync<H: Files + ?Sized>(host: &H, dir: &Path) -> Result<()> {
    walk(dir, &mut |path, meta| {
        let synced = if meta.is_dir() {
            host.sync_dir(path)
        } else if meta.is_file() {
            host.sync_file(path)
        } else {
            Ok(())
        };
        synced.doing("make the image's /root durable")
    })
}

/// Bytes allocated for a directory and everything below it; what cannot be read counts nothing.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    let mut bytes = 0;
    let _ = walk(dir, &mut |_, meta| {
        bytes += meta.blocks() * 512;
        Ok(())
    });
    bytes
}

/// Calls for the directory and everything below it; symlinks are not followed.
fn walk(dir: &Path, call: &mut dyn FnMut(&Path, &Metadata) -> Result<()>) -> Result<()> {
    let meta = fs::symlink_metadata(dir).map_err(|e| unreadable(dir, e))?;
    call(dir, &meta)?;
    if !meta.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
        walk(&entry.map_err(|e| unreadable(dir, e))?.path(), call)?;
    }
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}
