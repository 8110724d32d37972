//! Images whose file system lies outside: registered by its path, and known again by what it was (R-IMG-6). In the image's
//! directory a symlink stands for it, so that whatever reads an image reads this one too.

use crate::manifest::ROOTFS_FILE;
use crate::store::is_link;
use crate::{Error, ImageStore, Import, Manifest, Progress, Result, digest, import};
use banger_host::{Clock, Files, Tools};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A file outside, and what it was when it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Its absolute path.
    pub path: PathBuf,
    /// Device it is on.
    pub device: u64,
    /// Number of its inode.
    pub inode: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Time of its last change: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
}

impl External {
    fn of(path: &Path, file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(External {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// The file outside of the image in this directory; `None` if it has its own, or cannot be read, which is told by who
    /// opens it.
    pub fn of_image(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join(crate::manifest::MANIFEST_FILE)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        manifest.external.filter(|_| is_link(dir))
    }

    /// Refuses a file that is not the one that was registered.
    ///
    /// # Errors
    /// It is gone, another one, or was written to.
    pub fn check(&self) -> Result<()> {
        let file = open(&self.path)?;
        let unreadable = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let now = External::of(&self.path, &file).map_err(unreadable)?;
        match now.is_same(self) {
            true => Ok(()),
            false => Err(Error::BaseChanged(self.path.clone())),
        }
    }

    /// Whether it is the same file as far as that lasts: the number of a device may be another one after a restart of the
    /// machine, or when the file system is mounted anew.
    fn is_same(&self, other: &External) -> bool {
        let device = other.device;
        External {
            device,
            ..self.clone()
        } == *other
    }
}

/// Opens a regular file, never through a symlink that is its last component; what is none is not waited for.
fn open(path: &Path) -> Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(Error::NotAFile(path.to_owned()));
        }
        file => file.map_err(unreadable)?,
    };
    match file.metadata().map_err(unreadable)?.is_file() {
        true => Ok(file),
        false => Err(Error::NotAFile(path.to_owned())),
    }
}

impl<H: Files + Tools + Clock + Send + Sync> ImageStore<H> {
    /// Makes an image of an ext4 file that stays where it is. It is opened once, as whoever runs this, and must be the same at
    /// the end.
    ///
    /// # Errors
    /// No regular file with a clean ext4 file system, a name is taken, or cancelled.
    pub fn register(
        &self,
        path: &Path,
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Manifest> {
        self.check_import(import)?;
        let file = open(path)?;
        let unreadable = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let external = External::of(path, &file).map_err(unreadable)?;
        import::check_superblock(path, external.size)?;
        progress.stage("checking the image");
        let (digest, size) = self.proven(path, None, progress)?;
        external.check()?;
        self.staged(|staging| {
            let link = staging.image().join(ROOTFS_FILE);
            std::os::unix::fs::symlink(path, &link).map_err(Error::unwritten)?;
            let manifest = Manifest {
                format: Manifest::FORMAT,
                id: digest[..Manifest::ID_DIGITS].to_owned(),
                name: import.names.first().cloned().unwrap_or_default(),
                distro: String::new(),
                arch: std::env::consts::ARCH.to_owned(),
                digest: format!("sha256:{digest}"),
                size,
                created: self.host.now(),
                kernel: None,
                names: Default::default(),
                source: import.source.clone(),
                repo_digests: Default::default(),
                config: None,
                origin: None,
                external: Some(external.clone()),
            };
            self.publish(&staging.image(), manifest, &import.names, import.moves)
        })
    }

    /// Copies the file of a registered image in, sharing its blocks where the file system can; one that is here already
    /// stays as it is. What uses the image goes on with the file it has.
    ///
    /// # Errors
    /// The file is not the one that was registered, no room, an effect failed, or cancelled.
    pub fn promote(&self, image: &Manifest, progress: &dyn Progress) -> Result<()> {
        let Some(external) = &image.external else {
            return Ok(());
        };
        external.check()?;
        self.check_room((image.size >> 20) + import::ROOM_MIB / 2)?;
        self.staged(|staging| {
            progress.stage("copying the image");
            let copied = staging.image().join(ROOTFS_FILE);
            let to = File::create_new(&copied).map_err(Error::unwritten)?;
            let from = open(&external.path)?;
            banger_host::linux::copy_file(&from, &to).map_err(Error::unwritten)?;
            to.sync_all().map_err(Error::unwritten)?;
            let (digest, _) = digest::sha256_file(&copied, &|| progress.cancelled())?;
            if format!("sha256:{digest}") != image.digest {
                return Err(Error::BaseChanged(external.path.clone()));
            }
            self.take_in(image, &copied)
        })
    }

    /// Puts the copy in the place of the link. Cut between the two steps the image has its own file, and is known to.
    fn take_in(&self, image: &Manifest, copied: &Path) -> Result<()> {
        let _lock = self.publish_lock()?;
        let found = self.inspect(&image.id)?;
        self.put_rootfs(copied, &image.id)?;
        self.write_manifest(&Manifest {
            external: None,
            ..found.manifest
        })
    }
}
