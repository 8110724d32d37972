//! Places of container engines under a root that is an overlay.
//!
//! An engine keeps its images as overlays of its own, and the kernel refuses an overlay whose upper directory lies on
//! another one. So the directories where engines keep them are bound from the disk below, which is an ordinary ext4.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use banger_wire::guest::disks::{ENGINE_PLACES, ENGINES};
use rustix::mount::mount_bind;

use super::work::copy;
use super::{Reason, mounts};

/// Binds the places in the root that was entered; `disk` is the root of the disk for changes. Gives a sentence for each
/// that failed.
pub fn mount(disk: BorrowedFd<'_>) -> Vec<Reason> {
    // An image without it has no engine, and no way to get one.
    if !Path::new("/var/lib").is_dir() {
        return Vec::new();
    }
    let disk = format!("/proc/self/fd/{}/{ENGINES}", disk.as_raw_fd());
    let bind = |place: &&str| bind(&disk, place).err();
    ENGINE_PLACES.iter().filter_map(bind).collect()
}

fn bind(disk: &str, place: &str) -> Result<(), Reason> {
    let name = place.rsplit('/').next().unwrap_or(place);
    let source = format!("{disk}/{name}");
    let failed = |error: io::Error| format!("{place} cannot be bound from the disk: {error}");
    if !Path::new(&source).is_dir() {
        match is_bare(Path::new(place)) {
            Ok(true) => {}
            // An image with content of an engine keeps it as it is: copying it may take gigabytes.
            Ok(false) => {
                return Err(format!(
                    "{place} has content of the image and stays on the overlay, on which its engine may not work"
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        begin(disk, &source, Path::new(place)).map_err(failed)?;
    }
    mounts::make_dir(Path::new(place), 0o711)?;
    mount_bind(&*source, place).map_err(|error| failed(error.into()))
}

/// Whether there is nothing but directories.
fn is_bare(dir: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !is_bare(&entry.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the directory on the disk, with the directories that the image has there. It gets its name when it is whole.
fn begin(disk: &str, source: &str, place: &Path) -> io::Result<()> {
    std::fs::create_dir_all(disk)?;
    let new = format!("{source}.new");
    match std::fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match std::fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => copy(place, Path::new(&new), &metadata)?,
        _ => std::fs::create_dir(&new)?,
    }
    std::fs::rename(&new, source)
}
