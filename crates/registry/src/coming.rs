//! A blob on its way: what is here of it, and the rest, from however many answers that takes.

use crate::answer::Rest;
use crate::cache::Source;
use crate::fault::{Fault, Kind};
use crate::retry::Retry;
use crate::{Blob, Error, Result};
use banger_host::PartFile;
use banger_model::hex;
use reqwest::{Response, header::TRANSFER_ENCODING};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A blob on its way.
pub(crate) struct Coming {
    part: PartFile,
    hash: Sha256,
    /// Whether some of it is from an earlier time.
    pub(crate) resumed: bool,
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

impl Coming {
    /// With what is here already.
    pub(crate) async fn open(path: &Path) -> io::Result<Self> {
        let part = PartFile::open(path)?;
        let work = move |left: &AtomicBool| {
            let mut hash = Sha256::new();
            part.each(&mut |bytes| {
                hash.update(bytes);
                !left.load(Ordering::Relaxed)
            })?;
            Ok((part, hash))
        };
        let (part, hash) = apart(work).await?;
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

    /// Bytes that are here.
    pub(crate) const fn len(&self) -> u64 {
        self.part.len()
    }

    /// The digest of what is here, in hex.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(&self.hash.clone().finalize())
    }

    /// What is here instead of the blob, if it is something else.
    pub(crate) fn fault(&self, blob: &Blob) -> Option<String> {
        let len = self.part.len();
        if len > blob.size {
            return Some(format!("more than {} bytes", blob.size));
        }
        if len < blob.size {
            return Some(format!("{len} bytes"));
        }
        let found = self.sha256();
        (found != blob.sha256).then(|| format!("sha256:{found}"))
    }

    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.part.clear()?;
        self.hash = Sha256::new();
        self.resumed = false;
        Ok(())
    }

    pub(crate) fn discard(self) -> io::Result<()> {
        self.part.discard()
    }

    /// Gives it its name; it is durable then.
    pub(crate) async fn finish(self, to: &Path) -> io::Result<()> {
        // What takes long. It changes nothing that anybody sees, so that it may go on when nobody waits for it any more;
        // the name is given here, by who has the turn.
        let file = File::open(self.part.path())?;
        apart(move |_| file.sync_all()).await?;
        self.part.finish(to)
    }

    /// Fetches what is missing, until there is no more, or more than there may be.
    pub(crate) async fn fill(
        &mut self,
        source: &impl Source,
        blob: &Blob,
        told: &dyn Fn(u64),
        broken: &dyn Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut retry = Retry::default();
        // Who knows no ranges begins anew each time: what counts is what nobody had before.
        let mut furthest = self.part.len();
        // A request for what lies behind the end would be an error.
        while self.part.len() < blob.size {
            let came = self.receive(source, blob, told).await.map_err(broken)?;
            let further = self.part.len() > furthest;
            if further {
                furthest = self.part.len();
                retry.progress();
            }
            let fault = match came {
                Came::TooMuch => break,
                // Whole, and its end is all that is wrong.
                Came::Cut(_) if self.part.len() >= blob.size => break,
                // A part of what was asked for (RFC 9110, section 15.3.7), or shortened on its way: there may be more.
                Came::All if further => continue,
                Came::All => break,
                Came::Cut(fault) => fault,
            };
            let passes = matches!(fault.kind(), Kind::Passing | Kind::Unreachable);
            match retry.failed(&fault).filter(|_| passes) {
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
        let mut rest = source.rest(blob, self.part.len()).await;
        if let Ok(Rest::Other) = rest {
            // It would be the same the next time; from its beginning on there is only one part.
            rest = source.rest(blob, 0).await;
        }
        let mut answer = match rest {
            Ok(Rest::Continued(answer)) => answer,
            Ok(Rest::Anew(answer)) => {
                self.clear()?;
                answer
            }
            Ok(Rest::Other) => return Ok(Came::Cut(Fault::Cut)),
            // Nothing lies behind what is here.
            Err(fault) if fault.status() == Some(416) => return Ok(Came::All),
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

/// Says that nobody waits any more.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Work that takes long, on a thread of its own: this one goes on with other blobs, and hears that it is not wanted any
/// more. The work is told then, and must change nothing from there on.
async fn apart<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let left = Arc::new(AtomicBool::new(false));
    let _waits = Waits(Arc::clone(&left));
    let done = tokio::task::spawn_blocking(move || work(&left)).await;
    done.unwrap_or_else(|died| Err(io::Error::other(died)))
}
