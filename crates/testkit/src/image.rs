//! An image that has what the default one lacks: systemd as its init. Made once, like the seed.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests make images with the distribution's programs"
)]

use crate::home::link_tree;
use crate::{Home, binaries};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Its name in a home.
const NAME: &str = "systemd";
/// What a plain machine has that a container's image has not.
const PACKAGES: &str = "systemd-sysv,dbus,udev,libpam-systemd,procps,iproute2";

/// What is wrong with the image for a VM, so that it is seen that nothing waits for it: devices of another machine,
/// an id of nobody, and a manager of networks that wants to be asked.
const FOREIGN: &str = "
printf '%s\\n' 'UUID=11111111-2222-3333-4444-555555555555 / ext4 errors=remount-ro 0 1' \
    'LABEL=UEFI /boot/efi vfat umask=0077 0 1' '/dev/sdb1 /data ext4 defaults 0 2' \
    '/dev/sdc none swap sw 0 0' 'tmpfs /mnt tmpfs size=1M 0 0' >etc/fstab
rm -f etc/machine-id
units=etc/systemd/system lib=/lib/systemd/system
mkdir -p $units/multi-user.target.wants $units/network-online.target.wants etc/systemd/network
ln -sf $lib/systemd-networkd.service $units/multi-user.target.wants/
ln -sf $lib/systemd-networkd-wait-online.service $units/network-online.target.wants/
ln -sf $lib/network-online.target $units/multi-user.target.wants/
printf '%s\\n' '[Match]' 'Name=e*' '[Network]' 'DHCP=yes' >etc/systemd/network/10-dhcp.network
";

/// The directory of the image, shared by all test processes; why it cannot be made here, else.
///
/// # Errors
/// A right or the program to make it with is missing.
///
/// # Panics
/// If it cannot be made though nothing is missing.
pub fn systemd_seed() -> Result<PathBuf, String> {
    let made = binaries().join("testkit-seed-systemd");
    fs::create_dir_all(&made).expect("the directory of the image");
    let lock = fs::File::create(made.join("lock")).expect("the image's lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the image's lock");
    let images = made.join("images");
    if !images.exists() {
        if !rustix::process::geteuid().is_root() {
            return Err("making an image with systemd needs root".to_owned());
        }
        run(Command::new("mmdebstrap").arg("--version"))?;
        make(&made, &images).expect("an image with systemd");
    }
    Ok(images)
}

impl Home {
    /// Puts the image into the state directory and gives its name; why it cannot be made here, else.
    ///
    /// # Errors
    /// A right or the program to make it with is missing.
    ///
    /// # Panics
    /// If it cannot be made though nothing is missing.
    pub fn share_systemd_image(&self) -> Result<&'static str, String> {
        let images = systemd_seed()?;
        link_tree(&images, &self.state().join("images")).expect("linking images");
        Ok(NAME)
    }
}

fn make(work: &Path, images: &Path) -> Result<(), String> {
    let stage = work.join("stage");
    let _ = fs::remove_dir_all(&stage);
    let (tree, image) = (stage.join("tree"), stage.join("images/0"));
    fs::create_dir_all(image.join("home")).map_err(|e| e.to_string())?;
    let (tree_text, rootfs) = (tree.display().to_string(), image.join("rootfs.ext4"));
    let rootfs_text = rootfs.display().to_string();
    run(Command::new("mmdebstrap").args([
        "--quiet",
        "--variant=minbase",
        &format!("--include={PACKAGES}"),
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        &tree_text,
    ]))?;
    run(Command::new("sh").args(["-ec", FOREIGN]).current_dir(&tree))?;
    let home = image.join("home/root");
    fs::rename(tree.join("root"), home).map_err(|e| e.to_string())?;
    fs::create_dir(tree.join("root")).map_err(|e| e.to_string())?;
    run(Command::new("mke2fs").args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-d",
        &tree_text,
        &rootfs_text,
        "512M",
    ]))?;
    let digest = run(Command::new("sha256sum").arg(&rootfs))?;
    let digest = digest.split(' ').next().unwrap_or_default();
    let id = &digest[..12];
    let manifest = serde_json::json!({
        "format": 1, "id": id, "name": NAME, "distro": "debian-bookworm", "arch": std::env::consts::ARCH,
        "digest": format!("sha256:{digest}"), "size": 512 << 20, "created": 1, "kernel": null,
    });
    let text = manifest.to_string();
    fs::write(image.join("manifest.json"), text).map_err(|e| e.to_string())?;
    fs::rename(&image, image.with_file_name(id)).map_err(|e| e.to_string())?;
    fs::rename(stage.join("images"), images).map_err(|e| e.to_string())?;
    fs::remove_dir_all(&stage).map_err(|e| e.to_string())
}

fn run(command: &mut Command) -> Result<String, String> {
    let text = format!("{:?}", command.get_program());
    let output = command.output().map_err(|e| format!("{text}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{text}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
