//! The directory of images: look up, list, publish, delete. Making them is in [`crate::debian`] and [`crate::import`].

use crate::error::Doing;
use crate::lock::{self, Lock};
use crate::manifest::{HOME_FILE, MANIFEST_FILE, ROOTFS_FILE, is_hex, is_id};
use crate::{Error, Limits, Manifest, Moves, Progress, Result, home};
use banger_host::{Clock, ErrorKind, Files, Tools};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Prefix of a directory on its way out.
const TRASH: &str = ".trash-";
/// A build that is slower than this has hung.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1800);
/// A publishing that is slower than this has hung.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(300);

/// An image with the names that mean it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The image.
    pub manifest: Manifest,
    /// Its names, the one it was given first before the others.
    pub names: Vec<String>,
}

impl Named {
    /// What to call it: its first name, or its id.
    pub fn title(&self) -> &str {
        self.names.first().map_or(&self.manifest.id, String::as_str)
    }
}

/// What became of an image that was to be deleted.
#[derive(Debug)]
pub struct Deleted {
    /// The image.
    pub id: String,
    /// Names that mean it no more.
    pub names: Vec<String>,
    /// Whether the image itself is gone; false if it has other names.
    pub gone: bool,
    /// Why its files are there still, in no list: the next start of the daemon removes them.
    pub left: Option<Error>,
}

/// The images of one state directory.
#[derive(Debug)]
pub struct ImageStore<H> {
    pub(crate) host: Arc<H>,
    dir: PathBuf,
    /// What an archive may expand to.
    pub(crate) limits: Limits,
}

impl<H: Files + Tools + Clock> ImageStore<H> {
    /// The store in `dir` (`<state dir>/images`), which the first thing that is written there makes.
    pub fn new(host: Arc<H>, dir: impl Into<PathBuf>) -> Self {
        ImageStore {
            host,
            dir: dir.into(),
            limits: Limits::default(),
        }
    }

