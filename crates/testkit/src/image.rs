//! Images that have what the default one lacks: systemd as its init; Podman and an sshd; Docker. Made once, like the seed.

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

/// An image to make of Debian's packages.
struct Wanted {
    /// Its name in a home.
    name: &'static str,
    /// Its packages, besides the essential ones.
    packages: &'static str,
    /// What is done to its tree at the end, by the host's shell.
    change: &'static str,
    /// Size of its file system.
    size_mib: u64,
}

/// What a plain machine has that a container's image has not.
const SYSTEMD: Wanted = Wanted {
    name: "systemd",
    packages: "systemd-sysv,dbus,udev,libpam-systemd,procps,iproute2",
    change: FOREIGN,
    size_mib: 512,
};

/// Podman with what it wants of a machine, a static busybox to make containers of, and an sshd with the host keys that
/// its package makes.
const SERVERS: Wanted = Wanted {
    name: "servers",
    packages: "podman,crun,netavark,aardvark-dns,iptables,kmod,ca-certificates,busybox-static,procps,openssh-server",
    change: "",
    size_mib: 1024,
};

/// Docker with what it wants of a machine. Made for the tests that ask for it.
const DOCKER: Wanted = Wanted {
    name: "docker",
    packages: "docker.io,iptables,kmod,ca-certificates,busybox-static,procps",
    change: "",
    size_mib: 1024,
};

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

/// The directory of an image, shared by all test processes; why it cannot be made here, else.
fn seed(wanted: &Wanted) -> Result<PathBuf, String> {
    let name = wanted.name;
    let made = binaries().join(format!("testkit-seed-{name}"));
    fs::create_dir_all(&made).expect("the directory of the image");
    let lock = fs::File::create(made.join("lock")).expect("the image's lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the image's lock");
    let images = made.join("images");
    if !images.exists() {
        if !rustix::process::geteuid().is_root() {
            return Err(format!("making an image with {name} needs root"));
        }
        run(Command::new("mmdebstrap").arg("--version"))?;
        make(wanted, &made, &images).expect("an image of Debian's packages");
    }
    Ok(images)
}

/// Makes those that `./test` uses; a sentence for each that cannot be made here.
///
/// # Panics
/// If one cannot be made though nothing is missing.
pub fn image_seeds() -> Vec<String> {
    let seeds = [&SYSTEMD, &SERVERS].into_iter().map(seed);
    seeds.filter_map(Result::err).collect()
}

impl Home {
    /// Puts an image with systemd into the state directory and gives its name; why it cannot be made here, else.
    ///
    /// # Errors
    /// A right or the program to make it with is missing.
    ///
    /// # Panics
    /// If it cannot be made though nothing is missing.
    pub fn share_systemd_image(&self) -> Result<&'static str, String> {
        self.share_image(&SYSTEMD)
    }

    /// Puts an image with Podman and an sshd into the state directory and gives its name; why it cannot be made here, else.
    ///
    /// # Errors
    /// A right or the program to make it with is missing.
    ///
    /// # Panics
    /// If it cannot be made though nothing is missing.
    pub fn share_servers_image(&self) -> Result<&'static str, String> {
        self.share_image(&SERVERS)
    }

    /// Puts an image with Docker into the state directory and gives its name; why it cannot be made here, else.
    ///
    /// # Errors
    /// A right or the program to make it with is missing.
    ///
    /// # Panics
    /// If it cannot be made though nothing is missing.
    pub fn share_docker_image(&self) -> Result<&'static str, String> {
        self.share_image(&DOCKER)
    }

    fn share_image(&self, wanted: &Wanted) -> Result<&'static str, String> {
        let images = seed(wanted)?;
        link_tree(&images, &self.state().join("images")).expect("linking images");
        Ok(wanted.name)
    }
}

fn make(wanted: &Wanted, work: &Path, images: &Path) -> Result<(), String> {
    let stage = work.join("stage");
    let _ = fs::remove_dir_all(&stage);
    let (tree, image) = (stage.join("tree"), stage.join("images/0"));
    fs::create_dir_all(&image).map_err(|e| e.to_string())?;
    let (tree_text, rootfs) = (tree.display().to_string(), image.join("rootfs.ext4"));
    let rootfs_text = rootfs.display().to_string();
    run(Command::new("mmdebstrap").args([
        "--quiet",
        "--variant=minbase",
        &format!("--include={}", wanted.packages),
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        &tree_text,
    ]))?;
    run(Command::new("sh")
        .args(["-ec", wanted.change])
        .current_dir(&tree))?;
    let home = image.join("home.tar").display().to_string();
    run(Command::new("tar").args(["-C", &tree_text, "--numeric-owner", "-cf", &home, "root"]))?;
    run(Command::new("mke2fs").args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-d",
        &tree_text,
        &rootfs_text,
        &format!("{}M", wanted.size_mib),
    ]))?;
    let digest = run(Command::new("sha256sum").arg(&rootfs))?;
    let digest = digest.split(' ').next().unwrap_or_default();
    let id = &digest[..12];
    let manifest = serde_json::json!({
        "format": 1, "id": id, "name": wanted.name, "distro": "debian-bookworm", "arch": std::env::consts::ARCH,
        "digest": format!("sha256:{digest}"), "size": wanted.size_mib << 20, "created": 1, "kernel": null,
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
