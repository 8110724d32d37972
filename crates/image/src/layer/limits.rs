//! What an archive may be (R-IMG-4), and looking up from the work: limits, cancelling, progress, room.

use super::packing::Unpacked;
use super::{Entry, Piece, What};
use crate::{Error, Progress, Result};
use banger_ext4::Xattr;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often progress is told.
pub(crate) const TELL: Duration = Duration::from_millis(200);

/// What an archive may expand to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories, links, devices.
    pub entries: u64,
    /// Bytes when unpacked.
    pub bytes: u64,
    /// Bytes of memory that names, texts of links, extended attributes and maps of holes take, of all entries together;
    /// what every entry takes is not among them.
    pub kept: u64,
    /// Entries in one directory.
    pub in_directory: u64,
    /// Device nodes.
    pub devices: u64,
    /// Bytes unpacked for each byte packed, above [`Limits::ratio_from`].
    pub ratio: u64,
    /// Up to so many unpacked bytes any ratio is good.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 4_000_000,
            bytes: 64 << 30,
            // About 270 for each of as many entries as there may be; of a distribution's files one takes about 130.
            kept: 1 << 30,
            in_directory: 1_000_000,
            devices: 4096,
            ratio: 1000,
            ratio_from: 1 << 30,
        }
    }
}

impl Limits {
    /// Refuses what unpacks to more bytes than it may.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn check_size(&self, unpacked: u64) -> Result<()> {
        if unpacked > self.bytes {
            return Err(Error::TooLarge(format!(
                "it unpacks to more than {} (images.max_size)",
                banger_model::ByteSize(self.bytes)
            )));
        }
        Ok(())
    }

    /// Refuses a stream that unpacks to more than it may.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn check_stream(&self, (packed, unpacked): (u64, u64)) -> Result<()> {
        self.check_size(unpacked)?;
        if unpacked > self.ratio_from && unpacked / self.ratio > packed {
            return Err(Error::TooLarge(format!(
                "each of its bytes unpacks to more than {} (images.max_ratio)",
                self.ratio
            )));
        }
        Ok(())
    }
}

/// What all who read parts of one image look at, from several threads: what was taken together, and whether to go on.
pub(crate) struct Watch<'a> {
    limits: &'a Limits,
    /// Refuses to go on when the disk becomes full.
    room: &'a (dyn Fn() -> Result<()> + Sync),
    progress: &'a dyn Progress,
    told: Mutex<Instant>,
    packed: AtomicU64,
    unpacked: AtomicU64,
    entries: AtomicU64,
    /// Headers that are no entries.
    headers: AtomicU64,
    kept: AtomicU64,
    devices: AtomicU64,
    /// Somebody failed: what the others do is for nothing.
    given_up: AtomicBool,
    /// Whether what is read comes in now.
    tells: bool,
}

/// Headers that an entry may have before it: a long name, a long link and records.
const HEADERS: u64 = 3;

/// Counts one up to `most`, which `key` of `[images]` in the configuration sets.
fn one_more(count: &AtomicU64, most: u64, what: &str, key: &str, name: &[u8]) -> Result<()> {
    if count.fetch_add(1, Relaxed) >= most {
        let why = format!("it is one {what} more than {most} (images.{key})");
        return Err(Error::refused(name, &why));
    }
    Ok(())
}

/// Bytes of memory that only this entry takes, beyond what every one takes.
fn kept_of(entry: &Entry) -> usize {
    let text = match &entry.what {
        What::Symlink(text) | What::HardLink(text) => text.len(),
        // In turn each is one of the entry, of the inode, of the bytes to fetch and of the blocks to write.
        What::File { pieces, .. } => pieces.len() * 3 * size_of::<Piece>(),
        _ => 0,
    };
    let xattrs = entry.meta.xattrs.iter();
    let xattrs = xattrs.map(|x| x.name.len() + x.value.len() + size_of::<Xattr>());
    entry.path.len() + text + xattrs.sum::<usize>()
}

/// How far one stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    packed: u64,
    unpacked: u64,
}

