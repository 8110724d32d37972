//! File systems of new disks, made once and copied for each VM: a copy of the few allocated extents costs a fraction
//! of a `mke2fs` run, and nothing is spawned. An overlay disk is empty; a work disk has the image's `/root` in it, so
//! that no guest has to copy and flush it before its first command. A root disk that is a clone of its image has a
//! template too ([`root`]): the image with a journal and with the room that was asked for.

use crate::error::Doing;
use crate::ext4::{self, BLOCK, Content, Mkfs};
use crate::{Error, Result, digest, home, lock};
use banger_host::{Clock, DiskRecipe, ErrorKind, Files, Tools};
use banger_model::ByteSize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Version of what [`ext4`] makes, part of the file's name: bumping it is the migration.
const VERSION: u32 = 2;
/// How far a disk can grow by its resize inode. Larger costs a block per 8 GiB in each copy.
const GROW_TO: u64 = 1 << 40;
/// Longest time one template may take another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Which disk. Two disks of one VM have different volumes, so that a guest can tell them
/// apart by label and UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Volume<'a> {
    /// Upper layer of the root file system.
    Overlay,
    /// The work disk at `/root`.
    Work {
        /// Id of the image whose `/root` it starts from.
        image: &'a str,
    },
    /// The whole root file system.
    Root {
        /// Id of the image that it is a clone of.
        image: &'a str,
    },
}

impl Volume<'_> {
    /// The ext4 volume label.
    pub const fn label(self) -> &'static str {
        match self {
            Volume::Overlay => "banger-overlay",
            Volume::Work { .. } => "banger-work",
            Volume::Root { .. } => "banger-root",
        }
    }

    /// Label, and what else its content depends on.
    fn key(self) -> String {
        match self {
            Volume::Overlay => self.label().to_owned(),
            Volume::Work { image } | Volume::Root { image } => format!("{}-{image}", self.label()),
        }
    }
}

/// Path of the template for a size in `dir`, there or not.
pub fn path(dir: &Path, volume: Volume<'_>, size: ByteSize) -> PathBuf {
    dir.join(format!(
        "ext4-v{VERSION}-{}-{}.img",
        volume.key(),
        size.bytes()
    ))
}

/// What would keep [`ext4`] from giving this template: nothing where it is there.
///
/// # Errors
/// The directory cannot be looked at, or a program of e2fsprogs is missing.
pub fn obstacle<H: Files + Tools + ?Sized>(
    host: &H,
    dir: &Path,
    volume: Volume<'_>,
    size: ByteSize,
) -> Result<()> {
    let there = host
        .stat(&path(dir, volume, size))
        .doing("look for a disk template")?;
    match there {
        Some(_) => Ok(()),
        None if matches!(volume, Volume::Root { .. }) => {
            ext4::resize2fs(host)?;
            ext4::tune2fs(host).map(drop)
        }
        None => ext4::mke2fs(host).map(drop),
    }
}

/// The template: an ext4 file system of exactly `size`, with a journal, that can grow online to
/// 1 TiB and more. Made if it is not there; a second caller waits for the first.
///
/// `content` is a directory whose content it starts with; the guest copies the image's `/root` by itself where that is
/// absent, not all root's, or too large.
///
/// # Errors
/// A size that is no multiple of 4096 or below 16 MiB, mke2fs missing or failing, disk full, content that cannot be
/// read.
pub fn ext4<H: Files + Tools + Clock + ?Sized>(
    host: &H,
    dir: &Path,
    volume: Volume<'_>,
    size: ByteSize,
    content: Option<&Path>,
    cancelled: &dyn Fn() -> bool,
) -> Result<PathBuf> {
    let path = path(dir, volume, size);
    published(host, dir, path, cancelled, |part| {
        make(host, part, volume, size, content, cancelled)
    })
}

/// The template of root disks that are clones of an image: the image's file system, grown to `size`, with a journal,
/// because a guest writes to it and may be killed. It shares the blocks of `rootfs`, the image's file, which is only
/// read. Made if it is not there.
///
/// # Errors
/// The directory's file system does not share blocks with the image's file, a program of e2fsprogs is missing or fails,
/// disk full.
pub fn root<H: Files + Tools + Clock + ?Sized>(
    host: &H,
    dir: &Path,
    image: &str,
    rootfs: &Path,
    size: ByteSize,
    cancelled: &dyn Fn() -> bool,
) -> Result<PathBuf> {
    let path = path(dir, Volume::Root { image }, size);
    published(host, dir, path, cancelled, |part| {
        let template = rootfs.to_owned();
        match host.make_disk(part, &DiskRecipe::CloneOf { template }) {
            Err(error) if error.kind == ErrorKind::Unsupported => {
                // Else it stays, because nobody will come to finish it.
                let _ = host.unlink(part);
                return Err(Error::Unshared(error));
            }
            made => made.doing("clone the image")?,
        }
        let image = host.stat(part).doing("look at the clone")?;
        let room = image.map_or(0, |image| size.bytes().saturating_sub(image.len));
        host.grow_disk(part, size).doing("lengthen the clone")?;
        // The room is in the file system before its first boot: no guest waits for it to grow.
        ext4::grow(host, part, cancelled)?;
        ext4::add_journal(host, part, room, cancelled)
    })
}

