//! One pull's talk with a registry, for a thread that may wait: the asynchronous part has a runtime of its own, so that
//! neither hashing nor a slow disk holds up anybody else.

use crate::cache::BlobCache;
use crate::client::Client;
use crate::runtime::Runtime;
use crate::turns::{Turn, Turns};
use crate::{Access, Blob, Result};
use banger_model::ImageReference;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often it is told how much has come.
pub(crate) const TELL: Duration = Duration::from_millis(200);
/// Blobs on their way at once; Docker has as many.
const AT_ONCE: usize = 3;

/// What a pull tells and asks while it runs.
pub trait Watch {
    /// So many bytes of each blob are here.
    fn moved(&self, bytes: &[u64]);
    /// A blob is here, the n-th of all.
    fn arrived(&self, blob: &Blob, n: usize);
    /// True ends it.
    fn cancelled(&self) -> bool;
}

/// Nobody who is told, or could leave.
pub struct Nobody;

impl Watch for Nobody {
    fn moved(&self, _: &[u64]) {}
    fn arrived(&self, _: &Blob, _: usize) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// A talk with a registry about one image.
pub struct Session<'a> {
    runtime: Runtime,
    client: Client,
    watch: &'a dyn Watch,
}

impl<'a> Session<'a> {
    /// Begins it. Blocks, as everything here.
    ///
    /// # Errors
    /// Nobody answers, it wants another user, or cancelled.
    pub fn open(reference: &ImageReference, access: &Access, watch: &'a dyn Watch) -> Result<Self> {
        let runtime = Runtime::new()?;
        let client = runtime.wait(watch, Client::open(reference, access))?;
        Ok(Session {
            runtime,
            client,
            watch,
        })
    }

    /// The digest of what the reference means now.
    ///
    /// # Errors
    /// There is no such image, the registry fails, or cancelled.
    pub fn digest(&self) -> Result<String> {
        self.wait(self.client.digest())
    }

    /// The document of a digest, proven.
    ///
    /// # Errors
    /// It is not there, the registry fails, or cancelled.
    pub fn document(&self, digest: &str) -> Result<Vec<u8>> {
        self.wait(self.client.document(digest))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Cancelled.
    pub fn turn(&self, turns: &Turns, what: &str) -> Result<Turn> {
        self.wait(async { Ok(turns.take(what).await) })
    }

    /// The files of blobs, in their order; those that are not in the cache are fetched, several at once.
    ///
    /// # Errors
    /// One is not there, is not what it should be, the registry fails, the disk is full, or cancelled. What has come
    /// stays.
    pub fn blobs(&self, cache: &BlobCache, blobs: &[Blob]) -> Result<Vec<PathBuf>> {
        let told = Told {
            watch: self.watch,
            bytes: RefCell::new(vec![0; blobs.len()]),
            arrived: Cell::new(0),
            last: Cell::new(Instant::now()),
        };
        let fetch = |n: usize| {
            let (told, blob) = (&told, &blobs[n]);
            async move {
                let path = cache
                    .fetch(&self.client, blob, &|bytes| told.moved(n, bytes))
                    .await?;
                told.arrived(n, blob);
                Ok(path)
            }
        };
        let all = stream::iter((0..blobs.len()).map(fetch)).buffered(AT_ONCE);
        self.wait(all.try_collect())
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.wait(self.watch, work)
    }
}

/// Adds up what has come of all blobs.
struct Told<'a> {
    watch: &'a dyn Watch,
    bytes: RefCell<Vec<u64>>,
    arrived: Cell<usize>,
    last: Cell<Instant>,
}

impl Told<'_> {
    fn moved(&self, n: usize, bytes: u64) {
        self.bytes.borrow_mut()[n] = bytes;
        if self.last.get().elapsed() >= TELL {
            self.last.set(Instant::now());
            self.watch.moved(&self.bytes.borrow());
        }
    }

    fn arrived(&self, n: usize, blob: &Blob) {
        self.bytes.borrow_mut()[n] = blob.size;
        self.arrived.set(self.arrived.get() + 1);
        self.watch.arrived(blob, self.arrived.get());
        self.watch.moved(&self.bytes.borrow());
    }
}
