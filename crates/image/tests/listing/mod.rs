//! File systems looked at by mounting them.

use crate::archive::tool;
pub use banger_testkit::listing;
use banger_testkit::skip;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether file systems can be mounted here.
pub fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("mounting needs root");
    }
    root
}

/// Whether programs are installed.
pub fn has(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there =
        |program: &&&str| std::env::split_paths(&paths).any(|dir| dir.join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|p| !there(p)).collect();
    if !missing.is_empty() {
        skip(&format!("{missing:?} not installed"));
    }
    missing.is_empty()
}

/// A file system, looked at.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(image: &Path, at: &Path) -> Mounted {
        fs::create_dir(at).unwrap();
        let options = ["-t", "ext4", "-o", "loop,ro,noload"].map(Path::new);
        tool("mount", &[&options[..], &[image, at]].concat());
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &[&self.0]);
    }
}