/// The template at `path`, as `make` makes it at another one if it is not there; a second caller waits for the first.
fn published<H: Files + Clock + ?Sized>(
    host: &H,
    dir: &Path,
    path: PathBuf,
    cancelled: &dyn Fn() -> bool,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let there = || {
        Ok(host
            .stat(&path)
            .doing("look for a disk template")?
            .is_some())
    };
    if there()? {
        return Ok(path);
    }
    let _lock = lock::acquire(
        host,
        &dir.join(".lock"),
        LOCK_TIMEOUT,
        cancelled,
        &mut || {},
    )?;
    if there()? {
        return Ok(path);
    }
    let part = banger_host::state_file::temporary(&path);
    make(&part)?;
    host.sync_file(&part)
        .doing("make a disk template durable")?;
    host.rename(&part, &path).doing("publish a disk template")?;
    host.sync_dir(dir).doing("make a disk template durable")?;
    Ok(path)
}

/// An ext4 file system for a volume, in a new file.
fn make<H: Files + Tools + ?Sized>(
    host: &H,
    file: &Path,
    volume: Volume<'_>,
    size: ByteSize,
    content: Option<&Path>,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    // The same for every maker: a template is a function of its name.
    let uuid = digest::uuid(&format!(
        "banger template {VERSION} {} {}",
        volume.key(),
        size.bytes()
    ));
    let content = match content {
        Some(dir) if home::is_roots(dir)? && Content::of(dir)?.size() <= size.bytes() / 2 => {
            Some(dir)
        }
        _ => None,
    };
    let mkfs = Mkfs {
        label: volume.label(),
        uuid: Some(&uuid),
        features: "has_journal,resize_inode",
        inodes: None,
        // Near the limit mke2fs's own choice (1024 times) is as good, and above it the only one.
        grow_to: (size.bytes() < GROW_TO / 4).then_some(GROW_TO / BLOCK),
        content,
    };
    ext4::make(host, file, size.bytes(), &mkfs, cancelled)
}

/// Removes the templates of an image that is gone.
///
/// # Errors
/// An effect failed.
pub fn forget<H: Files + ?Sized>(host: &H, dir: &Path, image: &str) -> Result<()> {
    remove(host, dir, &|id| id == image)
}

/// Removes the templates of images that are none of these.
///
/// # Errors
/// An effect failed.
pub fn keep_only<H: Files + ?Sized>(host: &H, dir: &Path, images: &[String]) -> Result<()> {
    remove(host, dir, &|id| !images.iter().any(|there| there == id))
}

fn remove<H: Files + ?Sized>(host: &H, dir: &Path, gone: &dyn Fn(&str) -> bool) -> Result<()> {
    for name in host.list(dir).doing("list the disk templates")? {
        if image_of(&name).is_some_and(gone) {
            match host.unlink(&dir.join(&name)) {
                Err(error) if error.kind == ErrorKind::NotFound => {}
                other => other.doing("remove a disk template")?,
            }
        }
    }
    Ok(())
}

/// Whether a file of this name is a template that another version made: none is made or read under this name again.
pub fn is_stale(name: &str) -> bool {
    let version = |rest: &str| rest.split_once('-')?.0.parse::<u32>().ok();
    let made_by = name.strip_prefix("ext4-v").and_then(version);
    made_by.is_some_and(|version| version != VERSION)
}

/// The image of which the template of this file name, of any version, has something in it.
fn image_of(name: &str) -> Option<&str> {
    let name = name.strip_prefix("ext4-v")?;
    let volume = |label: &str| name.split_once(label);
    let (_, rest) = volume("-banger-work-").or_else(|| volume("-banger-root-"))?;
    let (id, _) = rest.strip_suffix(".img")?.split_once('-')?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_tells_its_image() {
        let size = ByteSize::gib(8);
        let file = |volume| {
            path(Path::new(""), volume, size)
                .into_os_string()
                .into_string()
                .unwrap()
        };
        let work = file(Volume::Work {
            image: "0123456789ab",
        });
        assert_eq!(image_of(&work), Some("0123456789ab"));
        let root = file(Volume::Root {
            image: "ba9876543210",
        });
        assert_eq!(image_of(&root), Some("ba9876543210"));
        assert_eq!(image_of(&file(Volume::Overlay)), None);
        assert_eq!(image_of(".lock"), None);
    }

    #[test]
    fn only_templates_of_other_versions_are_stale() {
        let now = path(Path::new(""), Volume::Overlay, ByteSize::gib(8));
        assert!(!is_stale(now.to_str().unwrap()));
        assert!(is_stale("ext4-v1-banger-overlay-8589934592.img"));
        for other in [
            ".lock",
            "ext4-vX-banger-overlay-1.img",
            "ext4-v1",
            "initramfs-v1-a-b.cpio",
        ] {
            assert!(!is_stale(other), "{other}");
        }
    }
}
