//! `Files` on the simulated machine.

use super::{content::Content, fs::Refusal, host::SimHost, world::World};
use crate::{DiskRecipe, Effect, ErrorKind, FileSeen, Files, effects::Result};
use banger_model::ByteSize;
use std::path::Path;

impl World {
    fn is_image(&self, path: &Path) -> bool {
        let mut images = self.nature.images.iter();
        images.any(|image| Path::new(&**image) == path)
    }

    fn is_unshared(&self, path: &Path) -> bool {
        let mut dirs = self.nature.unshared.iter();
        dirs.any(|dir| path.starts_with(&**dir))
    }

    /// A path lost its name: a disk that a live process uses must not.
    fn losing(&mut self, path: &Path) {
        if let Some(ino) = self.fs.lookup(path)
            && self.fs.disk(ino).is_some()
            && (self.processes.values().any(|p| p.files.contains(&ino))
                || self.kernel.loops.values().any(|l| l.backing == ino))
        {
            self.sin(format!("{} was removed while in use", path.display()));
        }
    }
}

impl Files for SimHost {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.effect(Effect::Read, "read", path.display(), |world| {
            Ok(world.fs.read(path)?.map(|content| match content {
                Content::Bytes(bytes) => bytes.to_vec(),
                Content::Disk(_) => Vec::new(),
            }))
        })
    }

    fn stat(&self, path: &Path) -> Result<Option<FileSeen>> {
        self.effect(Effect::Read, "look at", path.display(), |world| {
            world.fs.resolve(path)?;
            Ok(world.fs.stat(path))
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.effect(Effect::List, "list", dir.display(), |world| {
            match world.fs.resolve(dir)? {
                None => Ok(Vec::new()),
                Some(_) => (world.fs.list(dir)).ok_or(Refusal(ErrorKind::Other, "not a directory")),
            }
        })
    }

    fn mkdir(&self, dir: &Path) -> Result<()> {
        self.effect(Effect::Mkdir, "make directory", dir.display(), |world| {
            world.space()?;
            world.fs.mkdir(dir)
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let whole = Content::bytes(bytes);
        let prefixes = |world: &World, _| {
            [Content::empty(), whole.half()]
                .into_iter()
                .filter_map(|content| {
                    let mut world = world.clone();
                    world.fs.write(path, content).ok().map(|_| world)
                })
                .collect()
        };
        self.effect_with_prefixes(
            Effect::WriteFile,
            "write",
            path.display(),
            prefixes,
            |world| {
                world.space()?;
                world.fs.write(path, whole.clone()).map(drop)
            },
        )
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.effect(Effect::SyncFile, "sync", path.display(), |world| {
            world.fs.sync_file(path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.effect(Effect::SyncDir, "sync directory", dir.display(), |world| {
            world.fs.sync_dir(dir)?;
            let held = world.held_inodes();
            world.fs.drop_unreachable(&held);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.effect(Effect::Rename, "rename", from.display(), |world| {
            if from != to {
                world.losing(to);
            }
            world.fs.rename(from, to)
        })
    }

    fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        self.effect(Effect::Rename, "exchange", one.display(), |world| {
            world.fs.exchange(one, other)
        })
    }

    fn unlink(&self, path: &Path) -> Result<()> {
        self.effect(Effect::Unlink, "unlink", path.display(), |world| {
            world.losing(path);
            world.fs.unlink(path)
        })
    }

    fn rmdir(&self, dir: &Path) -> Result<()> {
        self.effect(Effect::Rmdir, "remove directory", dir.display(), |world| {
            world.fs.rmdir(dir)
        })
    }

    fn make_disk(&self, path: &Path, recipe: &DiskRecipe) -> Result<()> {
        let prefixes = |world: &World, _| {
            let mut half = world.clone();
            match make_half(&mut half, path, recipe) {
                Ok(()) => vec![half],
                Err(_) => Vec::new(),
            }
        };
        self.effect_with_prefixes(
            Effect::MakeDisk,
            "make disk",
            path.display(),
            prefixes,
            |world| {
                if let Err(refusal) = world.space() {
                    // What fits is there.
                    make_half(world, path, recipe)?;
                    return Err(refusal);
                }
                world.losing(path);
                make(world, path, recipe)
            },
        )
    }

    fn grow_disk(&self, path: &Path, size: ByteSize) -> Result<()> {
        self.effect(Effect::GrowDisk, "grow the disk", path.display(), |world| {
            world.space()?;
            world.fs.grow(path, size.bytes())
        })
    }

    fn disk_space(&self, path: &Path) -> Result<(u64, u64)> {
        self.effect(
            Effect::DiskSpace,
            "ask the free space of",
            path.display(),
            |world| match world.fs.resolve(path)? {
                Some(_) => Ok((if world.full { 0 } else { 1 << 40 }, 1 << 41)),
                None => Err(Refusal(ErrorKind::NotFound, "no such file")),
            },
        )
    }
}

fn make(world: &mut World, path: &Path, recipe: &DiskRecipe) -> super::fs::Answer<()> {
    let (template, len) = match recipe {
        DiskRecipe::Sparse { size } => (None, size.bytes()),
        DiskRecipe::CopyOf { template } | DiskRecipe::CloneOf { template } => {
            match world.fs.read(template)? {
                Some(_) if template == path => {
                    return Err(Refusal(ErrorKind::Other, "a disk is no template of itself"));
                }
                Some(content) => (Some(template.as_path()), content.len()),
                None => return Err(Refusal(ErrorKind::NotFound, "no such template")),
            }
        }
    };
    if let DiskRecipe::CloneOf { template } = recipe
        && (world.is_unshared(template) || world.is_unshared(path))
    {
        // The file is made before its blocks can be asked for.
        world.fs.write(path, Content::empty())?;
        let why = "the file system does not share blocks";
        return Err(Refusal(ErrorKind::Unsupported, why));
    }
    if let DiskRecipe::CopyOf { template } = recipe
        && world.is_image(template)
    {
        world.sin(format!("all of {} was copied", template.display()));
    }
    let serial = world.take_serial();
    world
        .fs
        .write(path, Content::disk(serial, template, len))
        .map(drop)
}

fn make_half(world: &mut World, path: &Path, recipe: &DiskRecipe) -> super::fs::Answer<()> {
    make(world, path, recipe)?;
    match world.fs.content(path).map(Content::half) {
        Some(content) => world.fs.write(path, content).map(drop),
        None => Ok(()),
    }
}
