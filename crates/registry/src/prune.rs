//! What goes from the cache: blobs that no image needs. Those of a pull under way are held by it.

use crate::{Blob, BlobCache, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Age from which on what has come of a blob is not waited for any more: whoever pulls again within a day goes on with it.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Blobs that are in use, with by how many.
pub(crate) type Holds = Arc<Mutex<BTreeMap<String, usize>>>;

/// Keeps blobs in the cache until it is dropped.
#[derive(Debug)]
pub struct Held {
    blobs: Vec<String>,
    holds: Holds,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in &self.blobs {
            if let Some(count) = holds.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    holds.remove(blob);
                }
            }
        }
    }
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cached {
    /// sha256 of the blob in hex.
    pub sha256: String,
    /// Bytes it has here.
    pub size: u64,
    /// Whether it is whole.
    pub whole: bool,
}

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prune {
    /// Blobs that began to come within a day go as well.
    pub all: bool,
    /// Nothing goes; it is only told what would.
    pub dry_run: bool,
}

impl BlobCache {
    /// Keeps these blobs from being pruned, whether they are here or will come.
    pub fn hold<'a>(&self, blobs: impl IntoIterator<Item = &'a Blob>) -> Held {
        let blobs: Vec<_> = blobs.into_iter().map(|b| b.sha256.clone()).collect();
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in &blobs {
            *holds.entry(blob.clone()).or_default() += 1;
        }
        Held {
            blobs,
            holds: Arc::clone(&self.holds),
        }
    }

    /// Removes whole blobs that are not `needed`, and partial ones that nobody has gone on with for a day; none that is
    /// held. `needed` is asked once no pull can end any more. Told is what went, or would go.
    ///
    /// # Errors
    /// What `needed` says, or the cache cannot be read or changed.
    pub fn prune<E: From<Error>>(
        &self,
        prune: Prune,
        needed: impl FnOnce() -> Result<BTreeSet<String>, E>,
    ) -> Result<Vec<Cached>, E> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = needed()?;
        let mut gone = Vec::new();
        for (cached, path, age) in self.files()? {
            let stays = match cached.whole {
                true => needed.contains(&cached.sha256),
                false => !prune.all && age < STALE,
            };
            if stays || holds.contains_key(&cached.sha256) {
                continue;
            }
            if !prune.dry_run {
                let removed = fs::remove_file(&path);
                removed.map_err(|source| Error::Cache { path, source })?;
            }
            gone.push(cached);
        }
        gone.sort();
        Ok(gone)
    }

    /// Every blob that is here.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn list(&self) -> Result<Vec<Cached>> {
        let files = self.files()?;
        Ok(files.into_iter().map(|(cached, ..)| cached).collect())
    }

    /// Files that are blobs, with the time since they were written; others are nobody's business here.
    fn files(&self) -> Result<Vec<(Cached, PathBuf, Duration)>> {
        let dir = self.dir.join("sha256");
        let failed = |source| Error::Cache {
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (sha256, whole) = match name.strip_suffix(".part") {
                Some(sha256) => (sha256, false),
                None => (&*name, true),
            };
            let hex = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
            // One that has just got its name is found by it the next time.
            let meta = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(failed)?,
            };
            if !hex || !meta.is_file() {
                continue;
            }
            let written = meta.modified().unwrap_or(now);
            let cached = Cached {
                sha256: sha256.to_owned(),
                size: meta.len(),
                whole,
            };
            let age = now.duration_since(written).unwrap_or_default();
            files.push((cached, entry.path(), age));
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(digit: char) -> Blob {
        Blob {
            sha256: digit.to_string().repeat(64),
            size: 3,
        }
    }

    #[test]
    fn what_is_needed_or_held_or_still_coming_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::new(dir.path());
        let none = || Ok::<_, Error>(BTreeSet::new());
        assert_eq!(cache.prune(Prune::default(), none).unwrap(), []);
        let at = dir.path().join("sha256");
        fs::create_dir(&at).unwrap();
        let put = |name: &str, days: u64| {
            let file = fs::File::create(at.join(name)).unwrap();
            fs::write(at.join(name), "abc").unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 60);
            file.set_modified(then).unwrap();
        };
        for (name, days) in [("a", 9), ("b", 9), ("c", 9), ("d.part", 0), ("e.part", 2)] {
            let (digit, end) = name.split_at(1);
            put(&format!("{}{end}", digit.repeat(64)), days);
        }
        put("README", 9);
        let held = cache.hold([&blob('b')]);
        let needed = || Ok::<_, Error>(BTreeSet::from([blob('a').sha256]));
        let digits =
            |cached: Vec<Cached>| -> String { cached.iter().map(|c| &c.sha256[..1]).collect() };
        let would = |all| {
            let prune = Prune { all, dry_run: true };
            digits(cache.prune(prune, needed).unwrap())
        };
        assert_eq!((would(false), would(true)), ("ce".into(), "cde".into()));
        let here = || fs::read_dir(&at).unwrap().count();
        assert_eq!(here(), 6, "so far nothing went");
        assert_eq!(digits(cache.prune(Prune::default(), needed).unwrap()), "ce");
        assert_eq!(here(), 4);
        drop(held);
        let all = Prune {
            all: true,
            dry_run: false,
        };
        assert_eq!(digits(cache.prune(all, needed).unwrap()), "bd");
        assert_eq!(digits(cache.list().unwrap()), "a");
    }
}
