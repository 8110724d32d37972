//! Jail directories and cgroups. Their names are labels with '.' for '/', so a directory listing is
//! all the bookkeeping there is.

use super::{LinuxHost, fail};
use crate::{Effect, Error, ErrorKind, Jails, effects::Result};
use banger_model::Label;
use rustix::fs::{CWD, Mode, OFlags, statfs};
use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
};

/// `f_type` of cgroup v2 (linux/magic.h).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// The directory name of a label.
fn dir_name(label: &Label) -> String {
    label.to_string().replace('/', ".")
}

/// The label a directory name stands for.
fn label_of(name: &str) -> Option<Label> {
    name.replace('.', "/").parse().ok()
}

/// Labels of the directories in `root`; none if there is no such directory.
fn labelled(root: &Path) -> Result<Vec<Label>> {
    let error = |e| fail(Effect::JailList, "list", root, e);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error(e)),
    };
    let mut labels = Vec::new();
    for entry in entries {
        let entry = entry.map_err(error)?;
        if entry.file_type().map_err(error)?.is_dir() {
            labels.extend(entry.file_name().to_str().and_then(label_of));
        }
    }
    labels.sort_unstable();
    Ok(labels)
}

/// A mount point at or below `dir` as this thread sees it (mountinfo in proc(5): field 5, with octal
/// escapes).
fn mounted_below(dir: &Path) -> Result<Option<PathBuf>> {
    let Ok(real) = fs::canonicalize(dir) else {
        return Ok(None); // not there; removing it says so
    };
    let table = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read(table).map_err(|e| fail(Effect::JailRemove, "read", table, e))?;
    Ok(text
        .split(|&b| b == b'\n')
        .filter_map(|line| line.split(|&b| b == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
        .find(|mount| mount.starts_with(&real)))
}

/// A field of mountinfo: blank, tab, newline and backslash stand there as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = match code {
            Some(_) => &tail[3..],
            None => tail,
        };
    }
    bytes
}

impl LinuxHost {
    /// The cgroup's directory; `NoDevice` where our root is not on cgroup v2.
    fn cgroup_dir(&self, effect: Effect, label: &Label) -> Result<PathBuf> {
        let root = &self.config.cgroup_root;
        // The field's width differs between architectures; the magic has 32 bits.
        if statfs(root).is_ok_and(|seen| (seen.f_type as u64) & 0xffff_ffff == CGROUP2_SUPER_MAGIC)
        {
            return Ok(root.join(dir_name(label)));
        }
        Err(Error::new(
            effect,
            "use the cgroup",
            label.to_string(),
            ErrorKind::NoDevice,
            format!("{} is no cgroup v2 directory", root.display()),
        ))
    }

    /// `cgroup.procs` of a cgroup of ours, open for writing.
    pub(super) fn open_cgroup(&self, label: &Label) -> Result<OwnedFd> {
        let procs = self.cgroup_dir(Effect::Spawn, label)?.join("cgroup.procs");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &procs, flags, Mode::empty())
            .map_err(|e| fail(Effect::Spawn, "open", &procs, e))
    }
}

impl Jails for LinuxHost {
    fn jails(&self) -> Result<Vec<Label>> {
        labelled(&self.config.jail_root)
    }

    fn jail_create(&self, label: &Label) -> Result<()> {
        let dir = self.config.jail_root.join(dir_name(label));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|e| fail(Effect::JailCreate, "make the jail", &dir, e))
    }

    fn jail_remove(&self, label: &Label) -> Result<()> {
        let dir = self.config.jail_root.join(dir_name(label));
        // Removing would descend into what is mounted there and empty it: perhaps a user's disk.
        if let Some(mount) = mounted_below(&dir)? {
            return Err(Error::new(
                Effect::JailRemove,
                "remove the jail",
                dir.display().to_string(),
                ErrorKind::Busy,
                format!("something is mounted at {}", mount.display()),
            ));
        }
        // Follows no symlink.
        fs::remove_dir_all(&dir).map_err(|e| fail(Effect::JailRemove, "remove the jail", &dir, e))
    }

    fn cgroups(&self) -> Result<Vec<Label>> {
        labelled(&self.config.cgroup_root)
    }

    fn cgroup_create(&self, label: &Label) -> Result<()> {
        let dir = self.cgroup_dir(Effect::CgroupCreate, label)?;
        fs::create_dir(&dir).map_err(|e| fail(Effect::CgroupCreate, "make the cgroup", &dir, e))
    }

    fn cgroup_remove(&self, label: &Label) -> Result<()> {
        let dir = self.cgroup_dir(Effect::CgroupRemove, label)?;
        fs::remove_dir(&dir).map_err(|e| fail(Effect::CgroupRemove, "remove the cgroup", &dir, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read_back() {
        assert_eq!(unescaped(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescaped(br"/end\04"), br"/end\04");
    }
}
