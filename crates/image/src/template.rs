//! File systems of new disks, made once and copied for each VM: a copy of the few allocated extents costs a fraction
//! of making one. An overlay disk is empty; a work disk has the image's `/root` in it, so that no guest has to copy and
//! flush it before its first command. A root disk that is a clone of its image has a template too ([`root`]): the image
//! with a journal and with the room that was asked for.

use crate::error::Doing;
use crate::flatten::{Flatten, Flattened};
use crate::layer::{Form, Watch};
use crate::{Error, Progress, Result, digest, ext4, home, lock, place};
use banger_ext4::{Kind, Layout, Options};
use banger_host::{Clock, DiskRecipe, ErrorKind, Files, Tools};
use banger_model::ByteSize;
use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    time::Duration,
};

/// Version of what [`ext4`] makes, part of the file's name: bumping it is the migration.
const VERSION: u32 = 3;
/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Smallest disk that has room for a journal.
const SMALLEST: u64 = 16 << 20;
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

/// What would keep [`ext4`] or [`root`] from giving this template.
///
/// # Errors
/// No file system has such a size; the directory cannot be looked at, or a program of e2fsprogs is missing.
pub fn obstacle<H: Files + Tools + ?Sized>(
    host: &H,
    dir: &Path,
    volume: Volume<'_>,
    size: ByteSize,
) -> Result<()> {
    if !matches!(volume, Volume::Root { .. }) {
        return check_size(size);
    }
    let there = host
        .stat(&path(dir, volume, size))
        .doing("look for a disk template")?;
    if there.is_none() {
        ext4::resize2fs(host)?;
        ext4::tune2fs(host)?;
    }
    Ok(())
}

fn check_size(size: ByteSize) -> Result<()> {
    match size.bytes() >= SMALLEST && size.bytes().is_multiple_of(BLOCK) {
        true => Ok(()),
        false => Err(Error::BadSize(size.bytes())),
    }
}

/// The template: an ext4 file system of exactly `size`, with a journal, that can grow online to
/// 1 TiB and more. Made if it is not there; a second caller waits for the first.
///
/// `content` is the archive of an image's `/root` that it starts with; the guest copies that by itself where the archive
/// is absent, or would take more than half of the disk.
///
/// # Errors
/// A size that is no multiple of 4096 or below 16 MiB, disk full, content that cannot be read.
pub fn ext4<H: Files + Clock + ?Sized>(
    host: &H,
    dir: &Path,
    volume: Volume<'_>,
    size: ByteSize,
    content: Option<&Path>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<PathBuf> {
    check_size(size)?;
    let path = path(dir, volume, size);
    published(host, dir, path, cancelled, |part| {
        let recipe = DiskRecipe::Sparse { size };
        host.make_disk(part, &recipe)
            .doing("make the file for a file system")?;
        write(part, volume, size, content, cancelled)
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
    let there = || -> Result<bool> {
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
    let made = make(&part).and_then(|()| {
        host.sync_file(&part)
            .doing("make a disk template durable")?;
        host.rename(&part, &path).doing("publish a disk template")
    });
    if let Err(error) = made {
        // Gigabytes perhaps, for which nobody may ever come again; of a killed maker they go at the daemon's next start.
        let _ = host.unlink(&part);
        return Err(error);
    }
    host.sync_dir(dir).doing("make a disk template durable")?;
    Ok(path)
}

/// Writes the file system into a file of holes.
fn write(
    part: &Path,
    volume: Volume<'_>,
    size: ByteSize,
    content: Option<&Path>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    let (room, progress) = (|| Ok(()), Cancel(cancelled));
    let watch = Watch::new(&home::LIMITS, &room, &progress);
    let (content, blob) = match content.map(|path| home::read(path, &watch)).transpose()? {
        Some(Some((content, blob))) if bytes_of(&content) <= size.bytes() / 2 => {
            (content, vec![blob])
        }
        _ => (Flatten::new(&home::LIMITS, Form::Flat).finish(), Vec::new()),
    };
    let file = OpenOptions::new().read(true).write(true).open(part);
    let file = file.map_err(Error::unwritten)?;
    let layout = Layout::new(&content.tree, &options(volume, size))?;
    place::place(&blob, &content.winners, (&layout, &file), &watch)?;
    let written = layout.write_metadata(&content.tree, &file);
    written.map_err(Error::unwritten)
}

/// The same for every maker: a template is a function of its name.
fn options(volume: Volume<'_>, size: ByteSize) -> Options {
    let (key, bytes) = (volume.key(), size.bytes());
    let uuid = digest::uuid_bytes(&format!("banger template {VERSION} {key} {bytes}"));
    let mut options = Options::new(uuid);
    let label = volume.label().as_bytes();
    options.label[..label.len()].copy_from_slice(label);
    options.size = Some(bytes);
    options.journal = true;
    options.grow_to = GROW_TO;
    options
}

/// Bytes that the content takes, about.
fn bytes_of(content: &Flattened) -> u64 {
    let inodes = content.tree.inodes.iter();
    let data = inodes.map(|inode| match &inode.kind {
        Kind::File { data, .. } => data.iter().map(|d| d.len.next_multiple_of(BLOCK)).sum(),
        Kind::Directory(entries) => (entries.len() as u64 * 16).next_multiple_of(BLOCK),
        _ => 0,
    });
    data.sum::<u64>() + content.tree.inodes.len() as u64 * 256
}

/// Progress that nobody is told of.
struct Cancel<'a>(&'a (dyn Fn() -> bool + Sync));

impl Progress for Cancel<'_> {
    fn stage(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        (self.0)()
    }
}

/// Removes the templates of an image that is gone.
///
/// # Errors
/// An effect failed.
pub fn forget<H: Files + ?Sized>(host: &H, dir: &Path, image: &str) -> Result<()> {
    remove(host, dir, &|name| image_of(name) == Some(image))
}

/// Removes the templates of images that are none of these, and those that were never finished. Nobody else makes any
/// meanwhile.
///
/// # Errors
/// An effect failed.
pub fn keep_only<H: Files + ?Sized>(host: &H, dir: &Path, images: &[String]) -> Result<()> {
    let is_gone = |id: &str| !images.iter().any(|there| there == id);
    remove(host, dir, &|name| {
        is_unfinished(name) || image_of(name).is_some_and(is_gone)
    })
}

fn remove<H: Files + ?Sized>(host: &H, dir: &Path, goes: &dyn Fn(&str) -> bool) -> Result<()> {
    for name in host.list(dir).doing("list the disk templates")? {
        if goes(&name) {
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

/// Whether this is a template that its maker did not finish ([`banger_host::state_file::temporary`]).
fn is_unfinished(name: &str) -> bool {
    name.starts_with(".ext4-v") && name.ends_with(".part")
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
        let part = banger_host::state_file::temporary(Path::new(&work));
        assert!(is_unfinished(part.to_str().unwrap()));
        assert!(!is_unfinished(&work) && !is_unfinished(".lock"));
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
