//! Making the root file system and stepping into it.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use banger_wire::guest::disks::UPPER;
use banger_wire::guest::{BootFacts, Init, Root};
use rustix::mount::{MountFlags, mount, mount_move};

use super::{Reason, disks, engines, grow, identity, library, mounts, ssh, work};

const BASE: &str = "/base";
const OVERLAY: &str = "/overlay";
const NEW_ROOT: &str = "/root-fs";

/// What could be done without writing to any disk.
#[derive(Debug)]
pub enum Prepared {
    /// The base is mounted; the disk for changes is found.
    Overlay {
        /// Device of the disk for changes.
        changes: PathBuf,
    },
    /// The root disk is found.
    Disk {
        /// Its device.
        device: PathBuf,
    },
}

/// Finds the disks and mounts the base; touches no disk in a way that writes.
pub fn prepare(root: &Root) -> Result<Prepared, Reason> {
    make_terminals()?;
    match root {
        Root::Overlay { base, overlay } => {
            let base = disks::find(base)?;
            // `noload`: the base is shared and never written, not even to replay its journal.
            mounts::ext4(&base, BASE, MountFlags::RDONLY, c"noload")?;
            Ok(Prepared::Overlay {
                changes: disks::find(overlay)?,
            })
        }
        Root::Disk { serial } => Ok(Prepared::Disk {
            device: disks::find(serial)?,
        }),
    }
}

/// Mounts what is written to and makes it the root of this process and all its children. Gives sentences about
/// what failed without making the guest unusable. `before_switch` runs before `/proc`, `/sys` and `/dev` move, and
/// returns when nobody looks at them any more.
pub fn enter(
    prepared: Prepared,
    facts: &BootFacts,
    before_switch: impl FnOnce(),
) -> Result<Vec<String>, Reason> {
    let is_overlay = matches!(prepared, Prepared::Overlay { .. });
    let mut warnings = Vec::new();
    match prepared {
        Prepared::Overlay { changes } => {
            overlay(&changes)?;
            warnings.extend(grow::to_its_disk(&changes, OVERLAY));
        }
        Prepared::Disk { device } => {
            // A disk that was grown on the host has inode tables that are zero, because its file has holes there: the
            // kernel is not to write zeroes into them.
            let options = c"noinit_itable";
            mounts::ext4(&device, NEW_ROOT, MountFlags::empty(), options)?;
            warnings.extend(grow::to_its_disk(&device, NEW_ROOT));
        }
    }
    if let Some(serial) = &facts.work {
        let device = disks::find(serial)?;
        let home = work::mount(&device, NEW_ROOT)?;
        warnings.extend(grow::to_its_disk(&device, &home));
    }
    mounts::on_disk(NEW_ROOT)?;
    if is_overlay {
        mounts::on_disk(OVERLAY)?;
    }
    before_switch();
    for at in ["/proc", "/sys", "/dev"] {
        mounts::move_into(NEW_ROOT, at)?;
    }
    switch()?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mounts::virtual_fs("tmpfs", "/run", quiet, c"mode=0755")?;
    mounts::make_dir(Path::new("/tmp"), 0o1777)?;
    warnings.extend(identity::write_files(facts));
    warnings.extend(facts.ssh.iter().flat_map(ssh::prepare));
    warnings.extend(
        facts
            .modules
            .as_deref()
            .and_then(|s| library::mount(s).err()),
    );
    library::open_nodes();
    if let Some(disk) = mounts::remembered(OVERLAY) {
        warnings.extend(engines::mount(disk.as_fd()));
    }
    if facts.init == Init::Agent {
        // Containers want control groups; an init of the image mounts them as it likes.
        let none = quiet | MountFlags::NOEXEC;
        warnings.extend(mounts::virtual_fs("cgroup2", "/sys/fs/cgroup", none, c"nsdelegate").err());
    }
    Ok(warnings)
}

/// The base below, the disk with the changes above. `redirect_dir` lets a directory of the base be renamed;
/// without `metacopy` and `index` the upper directory can be read by other tools and survives a copied base.
fn overlay(changes: &Path) -> Result<(), Reason> {
    mounts::ext4(changes, OVERLAY, MountFlags::NOATIME, c"")?;
    for directory in [UPPER, "work"] {
        mounts::make_dir(&Path::new(OVERLAY).join(directory), 0o755)?;
    }
    mounts::make_dir(Path::new(NEW_ROOT), 0o755)?;
    let options =
        c"lowerdir=/base,upperdir=/overlay/upper,workdir=/overlay/work,redirect_dir=on,metacopy=off,index=off";
    mount("overlay", NEW_ROOT, "overlay", MountFlags::empty(), options).map_err(|error| {
        format!("the overlay of base and changes cannot be mounted (is the module overlay loaded?): {error}")
    })
}

/// Terminals and shared memory; `/dev/fd` and its like, which devtmpfs does not have.
fn make_terminals() -> Result<(), Reason> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::virtual_fs("devpts", "/dev/pts", quiet, c"mode=620,ptmxmode=666,gid=5")?;
    let shared = MountFlags::NOSUID | MountFlags::NODEV;
    mounts::virtual_fs("tmpfs", "/dev/shm", shared, c"mode=1777")?;
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        // A kernel or an earlier run may have made it.
        let _ = std::os::unix::fs::symlink(target, name);
    }
    Ok(())
}

/// The new root becomes the root of the mount tree, for this thread's whole process.
fn switch() -> Result<(), Reason> {
    let failed =
        |what: &str, error: rustix::io::Errno| format!("{what} the new root failed: {error}");
    rustix::process::chdir(NEW_ROOT).map_err(|error| failed("entering", error))?;
    mount_move(".", "/").map_err(|error| failed("moving", error))?;
    rustix::process::chroot(".").map_err(|error| failed("changing to", error))?;
    rustix::process::chdir("/").map_err(|error| failed("entering", error))
}
