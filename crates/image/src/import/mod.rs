//! Images from what a user has: an archive of a root file system, or an ext4 file (R-IMG-1).

mod archive;
mod bundle;
mod layers;
mod spool;

use crate::ext4;
use crate::layer::{self, Content, Unpacked};
use crate::manifest::{self, ROOTFS_FILE};
use crate::staging::Staging;
use crate::{Error, ImageStore, Limits, Manifest, Progress, Result, digest};
use banger_host::{Clock, Files, Tools, tree};
use banger_model::{ImageConfig, ImageOrigin};
use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Free space an import leaves: below it VMs are held still, because their disks could not grow.
pub(crate) const ROOM_MIB: u64 = 1024;

/// What to make of what is imported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Names of the image, at least one.
    pub names: Vec<String>,
    /// Which of them may be other images' now.
    pub moves: Moves,
    /// Of an archive of several images the one that is called so.
    pub only: Option<String>,
    /// Where it comes from, for a person.
    pub source: Option<String>,
    /// The digest it has in a registry, with the repository.
    pub repo_digest: Option<String>,
    /// Distribution and release, where the source does not say it itself.
    pub distro: Option<String>,
    /// Kernel that suits it, where the source does not say it itself.
    pub kernel: Option<String>,
}

/// Which names move to a new image from others that have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Moves {
    /// None: a name that is taken is refused.
    #[default]
    None,
    /// The first, as a registry's tag does, and with it those of the image that had it.
    First,
    /// All.
    All,
}

/// What is known of an image beside its files when they have been written.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// sha256 of the file system, where it was made while that was written.
    pub digest: Option<String>,
    /// How it is run.
    pub config: Option<ImageConfig>,
    /// How it was built.
    pub origin: Option<ImageOrigin>,
    /// Distribution and release.
    pub distro: String,
    /// Kernel that suits it.
    pub kernel: Option<String>,
}

impl<H: Files + Tools + Clock + Send + Sync> ImageStore<H> {
    /// Everything that would keep [`ImageStore::import`] from importing, as far as it can be known before a byte has
    /// come.
    ///
    /// # Errors
    /// A bad name, a name that is taken, no room, a missing program.
    pub fn check_import(&self, import: &Import) -> Result<()> {
        import
            .names
            .iter()
            .try_for_each(|n| manifest::check_name(n))?;
        self.check_names(&import.names, import.moves, None)?;
        ext4::e2fsck(&*self.host)?;
        self.check_room(ROOM_MIB)
    }

