//! What lies on the web by a URL: a short document, or bytes whose sha256 is known before. They come into the cache as a
//! registry's blobs do: gone on with where they broke off, and none but proven ones.

use crate::answer::{Rest, good, ranged, whole};
use crate::cache::Source;
use crate::fault::{Fault, Said};
use crate::retry::until_answered;
use crate::route::Route;
use crate::session::{TELL, runtime, wait};
use crate::{Blob, BlobCache, Error, Result, Watch};
use banger_model::url_without_secrets;
use std::{cell::Cell, path::PathBuf, time::Instant};
use tokio::runtime::Runtime;

/// A client of the web, for a thread that may wait.
pub struct Web<'a> {
    runtime: Runtime,
    http: reqwest::Client,
    watch: &'a dyn Watch,
}

/// A place on the web.
struct Place<'a> {
    http: &'a reqwest::Client,
    url: &'a str,
}

impl<'a> Web<'a> {
    /// A client with the proxies of this process. Blocks, as everything here.
    ///
    /// # Errors
    /// The machine has no threads or no TLS for it.
    pub fn new(watch: &'a dyn Watch) -> Result<Self> {
        let http = Route::of_environment(true, false).http();
        Ok(Web {
            runtime: runtime()?,
            http: http.map_err(|error| Error::Machine(Box::new(error)))?,
            watch,
        })
    }

    /// A document of at most so many bytes.
    ///
    /// # Errors
    /// It cannot be fetched, is longer, or cancelled.
    pub fn document(&self, url: &str, most: u64) -> Result<Vec<u8>> {
        let place = Place {
            http: &self.http,
            url,
        };
        let ask = || async { whole(place.ask(0).await?, most).await };
        let get = async {
            let read = until_answered(ask).await;
            read.map_err(|fault| place.told(&fault))?
                .ok_or_else(|| Error::TooLong {
                    url: url_without_secrets(url),
                    most,
                })
        };
        wait(&self.runtime, self.watch, get)
    }

    /// The file of these bytes; fetched, if it is not in the cache. Of several that want it one fetches it.
    ///
    /// # Errors
    /// It cannot be fetched, is something else, the disk is full, or cancelled. What has come stays unless it is wrong.
    pub fn blob(&self, cache: &BlobCache, blob: &Blob, url: &str) -> Result<PathBuf> {
        let place = Place {
            http: &self.http,
            url,
        };
        let last = Cell::new(Instant::now());
        let told = |bytes| {
            if last.get().elapsed() >= TELL {
                last.set(Instant::now());
                self.watch.moved(&[bytes]);
            }
        };
        wait(&self.runtime, self.watch, cache.fetch(&place, blob, &told))
    }
}

impl Place<'_> {
    async fn ask(&self, offset: u64) -> Result<reqwest::Response, Fault> {
        good(ranged(self.http.get(self.url), offset).send().await?)
    }

    fn told(&self, fault: &Fault) -> Error {
        let url = url_without_secrets(self.url);
        match fault {
            Fault::Status(code) => Error::Answer { url, code: *code },
            _ => Error::Offline {
                url,
                source: Box::new(Said(fault.told())),
            },
        }
    }
}

impl Source for Place<'_> {
    async fn rest(&self, _: &Blob, offset: u64) -> Result<Rest, Fault> {
        Ok(Rest::of(self.ask(offset).await?, offset))
    }

    fn failed(&self, fault: &Fault, _: &Blob) -> Error {
        self.told(fault)
    }

    fn wrong(&self, found: String, blob: &Blob) -> Error {
        Error::Lying {
            url: url_without_secrets(self.url),
            found,
            wanted: format!("{} bytes of {}", blob.size, blob.digest()),
        }
    }
}