impl<'a> Watch<'a> {
    /// Nothing taken yet.
    pub(crate) fn new(
        limits: &'a Limits,
        room: &'a (dyn Fn() -> Result<()> + Sync),
        progress: &'a dyn Progress,
    ) -> Self {
        Watch {
            limits,
            room,
            progress,
            told: Mutex::new(Instant::now()),
            packed: AtomicU64::new(0),
            unpacked: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            headers: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            devices: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            tells: true,
        }
    }

    /// One for what has come in before and is read once more: it counts anew, and tells of nothing.
    pub(crate) fn again(&self) -> Self {
        Watch {
            tells: false,
            ..Watch::new(self.limits, self.room, self.progress)
        }
    }

    /// The limits.
    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Counts what a stream has given since its mark, and asks whether to go on.
    ///
    /// # Errors
    /// A limit, cancelled, or no room.
    pub(crate) fn look_up(&self, source: &Unpacked<'_>, mark: &mut Mark) -> Result<()> {
        let (packed, unpacked) = source.counts();
        let add = |sum: &AtomicU64, more: u64| sum.fetch_add(more, Relaxed) + more;
        let counts = (
            add(&self.packed, packed - mark.packed),
            add(&self.unpacked, unpacked - mark.unpacked),
        );
        *mark = Mark { packed, unpacked };
        self.limits.check_stream(counts)?;
        self.go_on(self.tells.then_some(counts.0))
    }

    /// Asks whether to go on; tells of the bytes that came in, if any do.
    ///
    /// # Errors
    /// Cancelled, or no room.
    pub(crate) fn go_on(&self, moved: Option<u64>) -> Result<()> {
        if self.progress.cancelled() || self.given_up.load(Relaxed) {
            return Err(Error::Cancelled);
        }
        // One tells for all.
        let Ok(mut told) = self.told.try_lock() else {
            return Ok(());
        };
        if told.elapsed() < TELL {
            return Ok(());
        }
        *told = Instant::now();
        drop(told);
        if let Some(bytes) = moved {
            self.progress.moved(bytes);
        }
        (self.room)()
    }

    /// Counts an entry.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) fn entry(&self, name: &[u8]) -> Result<()> {
        one_more(
            &self.entries,
            self.limits.entries,
            "entry",
            "max_entries",
            name,
        )
    }

    /// Counts a header that is no entry: a flood of them would have no limit.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) fn header(&self, name: &[u8]) -> Result<()> {
        let most = self.limits.entries.saturating_mul(HEADERS);
        one_more(&self.headers, most, "extended header", "max_entries", name)
    }

    /// Counts a device.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) fn device(&self, name: &[u8]) -> Result<()> {
        one_more(
            &self.devices,
            self.limits.devices,
            "device",
            "max_devices",
            name,
        )
    }

    /// Counts what stays in memory of an entry until the image is written.
    ///
    /// # Errors
    /// It is too much.
    pub(crate) fn keep(&self, entry: &Entry, name: &[u8]) -> Result<()> {
        let bytes = kept_of(entry) as u64;
        if self.kept.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.limits.kept {
            let most = banger_model::ByteSize(self.limits.kept);
            let why = format!(
                "up to it names, links, attributes and maps of holes take more than {most} of memory (images.max_entries)"
            );
            return Err(Error::refused(name, &why));
        }
        Ok(())
    }

    /// Works on each item, with at most one thread a core, and gives the results in order. Where one fails the others
    /// stop, and its error is told.
    ///
    /// # Errors
    /// What the work says.
    pub(crate) fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: &(dyn Fn(&T) -> Result<R> + Sync),
    ) -> Result<Vec<R>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(items.len());
        if threads <= 1 {
            return items.iter().map(work).collect();
        }
        let next = AtomicU64::new(0);
        let failed = Mutex::new(None);
        let worker = || {
            let mut done = Vec::new();
            loop {
                let at = usize::try_from(next.fetch_add(1, Relaxed)).unwrap_or(usize::MAX);
                let Some(item) = items.get(at) else {
                    return done;
                };
                match work(item) {
                    Ok(result) => done.push((at, result)),
                    Err(error) => {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        // The first is the reason of those after it.
                        failed.get_or_insert(error);
                        self.given_up.store(true, Relaxed);
                        return done;
                    }
                }
            }
        };
        let mut results = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let joined = workers.into_iter().map(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.flatten().collect::<Vec<_>>()
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        results.sort_by_key(|(at, _)| *at);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}
