//! The cache of blobs: `blobs/sha256/<hex>`. A blob that comes is `<hex>.part`, and has its name only when it is whole,
//! proven and durable. What has come of one stays, and the next who wants it fetches the rest.

use crate::client::{Client, Rest};
use crate::error::{Kind, kind};
use crate::prune::Holds;
use crate::retry::Retry;
use crate::turns::Turns;
use crate::{Blob, Error, Result};
use banger_host::PartFile;
use futures_util::StreamExt;
use oci_client::errors::OciDistributionError as Oci;
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Name of the directory in the state directory.
pub const BLOBS_DIR: &str = "blobs";

/// Blobs of one state directory. Clones share it.
#[derive(Debug, Clone)]
pub struct BlobCache {
    pub(crate) dir: PathBuf,
    pub(crate) turns: Turns,
    pub(crate) holds: Holds,
}

/// A blob on its way.
pub(crate) struct Coming {
    pub(crate) part: PartFile,
    hash: Sha256,
    /// Whether some of it is from an earlier time.
    pub(crate) resumed: bool,
}

/// What one answer of the registry came to.
enum Came {
    /// All that it sent is here.
    All,
    /// It broke off.
    Cut(Oci),
    /// It sent more than the blob has.
    TooMuch,
}

impl BlobCache {
    /// The cache in this directory (`<state dir>/blobs`), which the first blob makes.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        BlobCache {
            dir: dir.into(),
            turns: Turns::default(),
            holds: Holds::default(),
        }
    }

    pub(crate) fn path(&self, blob: &Blob) -> PathBuf {
        self.dir.join("sha256").join(&blob.sha256)
    }

    /// Bytes of a blob that are here already, proven or not.
    pub fn here(&self, blob: &Blob) -> u64 {
        let len = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
        let path = self.path(blob);
        len(&path).or_else(|| len(&part_of(&path))).unwrap_or(0)
    }

    /// The blob's file; fetched, if it is not here. Of several that want it one fetches it.
    pub(crate) async fn fetch(
        &self,
        client: &Client,
        blob: &Blob,
        told: &dyn Fn(u64),
    ) -> Result<PathBuf> {
        let _turn = self.turns.take(&blob.sha256).await;
        let path = self.path(blob);
        let broken = |source| Error::Cache {
            path: path.clone(),
            source,
        };
        match proven(&path, blob).map_err(broken)? {
            Some(len) if len == blob.size => {
                told(len);
                return Ok(path);
            }
            Some(len) => {
                return Err(client.tampered(&blob.digest(), format!("{len} bytes")));
            }
            None => {}
        }
        make(path.parent().unwrap_or(&self.dir)).map_err(broken)?;
        let mut coming = Coming::open(&part_of(&path)).map_err(broken)?;
        // What is left of an earlier time may be wrong; what is fetched anew and wrong is the registry's.
        loop {
            let resumed = coming.resumed;
            let proven = coming.fill(client, blob, told, &broken).await;
            match proven {
                Ok(()) => {
                    coming.part.finish(&path).map_err(broken)?;
                    return Ok(path);
                }
                Err(Error::Tampered { .. }) if resumed => coming.clear().map_err(broken)?,
                Err(error @ Error::Tampered { .. }) => {
                    coming.part.discard().map_err(broken)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Coming {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let part = PartFile::open(path)?;
        let mut hash = Sha256::new();
        part.each(&mut |bytes| {
            hash.update(bytes);
            true
        })?;
        Ok(Coming {
            resumed: !part.is_empty(),
            part,
            hash,
        })
    }

    /// Adds bytes at its end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.part.append(bytes)
    }

    /// sha256 of what is here, in hex.
    pub(crate) fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.part.clear()?;
        self.hash = Sha256::new();
        self.resumed = false;
        Ok(())
    }

    /// Fetches what is missing, and proves all of it.
    async fn fill(
        &mut self,
        client: &Client,
        blob: &Blob,
        told: &dyn Fn(u64),
        broken: &dyn Fn(io::Error) -> Error,
    ) -> Result<()> {
        let what = blob.digest();
        let mut retry = Retry::default();
        // A request for what lies behind the end would be an error.
        while self.part.len() < blob.size {
            let before = self.part.len();
            let came = self.receive(client, blob, told).await.map_err(broken)?;
            if self.part.len() > before {
                retry.progress();
            }
            let error = match came {
                Came::All if self.part.len() >= blob.size => break,
                Came::All => Oci::IoError(io::ErrorKind::UnexpectedEof.into()),
                Came::TooMuch => {
                    let found = format!("more than {} bytes", blob.size);
                    return Err(client.tampered(&what, found));
                }
                // Whole, and only the library finds fault with it: we look ourselves.
                Came::Cut(_) if self.part.len() >= blob.size => break,
                Came::Cut(error) => error,
            };
            let passes = matches!(kind(&error), Kind::Passing | Kind::Unreachable);
            match retry.failed().filter(|_| passes) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(client.failed(error, &what)),
            }
        }
        let found = self.sha256();
        match (self.part.len() == blob.size, found == blob.sha256) {
            (true, true) => Ok(()),
            (true, false) => Err(client.tampered(&what, format!("sha256:{found}"))),
            (false, _) => Err(client.tampered(&what, format!("{} bytes", self.part.len()))),
        }
    }

    /// Takes one answer of the registry.
    async fn receive(
        &mut self,
        client: &Client,
        blob: &Blob,
        told: &dyn Fn(u64),
    ) -> io::Result<Came> {
        let rest = match client.blob(blob, self.part.len()).await {
            Ok(rest) => rest,
            Err(error) => return Ok(Came::Cut(error)),
        };
        let mut stream = match rest {
            Rest::Continued(stream) => stream,
            Rest::Anew(stream) => {
                self.clear()?;
                stream
            }
        };
        while let Some(bytes) = stream.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Came::Cut(Oci::IoError(error))),
            };
            if self.part.len() + bytes.len() as u64 > blob.size {
                return Ok(Came::TooMuch);
            }
            self.append(&bytes)?;
            told(self.part.len());
        }
        Ok(Came::All)
    }
}

pub(crate) fn part_of(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// Bytes of the blob that is here, whatever somebody says that it has; a file that is not what its name says is removed.
pub(crate) fn proven(path: &Path, blob: &Blob) -> io::Result<Option<u64>> {
    if !path.exists() {
        return Ok(None);
    }
    let here = Coming::open(path)?;
    if hex(&here.hash.finalize()) == blob.sha256 {
        return Ok(Some(here.part.len()));
    }
    here.part.discard()?;
    Ok(None)
}

pub(crate) fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