    /// Makes an image of what the stream brings: a tar (plain or packed with gzip, xz or zstd) of a root file system or
    /// of an image's layers (an OCI layout, `docker save`), a bundle, or an ext4 file system, told by its content. Failed or cancelled, nothing is left behind.
    ///
    /// # Errors
    /// It is none of these, cut short, damaged or refused; a name is taken; a failing program; cancelled.
    pub fn import(
        &self,
        source: &mut dyn Read,
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Manifest> {
        self.check_import(import)?;
        self.staged(|staging| {
            progress.stage("receiving");
            let said = self.fill(staging, source, import, progress)?;
            self.import_staged(staging, said, import, progress)
        })
    }

    /// Makes an image of a file system that lies in the staging directory.
    pub(crate) fn import_staged(
        &self,
        staging: &Staging,
        said: Said,
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Manifest> {
        let rootfs = staging.image().join(ROOTFS_FILE);
        progress.stage("checking the image");
        let (digest, size) = std::thread::scope(|scope| {
            scope.spawn(|| archive::forget_sources(staging));
            self.proven(&rootfs, said.digest, progress)
        })?;
        let manifest = Manifest {
            format: Manifest::FORMAT,
            id: digest[..Manifest::ID_DIGITS].to_owned(),
            name: import.names.first().cloned().unwrap_or_default(),
            distro: match said.distro.is_empty() {
                true => import.distro.clone().unwrap_or_default(),
                false => said.distro,
            },
            arch: std::env::consts::ARCH.to_owned(),
            digest: format!("sha256:{digest}"),
            size,
            created: self.host.now(),
            kernel: said.kernel.or_else(|| import.kernel.clone()),
            names: Default::default(),
            source: import.source.clone(),
            repo_digests: import.repo_digest.iter().cloned().collect(),
            config: said.config,
            origin: said.origin,
            external: None,
        };
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        self.publish(&staging.image(), manifest, &import.names, import.moves)
    }

    /// Digest and length of a file system in which e2fsck finds no fault. It is read by e2fsck, which first has it written
    /// out, and for the digest, where that is not known yet, at the same time.
    pub(crate) fn proven(
        &self,
        rootfs: &Path,
        known: Option<String>,
        progress: &dyn Progress,
    ) -> Result<(String, u64)> {
        let failed = AtomicBool::new(false);
        let cancelled = || progress.cancelled() || failed.load(Ordering::Relaxed);
        let (checked, digest) = std::thread::scope(|scope| {
            let digest = scope.spawn(|| match known {
                Some(digest) => length(rootfs).map(|len| (digest, len)),
                None => digest::sha256_file(rootfs, &cancelled),
            });
            let checked = ext4::check(&*self.host, rootfs, &|| progress.cancelled());
            failed.store(checked.is_err(), Ordering::Relaxed);
            (checked, digest.join())
        });
        checked.map_err(|error| match error {
            Error::Tool { source, .. } => {
                Error::BadFileSystem(format!("e2fsck finds faults ({source})"))
            }
            other => other,
        })?;
        digest.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Makes the image's file system and what is kept beside it.
    pub(crate) fn fill(
        &self,
        staging: &Staging,
        source: &mut dyn Read,
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Said> {
        let rootfs = staging.image().join(ROOTFS_FILE);
        let spooled = staging.dir().join(archive::SPOOL);
        let (mut kept, keeping) = spool::Spool::new(source, &spooled).map_err(Error::unwritten)?;
        let mut said = Said::default();
        match layer::open(&mut kept)? {
            Content::Tar(archive) => {
                said = self.import_archive(staging, archive, import, progress)?;
            }
            Content::Ext4(mut stream) => {
                keeping.stop();
                let mut watched = Watched {
                    stream: &mut stream,
                    limits: &self.limits,
                    room: &|| self.check_room(ROOM_MIB),
                    progress,
                    refused: None,
                    told: Instant::now(),
                };
                let spooled = tree::spool(&rootfs, &mut watched);
                if let Some(refused) = watched.refused {
                    return Err(refused);
                }
                let len = spooled.map_err(|error| spool_failed(error, &rootfs))?;
                check_superblock(&rootfs, len)?;
            }
        }
        Ok(said)
    }
}

fn length(path: &Path) -> Result<u64> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    path.metadata().map(|meta| meta.len()).map_err(unreadable)
}

/// A file system on its way into a file: cancelled, within limits, and told of.
struct Watched<'a, 'b> {
    stream: &'a mut Unpacked<'b>,
    limits: &'a Limits,
    room: &'a dyn Fn() -> Result<()>,
    progress: &'a dyn Progress,
    refused: Option<Error>,
    told: Instant,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let counts = self.stream.counts();
        let mut fine = match self.progress.cancelled() {
            true => Err(Error::Cancelled),
            false => self.limits.check_stream(counts),
        };
        if self.told.elapsed() >= layer::TELL {
            self.told = Instant::now();
            self.progress.moved(counts.0);
            fine = fine.and_then(|()| (self.room)());
        }
        if let Err(error) = fine {
            self.refused = Some(error);
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        self.stream.read(buffer)
    }
}

fn spool_failed(error: std::io::Error, path: &Path) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull {
            doing: "writing the image",
            source: error,
        },
        std::io::ErrorKind::PermissionDenied => Error::Read {
            path: PathBuf::from(path),
            source: error,
        },
        _ => Error::damaged(error),
    }
}

/// Refuses what e2fsck would accept and no guest could use as a base that is never written
/// (Documentation/filesystems/ext4/super.rst).
pub(crate) fn check_superblock(path: &Path, len: u64) -> Result<()> {
    let mut head = vec![0; 2048];
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    (&file).read_exact(&mut head).map_err(unreadable)?;
    let word = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u64::from(u32::from_le_bytes(bytes))
    };
    const SUPER: usize = 1024;
    const RECOVER: u64 = 0x4;
    const JOURNAL_DEVICE: u64 = 0x8;
    const BITS_64: u64 = 0x80;
    let incompatible = word(SUPER + 0x60);
    let high = match incompatible & BITS_64 {
        0 => 0,
        _ => word(SUPER + 0x150) << 32,
    };
    let block = 1024_u64 << word(SUPER + 0x18).min(6);
    let bytes = (word(SUPER + 0x04) | high).saturating_mul(block);
    if incompatible & JOURNAL_DEVICE != 0 {
        return Err(Error::NotAnImage("it is an ext4 journal".to_owned()));
    }
    if bytes > len {
        return Err(Error::Truncated);
    }
    if incompatible & RECOVER != 0 {
        return Err(Error::BadFileSystem(
            "it was not unmounted cleanly, and its journal waits to be replayed".to_owned(),
        ));
    }
    Ok(())
}
