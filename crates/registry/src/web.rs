//! What lies on the web by a URL: a short document, or bytes whose sha256 is known before. They come into the cache as a
//! registry's blobs do: gone on with where they broke off, and none but proven ones.

use crate::cache::{Coming, make, part_of, proven};
use crate::retry::Retry;
use crate::route::Route;
use crate::session::wait;
use crate::{Blob, BlobCache, Error, Result, Watch};
use reqwest::{StatusCode, header::RANGE};
use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

/// How often it is told how much has come.
const TELL: Duration = Duration::from_millis(200);

/// A client of the web, for a thread that may wait.
pub struct Web<'a> {
    runtime: Runtime,
    http: reqwest::Client,
    watch: &'a dyn Watch,
}

/// What one answer came to.
enum Came {
    All,
    Cut(Error),
    TooMuch,
}

impl<'a> Web<'a> {
    /// A client with the proxies of this process. Blocks, as everything here.
    ///
    /// # Errors
    /// The machine has no threads or no TLS for it.
    pub fn new(watch: &'a dyn Watch) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Machine(Box::new(error)))?;
        let http = Route::of_environment(true, false).http();
        let http = http.map_err(|error| Error::Machine(Box::new(error)))?;
        Ok(Web {
            runtime,
            http,
            watch,
        })
    }

    /// A document of at most so many bytes.
    ///
    /// # Errors
    /// It cannot be fetched, is longer, or cancelled.
    pub fn document(&self, url: &str, most: u64) -> Result<Vec<u8>> {
        let get = async {
            let mut retry = Retry::default();
            loop {
                let (error, passes) = match self.read(url, most).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(failed) => failed,
                };
                match retry.failed().filter(|_| passes) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                }
            }
        };
        wait(&self.runtime, self.watch, get)
    }

    /// The file of these bytes; fetched, if it is not in the cache. Of several that want it one fetches it.
    ///
    /// # Errors
    /// It cannot be fetched, is something else, the disk is full, or cancelled. What has come stays unless it is wrong.
    pub fn blob(&self, cache: &BlobCache, blob: &Blob, url: &str) -> Result<PathBuf> {
        wait(&self.runtime, self.watch, self.fetch(cache, blob, url))
    }

    async fn read(&self, url: &str, most: u64) -> Result<Vec<u8>, (Error, bool)> {
        let mut answer = self.ask(url, 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| offline(url, e))? {
            if (bytes.len() + piece.len()) as u64 > most {
                let url = url.to_owned();
                return Err((Error::TooLong { url, most }, false));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// An answer that is good, or an error, and whether it may pass.
    async fn ask(&self, url: &str, from: u64) -> Result<reqwest::Response, (Error, bool)> {
        let mut request = self.http.get(url);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let answer = request.send().await.map_err(|e| offline(url, e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let (url, code) = (url.to_owned(), status.as_u16());
        Err((Error::Answer { url, code }, passes))
    }

    async fn fetch(&self, cache: &BlobCache, blob: &Blob, url: &str) -> Result<PathBuf> {
        let _turn = cache.turns.take(&blob.sha256).await;
        let path = cache.path(blob);
        let broken = |source| Error::Cache {
            path: path.clone(),
            source,
        };
        match proven(&path, blob).map_err(broken)? {
            Some(len) if len == blob.size => return Ok(path),
            Some(len) => {
                return Err(Error::Lying {
                    url: url.to_owned(),
                    found: format!("{len} bytes of {}", blob.digest()),
                    wanted: format!("{} bytes of it", blob.size),
                });
            }
            None => {}
        }
        make(path.parent().unwrap_or(&path)).map_err(broken)?;
        let mut coming = Coming::open(&part_of(&path)).map_err(broken)?;
        loop {
            let resumed = coming.resumed;
            match self.fill(&mut coming, blob, url).await {
                Ok(()) => {
                    coming.part.finish(&path).map_err(broken)?;
                    return Ok(path);
                }
                Err(Error::Lying { .. }) if resumed => coming.clear().map_err(broken)?,
                Err(error @ Error::Lying { .. }) => {
                    coming.part.discard().map_err(broken)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Fetches what is missing, and proves all of it.
    async fn fill(&self, coming: &mut Coming, blob: &Blob, url: &str) -> Result<()> {
        let lying = |found| Error::Lying {
            url: url.to_owned(),
            found,
            wanted: format!("{} bytes of {}", blob.size, blob.digest()),
        };
        let mut retry = Retry::default();
        let last = Cell::new(Instant::now());
        while coming.part.len() < blob.size {
            let before = coming.part.len();
            let came = self.receive(coming, blob, url, &last).await;
            if coming.part.len() > before {
                retry.progress();
            }
            match came? {
                Came::All if coming.part.len() < blob.size => {
                    return Err(lying(format!("{} bytes", coming.part.len())));
                }
                Came::All => {}
                Came::TooMuch => return Err(lying("more bytes".to_owned())),
                Came::Cut(error) => match retry.failed() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
            }
        }
        let found = coming.sha256();
        match found == blob.sha256 && coming.part.len() == blob.size {
            true => Ok(()),
            false => Err(lying(format!(
                "{} bytes of sha256:{found}",
                coming.part.len()
            ))),
        }
    }

    async fn receive(
        &self,
        coming: &mut Coming,
        blob: &Blob,
        url: &str,
        last: &Cell<Instant>,
    ) -> Result<Came> {
        let path = coming.part.path().to_owned();
        let full = |source| Error::Cache {
            path: path.clone(),
            source,
        };
        let mut answer = match self.ask(url, coming.part.len()).await {
            Ok(answer) => answer,
            Err((error, true)) => return Ok(Came::Cut(error)),
            Err((error, false)) => return Err(error),
        };
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            // It knows no ranges.
            coming.clear().map_err(full)?;
        }
        loop {
            let piece = match answer.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Came::All),
                Err(error) => return Ok(Came::Cut(offline(url, error).0)),
            };
            if coming.part.len() + piece.len() as u64 > blob.size {
                return Ok(Came::TooMuch);
            }
            coming.append(&piece).map_err(full)?;
            if last.get().elapsed() >= TELL {
                last.set(Instant::now());
                self.watch.moved(&[coming.part.len()]);
            }
        }
    }
}

/// A failure of the connection, which may pass.
fn offline(url: &str, error: reqwest::Error) -> (Error, bool) {
    let passes = !error.is_builder() && !error.is_redirect();
    let url = url.to_owned();
    let source = Box::new(error.without_url());
    (Error::Offline { url, source }, passes)
}
