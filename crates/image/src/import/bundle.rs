//! Bundles on their way in: exactly two files, and the file system is the one that the other file speaks of (R-IMG-1).

use super::{Said, archive, spool};
use crate::bundle::{BundleManifest, MANIFEST_NAME, ROOTFS_NAME};
use crate::layer::{self, Content, Entry, Piece, Watch, What};
use crate::oci::DOCUMENT_MAX;
use crate::{Error, Result};
use banger_model::hex;
use sha2::{Digest, Sha256};
use std::{io::Read, os::unix::fs::FileExt, path::Path};

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// A file of an archive: its length, and where its bytes are in the unpacked stream.
#[derive(Debug, Default)]
struct Place {
    size: u64,
    pieces: Vec<Piece>,
}

/// What of an archive's entries tells whether it is a bundle.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rootfs: Option<Place>,
    manifest: Option<Place>,
    /// The first entry that a bundle has not, and why.
    other: Option<(Vec<u8>, &'static str)>,
}

/// A bundle in an archive.
#[derive(Debug)]
pub(super) struct Bundle {
    rootfs: Place,
    manifest: Place,
}

impl Seen {
    /// Looks at an entry.
    pub(super) fn take(&mut self, entry: &Entry) {
        let place = match &*entry.path {
            // The directory that all is in is no file.
            b"" => return,
            path if path == ROOTFS_NAME.as_bytes() => &mut self.rootfs,
            path if path == MANIFEST_NAME.as_bytes() => &mut self.manifest,
            _ => {
                return self.refuse(
                    entry,
                    "a bundle has rootfs.ext4 and manifest.json, and nothing else",
                );
            }
        };
        match &entry.what {
            What::File { size, pieces } if place.is_none() => {
                *place = Some(Place {
                    size: *size,
                    pieces: pieces.clone(),
                });
            }
            What::File { .. } => self.refuse(entry, "a bundle has each of its files once"),
            _ => self.refuse(entry, "a bundle's files are files"),
        }
    }

    fn refuse(&mut self, entry: &Entry, why: &'static str) {
        self.other.get_or_insert_with(|| (entry.path.clone(), why));
    }

    /// The bundle, if the archive is one: `None` if it has no file system at its top, or is a root file system that has a
    /// file of that name.
    ///
    /// # Errors
    /// It has more or less than a bundle's two files.
    pub(super) fn bundle(self, is_root: bool) -> Result<Option<Bundle>> {
        let Some(rootfs) = self.rootfs else {
            return Ok(None);
        };
        if is_root && self.manifest.is_none() {
            return Ok(None);
        }
        if let Some((entry, why)) = self.other {
            return Err(Error::refused(&entry, why));
        }
        let manifest = self.manifest.ok_or_else(|| {
            Error::BadBundle(format!("{ROOTFS_NAME} is there, and no {MANIFEST_NAME}"))
        })?;
        Ok(Some(Bundle { rootfs, manifest }))
    }
}

impl Bundle {
    /// Brings the file system to its place; what is said of it is given back.
    ///
    /// # Errors
    /// It is not what the manifest says, of another machine, damaged; no room; cancelled.
    pub(super) fn unpack(&self, spooled: &Path, to: &Path, watch: &Watch<'_>) -> Result<Said> {
        let told = self.told(spooled, watch)?;
        let file = spool::create(to).map_err(Error::unwritten)?;
        file.set_len(self.rootfs.size).map_err(Error::unwritten)?;
        let mut sha256 = Sha256::new();
        let zeros = vec![0; CHUNK];
        let mut at = 0;
        let hash_holes = |sha256: &mut Sha256, from: u64, to: u64| -> Result<()> {
            let mut left = to - from;
            while left > 0 {
                watch.go_on(None)?;
                let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                sha256.update(&zeros[..n]);
                left -= n as u64;
            }
            Ok(())
        };
        self.rootfs.read(spooled, watch, &mut |offset, bytes| {
            hash_holes(&mut sha256, at, offset)?;
            sha256.update(bytes);
            at = offset + bytes.len() as u64;
            file.write_all_at(bytes, offset).map_err(Error::unwritten)
        })?;
        hash_holes(&mut sha256, at, self.rootfs.size)?;
        let found = hex::encode(&sha256.finalize());
        if told.digest != format!("sha256:{found}") {
            let why = format!(
                "{ROOTFS_NAME} has the digest sha256:{found}, and should have {}",
                layer::shown(told.digest.as_bytes())
            );
            return Err(Error::BadBundle(why));
        }
        Ok(Said {
            digest: Some(found),
            config: told.config,
            origin: told.origin,
            distro: told.distro,
            kernel: told.kernel,
        })
    }

    /// What the manifest says, as far as it can be known to be true already.
    fn told(&self, spooled: &Path, watch: &Watch<'_>) -> Result<BundleManifest> {
        if self.manifest.size > DOCUMENT_MAX {
            let why = format!("{MANIFEST_NAME} has {} bytes", self.manifest.size);
            return Err(Error::BadBundle(why));
        }
        let mut text = vec![0; usize::try_from(self.manifest.size).unwrap_or(0)];
        // It may lie behind the file system, which is read for it once more.
        self.manifest
            .read(spooled, &watch.again(), &mut |offset, bytes| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let place = text.get_mut(start..).unwrap_or_default();
                let n = place.len().min(bytes.len());
                place[..n].copy_from_slice(&bytes[..n]);
                Ok(())
            })?;
        let told: BundleManifest = serde_json::from_slice(&text).map_err(|error| {
            Error::BadBundle(format!("{MANIFEST_NAME} cannot be read: {error}"))
        })?;
        if told.format != BundleManifest::FORMAT {
            let why = format!("{MANIFEST_NAME} is of format {}", told.format);
            return Err(Error::BadBundle(why));
        }
        if told.arch != std::env::consts::ARCH {
            let arch = layer::shown(told.arch.as_bytes());
            return Err(Error::OtherPlatform(format!("linux/{arch}")));
        }
        if told.size != self.rootfs.size {
            let (found, told) = (self.rootfs.size, told.size);
            let why = format!("{ROOTFS_NAME} has {found} bytes, and should have {told}");
            return Err(Error::BadBundle(why));
        }
        // What nobody packed counts, too: a hole is as long to prove as any bytes.
        watch.limits().check_size(self.rootfs.size)?;
        Ok(told)
    }
}

impl Place {
    /// Gives the file's bytes but for long runs of zeros, each with its offset.
    fn read(
        &self,
        spooled: &Path,
        watch: &Watch<'_>,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let blob = archive::open(spooled)?;
        let mut reader = blob.reader();
        let Content::Tar(mut stream) = layer::open(&mut reader)? else {
            return Err(Error::Truncated);
        };
        let (mut buffer, mut mark, mut at) = (vec![0; CHUNK], layer::Mark::default(), 0);
        for piece in &self.pieces {
            let end = piece.from + piece.len;
            while at < end {
                // Up to the piece, then it.
                let until = if at < piece.from { piece.from } else { end };
                let want = usize::try_from(until - at).map_or(CHUNK, |left| left.min(CHUNK));
                let n = stream.read(&mut buffer[..want]).map_err(Error::damaged)?;
                if n == 0 {
                    return Err(Error::Truncated);
                }
                if at >= piece.from {
                    take(piece.offset + (at - piece.from), &buffer[..n])?;
                }
                at += n as u64;
                watch.look_up(&stream, &mut mark)?;
            }
        }
        Ok(())
    }
}
