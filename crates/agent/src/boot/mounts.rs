//! Mounting, moving and, at the end, making read-only.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move, mount_remount};

use super::Reason;
use crate::console::say;

/// File systems on disks, in the order in which they are to be made read-only. Held open because some of them
/// have no path any more once the root is entered.
static ON_DISK: Mutex<Vec<(String, OwnedFd)>> = Mutex::new(Vec::new());
/// Where the work disk is mounted once the root is entered.
const HOME: &str = "/root";

/// The kernel's own file systems in the initramfs.
pub fn kernel_filesystems() -> Result<(), Reason> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    virtual_fs("proc", "/proc", safe, c"")?;
    virtual_fs("sysfs", "/sys", safe, c"")?;
    virtual_fs("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755")
}

/// Mounts a file system that has no device; already being there (the kernel mounts devtmpfs by itself if
/// configured so) is fine.
pub fn virtual_fs(kind: &str, at: &str, flags: MountFlags, data: &CStr) -> Result<(), Reason> {
    make_dir(Path::new(at), 0o755)?;
    match mount(kind, at, kind, flags, data) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(format!("{kind} cannot be mounted at {at}: {error}")),
    }
}

/// Mounts an ext4 disk.
pub fn ext4(device: &Path, at: &str, flags: MountFlags, data: &CStr) -> Result<(), Reason> {
    make_dir(Path::new(at), 0o755)?;
    mount(device, at, "ext4", flags, data).map_err(|error| {
        format!(
            "{} cannot be mounted at {at} as ext4: {error}",
            device.display()
        )
    })
}

/// Moves a mount to the directory of the same name in the new root.
pub fn move_into(new_root: &str, at: &str) -> Result<(), Reason> {
    let target = format!("{new_root}{at}");
    make_dir(Path::new(&target), 0o755)?;
    mount_move(at, &*target).map_err(|error| format!("{at} cannot be moved to {target}: {error}"))
}

/// Makes a directory and those above it, if it is not there.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), Reason> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| format!("directory {} cannot be made: {error}", path.display()))
}

/// Remembers a file system that is on a disk. Call in the order in which they are to be made read-only.
pub fn on_disk(at: &str) -> Result<(), Reason> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, at, flags, Mode::empty())
        .map_err(|error| format!("{at} cannot be opened: {error}"))?;
    if let Ok(mut list) = ON_DISK.lock() {
        list.push((at.to_owned(), fd));
    }
    Ok(())
}

/// One of them, remembered under this path.
pub fn remembered(at: &str) -> Option<OwnedFd> {
    let list = ON_DISK.lock().ok()?;
    let (_, fd) = list.iter().find(|(path, _)| path == at)?;
    fd.try_clone().ok()
}

/// Lets go of the work disk, so that the image's init can unmount it.
pub fn release_home() {
    if let Ok(mut list) = ON_DISK.lock() {
        list.retain(|(at, _)| !at.ends_with(HOME));
    }
}

/// Makes the file systems on disks read-only, so that they are clean at the next boot. A failure loses nothing,
/// because everything is synced besides; it costs a journal replay.
pub fn make_read_only() {
    let Ok(list) = ON_DISK.lock() else { return };
    if !list.iter().any(|(at, _)| at.ends_with(HOME)) {
        // Released, and perhaps unmounted: nothing is lost if this fails.
        let _ = mount_remount(HOME, MountFlags::RDONLY, c"");
    }
    for (_, fd) in list.iter() {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Err(error) = mount_remount(&*path, MountFlags::RDONLY, c"") {
            say(&format!(
                "a disk cannot be made read-only before power-off: {error}"
            ));
        }
    }
}