    /// The same store with other limits for what archives may expand to (R-IMG-4).
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        ImageStore { limits, ..self }
    }

    /// Directory of an image.
    pub fn dir_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// The read-only ext4 file of an image.
    pub fn rootfs(&self, image: &Manifest) -> PathBuf {
        self.dir_of(&image.id).join(ROOTFS_FILE)
    }

    /// Every image, by name, newest first where there is none. One whose manifest is damaged or cannot be read is left out;
    /// [`ImageStore::damaged`] has it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Named>> {
        let mut images = Vec::new();
        for id in self.ids()? {
            // One image's trouble is its own.
            if let Ok(found) = self.manifest(&id) {
                images.extend(found);
            }
        }
        Ok(named(images))
    }

    /// Ids of the images whose manifest cannot be read or is gone, with the reason.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<(String, Error)>> {
        let ids = self.ids()?;
        Ok(ids
            .into_iter()
            .filter_map(|id| match self.manifest(&id) {
                Ok(Some(_)) => None,
                Ok(None) => Some((Error::NoManifest(self.dir_of(&id)), id)),
                Err(error) => Some((error, id)),
            })
            .map(|(error, id)| (id, error))
            .collect())
    }

    /// The image a reference means: an exact name (its newest image), an exact id, or a unique
    /// prefix of an id, at least 3 digits. Its manifest's name is what to call it.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`; a damaged manifest.
    pub fn show(&self, reference: &str) -> Result<Manifest> {
        let found = self.inspect(reference)?;
        let by_name = found.names.iter().any(|name| name == reference);
        let title = if by_name { reference } else { found.title() };
        Ok(Manifest {
            name: title.to_owned(),
            ..found.manifest
        })
    }

    /// The image a reference means, with all its names.
    ///
    /// # Errors
    /// As [`ImageStore::show`].
    pub fn inspect(&self, reference: &str) -> Result<Named> {
        let mut images = self.list()?;
        let exact =
            |i: &Named| i.manifest.id == reference || i.names.iter().any(|n| n == reference);
        if let Some(found) = images.iter().position(exact) {
            return Ok(images.swap_remove(found));
        }
        // As it is said to registries: `alpine` is `alpine:latest`.
        if let Some(name) = crate::manifest::pulled_name(reference)
            && let Some(found) = images.iter().position(|i| i.names.contains(&name))
        {
            return Ok(images.swap_remove(found));
        }
        if is_id(reference) {
            // Not listed: not there, or damaged.
            self.manifest(reference)?;
        }
        if reference.len() >= 3 && is_hex(reference) {
            images.retain(|i| i.manifest.id.starts_with(reference));
        } else {
            images.clear();
        }
        match images.len() {
            0 => Err(Error::NotFound(reference.to_owned())),
            1 => Ok(images.swap_remove(0)),
            _ => Err(Error::Ambiguous {
                reference: reference.to_owned(),
                ids: images.into_iter().map(|i| i.manifest.id).collect(),
            }),
        }
    }

    /// The newest image of this name, `None` if there is none.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn named(&self, name: &str) -> Result<Option<Manifest>> {
        let images = self.list()?.into_iter();
        let mut found = images.filter(|i| i.names.iter().any(|n| n == name));
        Ok(found.next().map(|i| i.manifest))
    }

    /// The image that was pulled with this digest of a registry's document, `None` if there is none.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pulled(&self, digest: &str) -> Result<Option<Named>> {
        let images = self.list()?.into_iter();
        let of = |name: &String| name.split_once('@').is_some_and(|(_, d)| d == digest);
        let mut found = images.filter(|i| i.manifest.repo_digests.iter().any(of));
        Ok(found.next())
    }

    /// Gives an image that is there the names it was pulled by, and another digest that it has in a registry.
    ///
    /// # Errors
    /// `NotFound`, `Exists` of a name that may not move, or an effect failed.
    pub fn name(&self, id: &str, names: &[String], repo_digest: &str) -> Result<()> {
        let lock = self.publish_lock()?;
        let there = self.manifest(id)?;
        let mut manifest = there.ok_or_else(|| Error::NotFound(id.to_owned()))?;
        drop(lock);
        manifest.repo_digests.insert(repo_digest.to_owned());
        self.publish(&self.dir_of(id), manifest, names, Moves::First)
            .map(drop)
    }

    /// Says which kernel suits an image; `None`: any.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, or an effect failed.
    pub fn set_kernel(&self, reference: &str, kernel: Option<&str>) -> Result<Manifest> {
        let id = self.show(reference)?.id;
        let _lock = self.publish_lock()?;
        // Named anew: it may have got names meanwhile.
        let there = self.manifest(&id)?;
        let mut manifest = there.ok_or_else(|| Error::NotFound(reference.to_owned()))?;
        manifest.kernel = kernel.map(str::to_owned);
        self.write_manifest(&manifest)?;
        Ok(manifest)
    }

    /// Removes an image that nobody pins; `users` names the VMs that pin an image id. Named by one of several names it
    /// only loses that name; named by its id it keeps them all unless `force`. A damaged image, and one
    /// without a manifest, is removed by its whole id.
    /// What `users` locks needs to be held only until `unlisted`, which is called when the image is in no list any more
    /// and before one of its id can be published again; its files are unlinked after that.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, `InUse`, `SeveralNames`, `Locked`, or an effect failed (the next sweep goes on).
    pub fn delete(
        &self,
        reference: &str,
        force: bool,
        users: &dyn Fn(&str) -> Result<Vec<String>>,
        unlisted: impl FnOnce(&str),
    ) -> Result<Deleted> {
        let lock = self.publish_lock()?;
        let (id, names) = match self.inspect(reference) {
            Ok(image) => (image.manifest.id, image.names),
            Err(Error::BadManifest { .. }) if is_id(reference) => {
                (reference.to_owned(), Vec::new())
            }
            // Its manifest is gone, and so it is in no list.
            Err(Error::NotFound(id)) if self.ids()?.contains(&id) => (id, Vec::new()),
            Err(error) => return Err(error),
        };
        if names.len() > 1 && !force {
            if !names.iter().any(|name| name == reference) {
                return Err(Error::SeveralNames { id, names });
            }
            self.take_name(&id, reference)?;
            return Ok(Deleted {
                id,
                names: vec![reference.to_owned()],
                gone: false,
                left: None,
            });
        }
        let users = users(&id)?;
        if !users.is_empty() {
            return Err(Error::InUse { id, users });
        }
        let trash = self.to_trash(&id)?;
        unlisted(&id);
        // It is gone: what fails now makes it come back after a power cut at most, or leaves files.
        let synced = self.host.sync_dir(&self.dir);
        let synced = synced.doing("take an image out of the list");
        // Unlinking may take minutes, and changes no list.
        drop(lock);
        let left = synced.and_then(|()| self.remove_tree(&trash)).err();
        Ok(Deleted {
            id,
            names,
            gone: true,
            left,
        })
    }

    /// Sets aside what dead makers and deletes left, and takes from older images the names that newer ones have. What is
    /// given back is nobody's, and for [`ImageStore::unlink`] at any time: that may take minutes.
    ///
    /// # Errors
    /// An effect failed.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        let _lock = self.publish_lock()?;
        self.give_up_stagings()?;
        self.forget_outdone()?;
        let names = self.host.list(&self.dir).doing("list the images")?;
        let trash = names.into_iter().filter(|name| name.starts_with(TRASH));
        Ok(trash.map(|name| self.dir.join(name)).collect())
    }

    /// Unlinks a directory that [`ImageStore::sweep`] has set aside.
    ///
    /// # Errors
    /// An effect failed.
    pub fn unlink(&self, trash: &Path) -> Result<()> {
        self.remove_tree(trash)
    }

    /// Takes a directory out of the list, under the publish lock, by a name that none on its way out has: one whose
    /// unlinking failed stays until the next sweep.
    pub(crate) fn to_trash(&self, name: &str) -> Result<PathBuf> {
        const DOING: &str = "take a directory out of the list of images";
        let mut trash = self.dir.join(format!("{TRASH}{name}"));
        let mut n = 0;
        while self.host.stat(&trash).doing(DOING)?.is_some() {
            n += 1;
            trash = self.dir.join(format!("{TRASH}{name}-{n}"));
        }
        let given_up = self.host.rename(&self.dir.join(name), &trash);
        given_up.doing(DOING)?;
        Ok(trash)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory if it is not there.
    fn make(&self) -> Result<()> {
        match self.host.mkdir(&self.dir) {
            Ok(()) => self
                .host
                .sync_dir(self.dir.parent().unwrap_or(Path::new("/")))
                .doing("make the images directory durable"),
            Err(error) if error.kind == ErrorKind::Exists => Ok(()),
            Err(source) => Err(Error::Host {
                doing: "make the images directory",
                source,
            }),
        }
    }

    /// The lock of whoever builds; held for as long as that takes.
    pub(crate) fn lock(&self, progress: &dyn Progress) -> Result<Lock> {
        self.make()?;
        let mut waiting = || progress.stage("waiting for another image build");
        lock::acquire(
            &*self.host,
            &self.dir.join(".lock"),
            LOCK_TIMEOUT,
            &|| progress.cancelled(),
            &mut waiting,
        )
    }

    /// The lock of whoever changes which images and names there are; held for moments.
    pub(crate) fn publish_lock(&self) -> Result<Lock> {
        self.make()?;
        let (path, never) = (self.dir.join(".publish.lock"), || false);
        lock::acquire(&*self.host, &path, PUBLISH_TIMEOUT, &never, &mut || {})
    }

    pub(crate) fn check_room(&self, needed_mib: u64) -> Result<()> {
        const DOING: &str = "look for free space";
        let mut path = self.dir.as_path();
        while self.host.stat(path).doing(DOING)?.is_none() {
            // Where it will be made.
            path = path.parent().unwrap_or(Path::new("/"));
        }
        let (free, _) = self.host.disk_space(path).doing(DOING)?;
        if free >> 20 < needed_mib {
            return Err(Error::NoSpace {
                path: path.to_owned(),
                free_mib: free >> 20,
                needed_mib,
            });
        }
        Ok(())
    }

    /// The copy of an image's `/root`, an archive with the directory `root` in it; there or not.
    pub fn home(&self, image: &Manifest) -> PathBuf {
        self.dir_of(&image.id).join(HOME_FILE)
    }

    /// Refuses names that other images than `id` have and that may not move.
    ///
    /// # Errors
    /// `Exists`, or the directory cannot be read.
    pub fn check_names(&self, names: &[String], moves: Moves, id: Option<&str>) -> Result<()> {
        let images = self.list()?;
        let held = match moves {
            Moves::None => names,
            Moves::First => names.get(1..).unwrap_or_default(),
            Moves::All => &[],
        };
        let first = names.first().filter(|_| moves == Moves::First);
        for image in images {
            let same = id == Some(image.manifest.id.as_str());
            let along = first.is_some_and(|first| image.names.contains(first));
            let taken = image.names.iter().find(|name| held.contains(name));
            if let Some(name) = taken.filter(|_| !same && !along) {
                return Err(Error::Exists {
                    name: name.clone(),
                    id: image.manifest.id,
                });
            }
        }
        Ok(())
    }

    /// Makes a staged image directory visible under these names; where its id is there already, that image gets them.
    pub(crate) fn publish(
        &self,
        staged: &Path,
        mut manifest: Manifest,
        names: &[String],
        moves: Moves,
    ) -> Result<Manifest> {
        // Before the lock: it may be gigabytes that go to the disk now, and others are to list and publish meanwhile.
        self.make_durable(staged)?;
        let _lock = self.publish_lock()?;
        self.check_names(names, moves, Some(&manifest.id))?;
        let images = self.list()?;
        let turns = images.iter().flat_map(|i| i.manifest.turns());
        let turn = turns.map(|(_, turn)| turn + 1).max().unwrap_or(0);
        let there = self.manifest(&manifest.id)?;
        if let Some(there) = &there {
            // Ids are short, to be typed; what is meant is the digest.
            if there.digest != manifest.digest {
                return Err(Error::OtherDigest {
                    id: there.id.clone(),
                    digest: manifest.digest,
                });
            }
            let (config, origin) = (manifest.config.take(), manifest.origin.take());
            let from = std::mem::take(&mut manifest.repo_digests);
            let outside = manifest.external.take();
            manifest = there.clone();
            manifest.repo_digests.extend(from);
            // The same bytes may have come before without a word on how they are run.
            manifest.config = manifest.config.or(config);
            manifest.origin = manifest.origin.or(origin);
            if let Some(was) = &there.external {
                // A copy of its own, or a new place for a file that is not what it was. Else the file it has will do.
                let moved = outside
                    .as_ref()
                    .is_none_or(|is| was.path == is.path || was.check().is_err());
                if moved {
                    self.put_rootfs(&staged.join(ROOTFS_FILE), &manifest.id)?;
                    manifest.external = outside;
                }
            }
            manifest.names = there.turns().map(|(n, t)| (n.to_owned(), t)).collect();
        }
        manifest
            .names
            .extend(names.iter().map(|name| (name.clone(), turn)));
        if manifest.name.is_empty() {
            manifest.name = names.first().cloned().unwrap_or_default();
        }
        if there.is_some() {
            self.write_manifest(&manifest)?;
        } else {
            self.publish_new(staged, &manifest)?;
        }
        // Of no consequence where it fails: the turn decides.
        if let Err(error) = self.forget_outdone() {
            drop(error);
        }
        Ok(manifest)
    }

    /// Writes out what is long. Its copy of `/root` is written out by who makes it.
    fn make_durable(&self, staged: &Path) -> Result<()> {
        self.host
            .sync_file(&staged.join(ROOTFS_FILE))
            .doing("make an image durable")
    }

    /// Puts a file, or a link to one, in the place of an image's: the same bytes. What has the old one open keeps it.
    pub(crate) fn put_rootfs(&self, file: &Path, id: &str) -> Result<()> {
        const DOING: &str = "replace an image's file";
        let dir = self.dir_of(id);
        self.host
            .rename(file, &dir.join(ROOTFS_FILE))
            .doing(DOING)?;
        self.host.sync_dir(&dir).doing(DOING)
    }

    fn publish_new(&self, staged: &Path, manifest: &Manifest) -> Result<()> {
        let json = staged.join(MANIFEST_FILE);
        self.host
            .write(&json, &text(manifest, &json)?)
            .doing("write an image's manifest")?;
        self.host.sync_file(&json).doing("make an image durable")?;
        self.host.sync_dir(staged).doing("make an image durable")?;
        let dir = self.dir_of(&manifest.id);
        if self.host.stat(&dir).doing("publish an image")?.is_some() {
            return Err(Error::NoManifest(dir));
        }
        self.host.rename(staged, &dir).doing("publish an image")?;
        self.host.sync_dir(&self.dir).doing("publish an image")
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.dir_of(&manifest.id).join(MANIFEST_FILE);
        let text = text(manifest, &path)?;
        banger_host::state_file::replace(&*self.host, &path, &text)
            .doing("write an image's manifest")
    }

    /// Takes a name from an image.
    fn take_name(&self, id: &str, name: &str) -> Result<()> {
        let Some(mut manifest) = self.manifest(id)? else {
            return Ok(());
        };
        manifest.names = manifest.turns().map(|(n, t)| (n.to_owned(), t)).collect();
        manifest.names.remove(name);
        if manifest.name == name || !manifest.names.contains_key(&manifest.name) {
            manifest.name = manifest.names.keys().next().cloned().unwrap_or_default();
        }
        self.write_manifest(&manifest)
    }

    /// Takes from older images the names that newer ones have, so that a newer one's end does not bring them back.
    fn forget_outdone(&self) -> Result<()> {
        for image in self.list()? {
            let outdone = |name: &&str| !image.names.iter().any(|n| n == name);
            let names = image.manifest.turns().map(|(name, _)| name);
            for name in names.filter(outdone) {
                self.take_name(&image.manifest.id, name)?;
            }
        }
        Ok(())
    }

    /// Bytes that an image takes on the disk, and those of them that would be free without it; what cannot be read counts
    /// nothing.
    pub fn disk_usage(&self, id: &str) -> (u64, u64) {
        home::disk_usage(&self.dir_of(id))
    }

    /// Every image's id, damaged or not.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let names = self.host.list(&self.dir).doing("list the images")?;
        Ok(names.into_iter().filter(|name| is_id(name)).collect())
    }

    fn manifest(&self, id: &str) -> Result<Option<Manifest>> {
        let path = self.dir_of(id).join(MANIFEST_FILE);
        let Some(bytes) = self.host.read(&path).doing("read an image's manifest")? else {
            return Ok(None);
        };
        let read: serde_json::Result<Manifest> = serde_json::from_slice(&bytes);
        let mut manifest = read.map_err(|source| Error::BadManifest { path, source })?;
        manifest.external = manifest.external.filter(|_| is_link(&self.dir_of(id)));
        Ok(Some(manifest))
    }
}

