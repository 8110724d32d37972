//! The cache of blobs: `blobs/sha256/<hex>`. A blob that comes is `<hex>.part`, and has its name only when it is whole,
//! proven and durable. What has come of one stays, and the next who wants it fetches the rest.

use crate::answer::Rest;
use crate::coming::Coming;
use crate::fault::Fault;
use crate::prune::Holds;
use crate::turns::Turns;
use crate::{Blob, Error, Result};
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

/// Removes a file in which nothing is when it is dropped, whether who made it failed, left, or gave it another name.
struct Nothing<'a>(&'a Path);

impl Drop for Nothing<'_> {
    fn drop(&mut self) {
        if fs::metadata(self.0).is_ok_and(|meta| meta.len() == 0) {
            // One that stays is an empty file, which the next one goes on with.
            let _ = fs::remove_file(self.0);
        }
    }
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
        match proven(&path, blob).await.map_err(broken)? {
            Some(len) if len == blob.size => {
                told(len);
                return Ok(path);
            }
            Some(len) => return Err(source.wrong(format!("{len} bytes"), blob)),
            None => {}
        }
        make(path.parent().unwrap_or(&self.dir)).map_err(broken)?;
        let part = part_of(&path);
        let _nothing = Nothing(&part);
        let mut coming = Coming::open(&part).await.map_err(broken)?;
        // What is left of an earlier time may be wrong; what is fetched anew and wrong is the source's.
        loop {
            let resumed = coming.resumed;
            coming.fill(source, blob, told, &broken).await?;
            let Some(found) = coming.fault(blob) else {
                coming.finish(&path).await.map_err(broken)?;
                return Ok(path);
            };
            if !resumed {
                coming.discard().map_err(broken)?;
                return Err(source.wrong(found, blob));
            }
            coming.clear().map_err(broken)?;
        }
    }
}

fn part_of(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// Bytes of the blob that is here, whatever somebody says that it has; a file that is not what its name says is removed.
async fn proven(path: &Path, blob: &Blob) -> io::Result<Option<u64>> {
    if !path.exists() {
        return Ok(None);
    }
    let here = Coming::open(path).await?;
    if here.sha256() == blob.sha256 {
        return Ok(Some(here.len()));
    }
    here.discard()?;
    Ok(None)
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
