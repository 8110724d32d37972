//! Making the test host's root disk, kernel and initramfs from Debian's packages, once for each recipe.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run;

/// The release whose packages the host is made of.
const SUITE: &str = "bookworm";

/// What is on the host, besides Debian's essential packages and the kernel with its modules.
const PACKAGES: [&str; 22] = [
    "busybox-static", // the initramfs's only program
    "ca-certificates",
    "cpio",              // makes the initramfs
    "curl",              // talks to Unix sockets by hand
    "dbus-user-session", // the bus by which a service manager is asked
    "dmsetup",
    "e2fsprogs",
    "erofs-utils",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "psmisc",          // fuser: who holds a device
    "qemu-system-x86", // VMs inside
    "socat",
    "strace",
    "systemd", // a service manager for the test that wants one; process 1 is our own
    "udev",    // device-mapper's nodes
    "util-linux",
    "xfsprogs", // and another
];

/// Left out of every package, for the size.
const EXCLUDED: [&str; 3] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
];

/// Seconds that mmdebstrap may take; a minute is usual.
const BUILD_SECONDS: u32 = 1200;

/// A host that was built.
#[derive(Debug)]
pub struct TestHost {
    /// Its directory in the cache: `root.ext4`, `vmlinuz`, `initrd.cpio`.
    pub dir: PathBuf,
}

/// The test host of the current recipe, from the cache or built now.
///
/// # Errors
/// When it is not there and this is not root, or a package or a tool is missing, or a step fails.
pub fn ensure(root: &Path) -> Result<TestHost, String> {
    let recipe = root.join("xtask/testhost");
    let dir = cache()?.join(key(&recipe)?);
    if !dir.join("root.ext4").exists() {
        let began = Instant::now();
        eprintln!(
            "==> building the test host (once, about a minute): {}",
            dir.display()
        );
        let stage = dir.with_extension(format!("new.{}", std::process::id()));
        let built = build(root, &recipe, &stage).and_then(|()| publish(&stage, &dir));
        if built.is_err() {
            // The cause is what counts; what stays behind is a cache entry nobody reads.
            let _ = std::fs::remove_dir_all(&stage);
        }
        built?;
        eprintln!("==> test host built in {} s", began.elapsed().as_secs());
    }
    Ok(TestHost { dir })
}

/// `${XDG_CACHE_HOME:-~/.cache}/banger/testhost-v1`, made if it is not there.
fn cache() -> Result<PathBuf, String> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(std::env::var_os("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache")
        }
    };
    let dir = base.join("banger/testhost-v1");
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    Ok(dir)
}

/// Names a recipe by all that goes into it.
fn key(recipe: &Path) -> Result<String, String> {
    let mut text = format!("{SUITE} {} {}", PACKAGES.join(" "), EXCLUDED.join(" "));
    for file in ["build-hook", "initramfs-init", "init"] {
        let path = recipe.join(file);
        text += &std::fs::read_to_string(&path)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    }
    Ok(format!("{:016x}", fnv(text.as_bytes())))
}

/// FNV-1a, 64 bits: a name that stays the same from one toolchain to the next.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Everything into `stage`: the root directory by mmdebstrap (with kernel and initramfs by its hook), then
/// the disk made of it.
fn build(root: &Path, recipe: &Path, stage: &Path) -> Result<(), String> {
    if run::output(root, "id", &["-u"])?.trim() != "0" {
        return Err("building the test host needs root (mmdebstrap makes device nodes and foreign owners); run: sudo cargo xtask testhost build".to_owned());
    }
    std::fs::create_dir_all(stage).map_err(|e| format!("cannot make {}: {e}", stage.display()))?;
    let tree = stage.join("root");
    let mut mmdebstrap = run::command("timeout");
    mmdebstrap
        .args([
            "--kill-after=30",
            &BUILD_SECONDS.to_string(),
            "mmdebstrap",
            "--quiet",
            "--mode=auto",
            "--variant=minbase",
        ])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(EXCLUDED.map(|e| format!("--dpkgopt=path-exclude={e}")))
        .arg(format!(
            "--customize-hook={}",
            recipe.join("build-hook").display()
        ))
        .arg(SUITE)
        .arg(&tree)
        .env("TESTHOST_OUT", stage)
        .env("TESTHOST_SRC", recipe);
    run::to_end(mmdebstrap, "mmdebstrap")?;
    // Room for the tests' own disks; each run writes to a copy that is thrown away.
    run::ext4(&tree, &stage.join("root.ext4"), "6G", "testhost")?;
    std::fs::remove_dir_all(&tree).map_err(|e| format!("cannot remove {}: {e}", tree.display()))
}

/// The stage under its final name; another build that was quicker is as good.
fn publish(stage: &Path, dir: &Path) -> Result<(), String> {
    match std::fs::rename(stage, dir) {
        Ok(()) => Ok(()),
        Err(_) if dir.join("root.ext4").exists() => std::fs::remove_dir_all(stage)
            .map_err(|e| format!("cannot remove {}: {e}", stage.display())),
        Err(e) => Err(format!(
            "cannot rename {} to {}: {e}",
            stage.display(),
            dir.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_known_hash_and_follows_the_recipe() {
        // The published test vector of FNV-1a.
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("testhost");
        assert_eq!(key(&recipe), key(&recipe));
        assert!(key(Path::new("/nonexistent")).is_err());
    }
}
