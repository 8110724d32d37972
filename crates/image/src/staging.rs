//! Where images are made before anybody can see them: a directory for each maker, locked by it (flock) as long as it
//! works, so that what a dead one left is told from what is being made.

use crate::error::Doing;
use crate::ext4;
use crate::owners::Owners;
use crate::store::ImageStore;
use crate::{Error, Result};
use banger_host::{Clock, ErrorKind, Files, Tools, tree};
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// Beginning of the name of every staging directory.
pub(crate) const STAGING: &str = ".staging";
/// Directory in it that becomes the image's.
const IMAGE: &str = "image";
/// Pauses before a tree that could not be removed is removed again.
const REMOVING: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(2),
];

/// A staging directory of ours.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    _lock: OwnedFd,
}

impl Staging {
    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that becomes the image's.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }
}

impl<H: Files + Tools + Clock> ImageStore<H> {
    /// Lends a staging directory to some work and clears it away, however the work ends.
    ///
    /// # Errors
    /// No directory could be made, what the work failed with, or that and clearing up.
    pub(crate) fn staged<T>(&self, work: impl FnOnce(&Staging) -> Result<T>) -> Result<T> {
        let staging = self.new_staging()?;
        let done = work(&staging);
        match (done, self.remove_tree(staging.dir())) {
            (Ok(done), _) => Ok(done), // what is left then, the next sweep removes
            (Err(error), Ok(())) => Err(error),
            (Err(original), Err(source)) => Err(Error::NotCleared {
                original: Box::new(original),
                staging: staging.dir,
                source: Box::new(source),
            }),
        }
    }

    fn new_staging(&self) -> Result<Staging> {
        // Held until ours is locked, or a sweep could take it for a dead one's.
        let _lock = self.publish_lock()?;
        let mut n = 0;
        let dir = loop {
            let name = format!("{STAGING}-{}-{n}", std::process::id());
            let dir = self.dir().join(name);
            match self.host.mkdir(&dir) {
                Ok(()) => break dir,
                Err(error) if error.kind == ErrorKind::Exists => n += 1,
                other => other.doing("make a staging directory")?,
            }
        };
        let made = self.furnish(&dir);
        if made.is_err() {
            // Of consequence only as litter, which the next sweep removes.
            let _ = self.remove_tree(&dir);
        }
        made
    }

    /// Locks a staging directory and makes what belongs in it.
    fn furnish(&self, dir: &Path) -> Result<Staging> {
        let lock = lock_dir(dir)?.ok_or_else(|| Error::Locked {
            path: dir.to_owned(),
            seconds: 0,
        })?;
        let staging = Staging {
            dir: dir.to_owned(),
            _lock: lock,
        };
        let image = staging.image();
        self.host.mkdir(&image).doing("make a staging directory")?;
        Ok(staging)
    }

    /// Removes a directory tree of ours. A tree that `dpkg` filled has names and depths of its own,
    /// so `rm` does it, and stays on this file system.
    ///
    /// Directories in it that belong to the further ids of a user are emptied in a namespace of theirs. And what was killed a moment
    /// ago may have written once more where `rm` had already been.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        let there = self.host.stat(path);
        if there.doing("look for a staging directory")?.is_none() {
            return Ok(());
        }
        let mut removed = self.rm(&Owners::Root, path);
        for pause in REMOVING {
            if removed.is_ok() {
                break;
            }
            self.host.sleep(pause);
            removed = match Owners::of(&*self.host) {
                Ok(owners) => self.rm(&owners, path),
                Err((why, _)) => self
                    .rm(&Owners::Root, path)
                    .map_err(|failed| Error::Unremoved {
                        failed: Box::new(failed),
                        why: Box::new(why),
                    }),
            };
        }
        removed
    }

    fn rm(&self, owners: &Owners, path: &Path) -> Result<()> {
        let args = vec![
            "-rf".into(),
            "--one-file-system".into(),
            "--".into(),
            path.into(),
        ];
        let (program, args) = owners.call(ext4::tool(&*self.host, "rm", "coreutils")?, args);
        ext4::run(
            &*self.host,
            program,
            "removing a staging directory",
            args,
            BTreeMap::new(),
            Duration::from_secs(300),
            &mut |_| {},
            &|| false,
        )
        .map(drop)
    }

    /// Moves the staging directories whose makers are dead to the trash; under the publish lock.
    pub(crate) fn give_up_stagings(&self) -> Result<()> {
        for name in self.host.list(self.dir()).doing("list the images")? {
            if !name.starts_with(STAGING) {
                continue;
            }
            if let Some(_dead) = lock_dir(&self.dir().join(&name))? {
                self.to_trash(&name)?;
            }
        }
        Ok(())
    }
}

fn lock_dir(dir: &Path) -> Result<Option<OwnedFd>> {
    tree::lock_dir(dir).map_err(|source| Error::Read {
        path: dir.to_owned(),
        source,
    })
}
