//! The directory of images: look up, list, delete. Building is in [`crate::debian`].

use crate::error::Doing;
use crate::lock::{self, Lock};
use crate::manifest::{HOME_DIR, MANIFEST_FILE, ROOTFS_FILE, is_hex, is_id};
use crate::{Error, Manifest, Progress, Result};
use banger_host::{Clock, ErrorKind, Files, Tools};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Staging directory of the one builder that holds the lock.
const STAGING: &str = ".staging";
/// Prefix of a directory on its way out.
const TRASH: &str = ".trash-";
/// A build that is slower than this has hung.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1800);

/// The images of one state directory.
#[derive(Debug)]
pub struct ImageStore<H> {
    pub(crate) host: Arc<H>,
    dir: PathBuf,
}

impl<H: Files + Tools + Clock> ImageStore<H> {
    /// The store in `dir` (`<state dir>/images`), which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(host: Arc<H>, dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        match host.mkdir(&dir) {
            Ok(()) => host
                .sync_dir(dir.parent().unwrap_or(Path::new("/")))
                .doing("make the images directory durable")?,
            Err(error) if error.kind == ErrorKind::Exists => {}
            Err(source) => {
                return Err(Error::Host {
                    doing: "make the images directory",
                    source,
                });
            }
        }
        Ok(ImageStore { host, dir })
    }

    /// Directory of an image.
    pub fn dir_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// The read-only ext4 file of an image.
    pub fn rootfs(&self, image: &Manifest) -> PathBuf {
        self.dir_of(&image.id).join(ROOTFS_FILE)
    }

    /// Every image, by name, newest first within a name. One whose manifest is damaged is left out;
    /// [`ImageStore::damaged`] has it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Manifest>> {
        let mut images = Vec::new();
        for id in self.ids()? {
            match self.manifest(&id) {
                Ok(found) => images.extend(found),
                Err(Error::BadManifest { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        images.sort_by(|a, b| (&a.name, b.created, &a.id).cmp(&(&b.name, a.created, &b.id)));
        Ok(images)
    }

    /// Ids of the images whose manifest cannot be read, with the reason.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<(String, Error)>> {
        let ids = self.ids()?;
        Ok(ids
            .into_iter()
            .filter_map(|id| self.manifest(&id).err().map(|e| (id, e)))
            .collect())
    }

    /// The image a reference means: an exact name (its newest image), an exact id, or a unique
    /// prefix of an id, at least 3 digits.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`; a damaged manifest.
    pub fn show(&self, reference: &str) -> Result<Manifest> {
        // The common case, an id from a VM's row, reads one manifest.
        if is_id(reference) {
            return self
                .manifest(reference)?
                .ok_or_else(|| Error::NotFound(reference.to_owned()));
        }
        let mut images = self.list()?;
        if let Some(found) = images.iter().position(|i| i.name == reference) {
            return Ok(images.swap_remove(found));
        }
        if reference.len() >= 3 && is_hex(reference) {
            images.retain(|i| i.id.starts_with(reference));
        } else {
            images.clear();
        }
        match images.len() {
            0 => Err(Error::NotFound(reference.to_owned())),
            1 => Ok(images.swap_remove(0)),
            _ => Err(Error::Ambiguous {
                reference: reference.to_owned(),
                ids: images.into_iter().map(|i| i.id).collect(),
            }),
        }
    }

    /// The newest image of this name, `None` if there is none.
    ///
    /// # Errors
    /// A damaged manifest.
    pub fn named(&self, name: &str) -> Result<Option<Manifest>> {
        Ok(self.list()?.into_iter().find(|i| i.name == name))
    }

    /// Removes an image that nobody pins and returns its id; `users` names the VMs that pin an image
    /// id. A damaged image is removed by its whole id.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, `InUse`, `Locked`, or an effect failed (the next build sweeps).
    pub fn delete(&self, reference: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<String> {
        let _lock = self.lock(&crate::Silent)?;
        let id = match self.show(reference) {
            Ok(image) => image.id,
            Err(Error::BadManifest { .. }) if is_id(reference) => reference.to_owned(),
            Err(error) => return Err(error),
        };
        let users = users(&id);
        if !users.is_empty() {
            return Err(Error::InUse { id, users });
        }
        let trash = self.dir.join(format!("{TRASH}{id}"));
        self.host
            .rename(&self.dir_of(&id), &trash)
            .doing("take an image out of the list")?;
        self.host
            .sync_dir(&self.dir)
            .doing("take an image out of the list")?;
        self.remove_tree(&trash)?;
        Ok(id)
    }

    /// Removes what dead builds and deletes left. Does nothing while another process works here.
    ///
    /// # Errors
    /// An effect failed.
    pub fn sweep(&self) -> Result<()> {
        match lock::try_acquire(&*self.host, &self.lock_path())? {
            Some(lock) => self.sweep_locked(&lock),
            None => Ok(()),
        }
    }

    pub(crate) fn sweep_locked(&self, _lock: &Lock) -> Result<()> {
        for name in self.host.list(&self.dir).doing("list the images")? {
            if name == STAGING || name.starts_with(TRASH) {
                self.remove_tree(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.dir.join(STAGING)
    }

    pub(crate) fn lock(&self, progress: &dyn Progress) -> Result<Lock> {
        let mut waiting = || progress.stage("waiting for another image build");
        lock::acquire(
            &*self.host,
            &self.lock_path(),
            LOCK_TIMEOUT,
            &|| progress.cancelled(),
            &mut waiting,
        )
    }

    /// The copy of an image's `/root`, a directory with `root` in it; there or not.
    pub fn home(&self, image: &Manifest) -> PathBuf {
        self.dir_of(&image.id).join(HOME_DIR)
    }

    /// Makes a staged image directory visible; the winner's manifest if its id is there already.
    pub(crate) fn publish(&self, staged: &Path, manifest: &Manifest) -> Result<Manifest> {
        if let Some(there) = self.manifest(&manifest.id)? {
            return Ok(there);
        }
        let text = serde_json::to_vec_pretty(manifest).map_err(|source| Error::BadManifest {
            path: staged.join(MANIFEST_FILE),
            source,
        })?;
        let (rootfs, json) = (staged.join(ROOTFS_FILE), staged.join(MANIFEST_FILE));
        self.host
            .write(&json, &text)
            .doing("write an image's manifest")?;
        self.host.sync_file(&json).doing("make an image durable")?;
        self.host
            .sync_file(&rootfs)
            .doing("make an image durable")?;
        self.host.sync_dir(staged).doing("make an image durable")?;
        self.host
            .rename(staged, &self.dir_of(&manifest.id))
            .doing("publish an image")?;
        self.host.sync_dir(&self.dir).doing("publish an image")?;
        Ok(manifest.clone())
    }

    /// Removes a directory tree of ours. A tree that `dpkg` filled has names and depths of its own,
    /// so `rm` does it, and stays on this file system.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        if self
            .host
            .stat(path)
            .doing("look for a staging directory")?
            .is_none()
        {
            return Ok(());
        }
        let args = vec![
            "-rf".into(),
            "--one-file-system".into(),
            "--".into(),
            path.into(),
        ];
        let doing = "removing a staging directory";
        crate::ext4::run(
            &*self.host,
            crate::ext4::tool(&*self.host, "rm", "coreutils")?,
            doing,
            args,
            Default::default(),
            Duration::from_secs(300),
            &mut |_| {},
            &|| false,
        )
        .map(drop)
    }

    fn ids(&self) -> Result<Vec<String>> {
        let names = self.host.list(&self.dir).doing("list the images")?;
        Ok(names.into_iter().filter(|name| is_id(name)).collect())
    }

    fn manifest(&self, id: &str) -> Result<Option<Manifest>> {
        let path = self.dir_of(id).join(MANIFEST_FILE);
        let Some(bytes) = self.host.read(&path).doing("read an image's manifest")? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::BadManifest { path, source })
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join(".lock")
    }
}
