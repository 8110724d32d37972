//! What lies on the web by a URL: a short document, or bytes whose sha256 is known before. They come into the cache as a
//! registry's blobs do: gone on with where they broke off, and none but proven ones.

use crate::answer::{Rest, good, ranged, whole};
use crate::cache::Source;
use crate::fault::{Fault, Said};
use crate::retry::until_answered;
use crate::route::Route;
use crate::runtime::Runtime;
use crate::session::TELL;
use crate::{Blob, BlobCache, Error, Result, Watch};
use banger_model::url_without_secrets;
use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Longest a document takes. Silence alone would let a server that sends a byte now and then hold up whoever asks for ever.
const DEADLINE: Duration = Duration::from_secs(60);

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
            runtime: Runtime::new()?,
            http: http.map_err(|error| Error::Machine(Box::new(error)))?,
            watch,
        })
    }

    /// A document of at most so many bytes, within a minute.
    ///
    /// # Errors
    /// It cannot be fetched, is longer, or cancelled.
    pub fn document(&self, url: &str, most: u64) -> Result<Vec<u8>> {
        self.document_within(DEADLINE, url, most)
    }

    fn document_within(&self, deadline: Duration, url: &str, most: u64) -> Result<Vec<u8>> {
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
        let late = |_| Fault::Odd(format!("it is not here after {} s", deadline.as_secs()));
        self.runtime.wait(self.watch, async {
            let got = tokio::time::timeout(deadline, get).await;
            got.map_err(|error| place.told(&late(error)))?
        })
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
        self.runtime
            .wait(self.watch, cache.fetch(&place, blob, &told))
    }
}

impl Place<'_> {
    async fn ask(&self, offset: u64) -> Result<reqwest::Response, Fault> {
        good(ranged(self.http.get(self.url), offset).send().await?)
    }

    fn told(&self, fault: &Fault) -> Error {
        let url = url_without_secrets(self.url);
        match fault.status() {
            Some(code) => Error::Answer { url, code },
            None => Error::Offline {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nobody;
    use std::{io::Write, net::TcpListener, thread};

    /// Never silent, and never done.
    #[test]
    fn a_document_that_trickles_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/catalog.json", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
            let mut sent = stream.write_all(head);
            for _ in 0..300 {
                thread::sleep(Duration::from_millis(100));
                sent = sent.and_then(|()| stream.write_all(b" "));
            }
        });
        let began = Instant::now();
        let web = Web::new(&Nobody).unwrap();
        let got = web.document_within(Duration::from_secs(1), &url, 1 << 20);
        let error = got.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "it is not here after 1 s");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
