//! The kernel's modules for `modprobe`, from a disk that all VMs with this kernel share.

use std::path::Path;

use banger_wire::guest::disks::MODULES;
use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use rustix::mount::MountFlags;

use super::{Reason, disks, mounts};

/// Mounts the disk at `/lib/modules/<release>` of the root that was entered, wherever `/lib` leads; not where the image
/// has modules of this very kernel, nor in an image without `/lib`, which has nothing that would load them.
pub fn mount(serial: &str) -> Result<(), Reason> {
    let system = rustix::system::uname();
    let at = format!("{MODULES}/{}", system.release().to_string_lossy());
    let has_own = std::fs::read_dir(&at).is_ok_and(|mut entries| entries.next().is_some());
    if !has_own && Path::new("/lib").is_dir() {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mounts::ext4(&disks::find(serial)?, &at, flags, c"noload")?;
    }
    make_nodes(&std::fs::read_to_string(format!("{at}/modules.devname")).unwrap_or_default());
    Ok(())
}

/// Makes the device nodes whose modules are loaded when they are first opened (`modules.devname`: module, node,
/// `c10:200`), as systemd would: `/dev/fuse`, `/dev/net/tun`. One that cannot be made is one that the module will make.
fn make_nodes(list: &str) {
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        if let [_, name, device] = line.split(' ').collect::<Vec<_>>()[..]
            && let Some((kind, major, minor)) = numbers(device)
        {
            let path = Path::new("/dev").join(name);
            if let Some(directory) = path.parent() {
                let _ = mounts::make_dir(directory, 0o755);
            }
            let mode = Mode::from_raw_mode(0o600);
            // What is there already is the kernel's own.
            let _ = mknodat(CWD, &path, kind, mode, makedev(major, minor));
        }
    }
}

/// Opens the nodes that everybody may use, as udev's rules do, whether a module is behind them or the kernel itself.
pub fn open_nodes() {
    for node in ["/dev/fuse", "/dev/net/tun"] {
        let _ = chmod(node, Mode::from_raw_mode(0o666));
    }
}

fn numbers(device: &str) -> Option<(FileType, u32, u32)> {
    let (kind, rest) = match device.split_at_checked(1)? {
        ("c", rest) => (FileType::CharacterDevice, rest),
        ("b", rest) => (FileType::BlockDevice, rest),
        _ => return None,
    };
    let (major, minor) = rest.split_once(':')?;
    Some((kind, major.parse().ok()?, minor.parse().ok()?))
}
