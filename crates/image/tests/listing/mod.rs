//! Trees of this machine, with every attribute, to be compared.

use crate::archive::tool;
use crate::layout::digest;
use banger_testkit::skip;
use rustix::fs::{lgetxattr, llistxattr};
use std::{
    collections::BTreeMap,
    ffi::CStr,
    fs,
    os::unix::fs::MetadataExt,
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

/// Every path below a directory with all that is to be known of it, but for `lost+found`.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == "lost+found" {
                continue;
            }
            if meta.is_dir() {
                left.push(path.clone());
            }
            found.insert(name, told(&path, &meta));
        }
    }
    found
}

fn told(path: &Path, meta: &fs::Metadata) -> String {
    let mut told = format!(
        "mode {:o} owner {}:{} mtime {}.{:09} device {:x}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.rdev()
    );
    if !meta.is_dir() {
        told += &format!(" names {} size {}", meta.nlink(), meta.size());
    }
    if meta.is_symlink() {
        told += &format!(" to {:?}", fs::read_link(path).unwrap());
    }
    if meta.is_file() {
        told += &format!(" content {}", digest(&fs::read(path).unwrap()));
    }
    let mut names = vec![0; 64 << 10];
    let n = llistxattr(path, &mut names[..]).unwrap();
    let mut names: Vec<_> = names[..n].split_inclusive(|byte| *byte == 0).collect();
    names.sort_unstable();
    for name in names {
        let name = CStr::from_bytes_with_nul(name).unwrap();
        let mut value = vec![0; 64 << 10];
        let n = lgetxattr(path, name, &mut value[..]).unwrap();
        told += &format!(" {}={}", name.to_string_lossy(), value[..n].escape_ascii());
    }
    told
}