/// Whether an image's file is one outside. Between putting a copy in the place of the link and saying so in the manifest is a
/// moment: the file itself decides.
pub(crate) fn is_link(dir: &Path) -> bool {
    let file = std::fs::symlink_metadata(dir.join(ROOTFS_FILE));
    file.is_ok_and(|meta| meta.is_symlink())
}

fn text(manifest: &Manifest, path: &Path) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(manifest).map_err(|source| Error::BadManifest {
        path: path.to_owned(),
        source,
    })
}

/// Gives each name to the image whose turn with it came last.
fn named(images: Vec<Manifest>) -> Vec<Named> {
    let mut holders: BTreeMap<&str, (u64, u64, &str)> = BTreeMap::new();
    for image in &images {
        for (name, turn) in image.turns() {
            let claim = (turn, image.created, image.id.as_str());
            let holder = holders.entry(name).or_insert(claim);
            *holder = claim.max(*holder);
        }
    }
    let names_of = |image: &Manifest| {
        let has = |name: &str| holders.get(name).is_some_and(|(.., id)| *id == image.id);
        let mut names: Vec<String> = image
            .turns()
            .filter(|(n, _)| has(n))
            .map(|(n, _)| n.to_owned())
            .collect();
        names.sort_by_key(|name| *name != image.name);
        names
    };
    let names: Vec<_> = images.iter().map(names_of).collect();
    let both = images.into_iter().zip(names);
    let mut all: Vec<_> = both
        .map(|(manifest, names)| Named { manifest, names })
        .collect();
    all.sort_by(|a, b| {
        let key = |i: &Named| (i.names.is_empty(), i.names.first().cloned());
        let age = b.manifest.created.cmp(&a.manifest.created);
        key(a)
            .cmp(&key(b))
            .then(age)
            .then_with(|| a.manifest.id.cmp(&b.manifest.id))
    });
    all
}
