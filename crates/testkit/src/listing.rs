//! Trees of this machine, with every attribute, to be compared.

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ffi::CStr, fs, io, os::unix::fs::MetadataExt, path::Path};

/// Every path below a directory with all that is to be known of it, but for `lost+found`.
///
/// # Panics
/// Where something cannot be read.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("a tree that can be read") {
            let path = entry.expect("a tree that can be read").path();
            let meta = fs::symlink_metadata(&path).expect("a tree that can be read");
            let name = path
                .strip_prefix(root)
                .expect("a tree that can be read")
                .display()
                .to_string();
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
        told += &format!(
            " to {:?}",
            fs::read_link(path).expect("a tree that can be read")
        );
    }
    if meta.is_file() {
        told += &format!(" content {}", sha256(path));
    }
    let mut names = vec![0; 64 << 10];
    let n = llistxattr(path, &mut names[..]).expect("a tree that can be read");
    let mut names: Vec<_> = names[..n].split_inclusive(|byte| *byte == 0).collect();
    names.sort_unstable();
    for name in names {
        let name = CStr::from_bytes_with_nul(name).expect("a tree that can be read");
        let mut value = vec![0; 64 << 10];
        let n = lgetxattr(path, name, &mut value[..]).expect("a tree that can be read");
        told += &format!(" {}={}", name.to_string_lossy(), value[..n].escape_ascii());
    }
    told
}

fn sha256(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).expect("a file that can be read");
    io::copy(&mut file, &mut hash).expect("a file that can be read");
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
