//! Files and directories.

use super::{LinuxHost, disk_copy, fail, sharing};
use crate::{DiskRecipe, Effect, Error, FileKind, FileSeen, Files, effects::Result};
use banger_model::ByteSize;
use rustix::io::Errno;
use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Opens a file of ours for writing: made with mode 0600, emptied, never through a symlink.
fn create(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Opens a template; not what is no file (a directory opens for reading, and has a length), and not
/// the disk to be made of it.
fn open_template(template: &Path, disk: &Path) -> std::io::Result<fs::File> {
    let from = fs::File::open(template)?;
    let meta = from.metadata()?;
    let itself = fs::symlink_metadata(disk)
        .is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()));
    match (meta.is_file(), itself) {
        (true, false) => Ok(from),
        (false, _) => Err(ErrorKind::IsADirectory.into()),
        (true, true) => Err(std::io::Error::other("a disk is no template of itself")),
    }
}

/// Makes the disk share the blocks of the template, or says why it cannot.
fn clone(from: &fs::File, template: &Path, disk: &Path) -> Result<()> {
    const WHAT: &str = "make the disk";
    let to = create(disk).map_err(|e| fail(Effect::MakeDisk, WHAT, disk, e))?;
    sharing::share(from, &to).map_err(|errno| match sharing::refusal(errno, template, disk) {
        Some(why) => {
            let (kind, target) = (crate::ErrorKind::Unsupported, disk.display().to_string());
            Error::new(Effect::MakeDisk, WHAT, target, kind, why)
        }
        None => fail(Effect::MakeDisk, WHAT, disk, errno),
    })
}

impl Files for LinuxHost {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(fail(Effect::Read, "read", path, e)),
        }
    }

    fn stat(&self, path: &Path) -> Result<Option<FileSeen>> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(Effect::Read, "look at", path, e)),
        };
        let kind = match meta.file_type() {
            t if t.is_file() => FileKind::File,
            t if t.is_dir() => FileKind::Dir,
            t if t.is_symlink() => FileKind::Symlink,
            t if t.is_socket() => FileKind::Socket,
            _ => FileKind::Other,
        };
        Ok(Some(FileSeen {
            kind,
            len: meta.len(),
        }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let error = |e| fail(Effect::List, "list the directory", dir, e);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(error(e)),
        };
        let mut names = entries
            .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(error)?;
        names.sort_unstable();
        Ok(names)
    }

    fn mkdir(&self, dir: &Path) -> Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .map_err(|e| fail(Effect::Mkdir, "make the directory", dir, e))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        create(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|e| fail(Effect::WriteFile, "write", path, e))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        // fsync needs no write access; opening read-only works on files of any mode we make.
        fs::File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|e| fail(Effect::SyncFile, "bring to disk the file", path, e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
            .open(dir)
            .and_then(|handle| handle.sync_all())
            .map_err(|e| fail(Effect::SyncDir, "bring to disk the directory", dir, e))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| fail(Effect::Rename, "rename", from, e))
    }

    fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        const WHAT: &str = "exchange";
        let cwd = rustix::fs::CWD;
        let refused = |kind, why: &'static str| {
            let target = one.display().to_string();
            Err(Error::new(Effect::Rename, WHAT, target, kind, why))
        };
        if one.parent() != other.parent() {
            return refused(crate::ErrorKind::Other, "names of two directories");
        }
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        match rustix::fs::renameat_with(cwd, one, cwd, other, flags) {
            // A file system without it calls the flag invalid (renameat2(2)).
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let why = "the file system cannot exchange two names";
                refused(crate::ErrorKind::Unsupported, why)
            }
            done => done.map_err(|e| fail(Effect::Rename, WHAT, one, e)),
        }
    }

    fn unlink(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| fail(Effect::Unlink, "unlink", path, e))
    }

    fn rmdir(&self, dir: &Path) -> Result<()> {
        fs::remove_dir(dir).map_err(|e| fail(Effect::Rmdir, "remove the directory", dir, e))
    }

    fn make_disk(&self, path: &Path, recipe: &DiskRecipe) -> Result<()> {
        let error = |e| fail(Effect::MakeDisk, "make the disk", path, e);
        match recipe {
            DiskRecipe::Sparse { size } => create(path)
                .and_then(|disk| disk.set_len(size.bytes()))
                .map_err(error),
            DiskRecipe::CopyOf { template } => {
                // Before the disk is truncated: it may be refused.
                let from = open_template(template, path)
                    .map_err(|e| fail(Effect::MakeDisk, "open the template", template, e))?;
                create(path)
                    .and_then(|disk| disk_copy::copy(&from, &disk))
                    .map_err(error)
            }
            DiskRecipe::CloneOf { template } => {
                let from = open_template(template, path)
                    .map_err(|e| fail(Effect::MakeDisk, "open the template", template, e))?;
                clone(&from, template, path)
            }
        }
    }

    fn grow_disk(&self, path: &Path, size: ByteSize) -> Result<()> {
        let grow = || {
            let disk = fs::OpenOptions::new().write(true).open(path)?;
            match disk.metadata()?.len() < size.bytes() {
                true => disk.set_len(size.bytes()),
                false => Ok(()),
            }
        };
        grow().map_err(|e| fail(Effect::GrowDisk, "grow the disk", path, e))
    }

    fn disk_space(&self, path: &Path) -> Result<(u64, u64)> {
        let seen = rustix::fs::statvfs(path)
            .map_err(|e| fail(Effect::DiskSpace, "ask for the free space at", path, e))?;
        // What an ordinary user may take, for root too: its reserve is there to repair with.
        Ok((seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize))
    }
}
