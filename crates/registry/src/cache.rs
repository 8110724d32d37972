//! The cache of blobs: `blobs/sha256/<hex>`. A blob that comes is `<hex>.part`, and has its name only when it is whole,
//! proven and durable. What has come of one stays, and the next who wants it fetches the rest.

use crate::answer::Rest;
use crate::fault::{Fault, Kind};
use crate::prune::Holds;
use crate::retry::Retry;
use crate::turns::Turns;
use crate::{Blob, Error, Result, hex};
use banger_host::PartFile;
use reqwest::{Response, header::TRANSFER_ENCODING};
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
struct Coming {
    part: PartFile,
    hash: Sha256,
    /// Whether some of it is from an earlier time.
    resumed: bool,
}

/// What one answer came to.
enum Came {
    /// All that there is is here.
    All,
    /// It broke off, or there was none.
    Cut(Fault),
    /// It has more than the blob.
    TooMuch,
}

/// Where a blob is to be had, and what is said of it if it is not.
pub(crate) trait Source {
    /// Its bytes from this offset on. Who asks tries again.
    async fn rest(&self, blob: &Blob, offset: u64) -> Result<Rest, Fault>;
    /// There was no good answer.
    fn failed(&self, fault: &Fault, blob: &Blob) -> Error;
    /// What there is is something else.
    fn wrong(&self, found: String, blob: &Blob) -> Error;
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
        source: &impl Source,
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
            Some(len) => return Err(source.wrong(format!("{len} bytes"), blob)),
            None => {}
        }
        make(path.parent().unwrap_or(&self.dir)).map_err(broken)?;
        let mut coming = Coming::open(&part_of(&path)).map_err(broken)?;
        // What is left of an earlier time may be wrong; what is fetched anew and wrong is the source's.
        loop {
            let resumed = coming.resumed;
            coming.fill(source, blob, told, &broken).await?;
            let Some(found) = coming.fault(blob) else {
                coming.part.finish(&path).map_err(broken)?;
                return Ok(path);
            };
            if !resumed {
                coming.part.discard().map_err(broken)?;
                return Err(source.wrong(found, blob));
            }
            coming.clear().map_err(broken)?;
        }
    }
}

impl Coming {
    fn open(path: &Path) -> io::Result<Self> {
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
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.part.append(bytes)
    }

    /// What is here instead of the blob, if it is something else.
    fn fault(&self, blob: &Blob) -> Option<String> {
        let len = self.part.len();
        if len > blob.size {
            return Some(format!("more than {} bytes", blob.size));
        }
        if len < blob.size {
            return Some(format!("{len} bytes"));
        }
        let found = hex(&self.hash.clone().finalize());
        (found != blob.sha256).then(|| format!("sha256:{found}"))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.part.clear()?;
        self.hash = Sha256::new();
        self.resumed = false;
        Ok(())
    }

    /// Fetches what is missing, until there is no more, or more than there may be.
    async fn fill(
        &mut self,
        source: &impl Source,
        blob: &Blob,
        told: &dyn Fn(u64),
        broken: &dyn Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut retry = Retry::default();
        // A request for what lies behind the end would be an error.
        while self.part.len() < blob.size {
            let before = self.part.len();
            let came = self.receive(source, blob, told).await.map_err(broken)?;
            if self.part.len() > before {
                retry.progress();
            }
            let fault = match came {
                Came::All | Came::TooMuch => break,
                // Whole, and its end is all that is wrong.
                Came::Cut(_) if self.part.len() >= blob.size => break,
                Came::Cut(fault) => fault,
            };
            let passes = matches!(fault.kind(), Kind::Passing | Kind::Unreachable);
            match retry.failed().filter(|_| passes) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(source.failed(&fault, blob)),
            }
        }
        Ok(())
    }

    /// Takes one answer.
    async fn receive(
        &mut self,
        source: &impl Source,
        blob: &Blob,
        told: &dyn Fn(u64),
    ) -> io::Result<Came> {
        let mut answer = match source.rest(blob, self.part.len()).await {
            Ok(Rest::Continued(answer)) => answer,
            Ok(Rest::Anew(answer)) => {
                self.clear()?;
                answer
            }
            // Nothing lies behind what is here.
            Err(Fault::Status(416)) => return Ok(Came::All),
            Err(fault) => return Ok(Came::Cut(fault)),
        };
        let says_its_end = says_its_end(&answer);
        loop {
            let bytes = match answer.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) if says_its_end => return Ok(Came::All),
                Ok(None) => return Ok(Came::Cut(Fault::Cut)),
                Err(error) => return Ok(Came::Cut(error.into())),
            };
            // One byte too many is enough to tell.
            let room = usize::try_from(blob.size.saturating_sub(self.part.len()).saturating_add(1));
            let taken = bytes.len().min(room.unwrap_or(usize::MAX));
            self.append(&bytes[..taken])?;
            if self.part.len() > blob.size {
                return Ok(Came::TooMuch);
            }
            told(self.part.len());
        }
    }
}

/// Whether the end of an answer is told from its connection's (RFC 9112, section 6.3).
fn says_its_end(answer: &Response) -> bool {
    answer.content_length().is_some() || answer.headers().contains_key(TRANSFER_ENCODING)
}

fn part_of(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// Bytes of the blob that is here, whatever somebody says that it has; a file that is not what its name says is removed.
fn proven(path: &Path, blob: &Blob) -> io::Result<Option<u64>> {
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

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
