//! Logs of failed operations are kept, and capped (R-HOST-7): the newest 20, 50 MB in all.

use crate::core::Core;
use banger_host::{Error, Files};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Directories kept.
const MOST: usize = 20;
/// Bytes kept.
const BYTES: u64 = 50 * 1000 * 1000;

/// One kept directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// When it was kept.
    pub at: SystemTime,
    /// Where.
    pub dir: PathBuf,
    /// How much is in it.
    pub bytes: u64,
}

/// Removes the oldest until the caps hold. Blocks.
///
/// # Errors
/// Listing or removing failed; what is left is tried again the next time.
pub fn trim(core: &Core) -> Result<(), Error> {
    for old in surplus(all(core)?) {
        remove(core, &old.dir)?;
    }
    Ok(())
}

/// Every kept directory. Blocks.
///
/// # Errors
/// Listing failed.
pub fn all(core: &Core) -> Result<Vec<Kept>, Error> {
    let host = &*core.host;
    let failed = core.site.failed_dir();
    let mut all = Vec::new();
    for name in host.list(&failed)? {
        let dir = failed.join(name);
        let mut bytes = 0;
        for file in host.list(&dir)? {
            bytes += host.stat(&dir.join(file))?.map_or(0, |seen| seen.len);
        }
        let at = modified(&dir);
        all.push(Kept { at, dir, bytes });
    }
    Ok(all)
}

/// Removes one. Blocks.
///
/// # Errors
/// Listing or removing failed.
pub fn remove(core: &Core, dir: &Path) -> Result<(), Error> {
    let host = &*core.host;
    for file in host.list(dir)? {
        host.unlink(&dir.join(file))?;
    }
    host.rmdir(dir)
}

fn modified(dir: &Path) -> SystemTime {
    std::fs::metadata(dir)
        .and_then(|m| m.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What is over the caps: all but the newest that fit. The newest stays whatever its size.
fn surplus(mut all: Vec<Kept>) -> Vec<Kept> {
    all.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    let fits = all
        .iter()
        .enumerate()
        .take_while(|(n, kept)| {
            bytes += kept.bytes;
            *n == 0 || (*n < MOST && bytes <= BYTES)
        })
        .count();
    all.split_off(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn kept(age: u64, bytes: u64) -> Kept {
        Kept {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
            dir: format!("/f/{age}").into(),
            bytes,
        }
    }

    #[test]
    fn the_newest_that_fit_stay() {
        let ages = |all: Vec<Kept>| -> Vec<String> {
            let names = surplus(all).into_iter();
            names.map(|k| k.dir.display().to_string()).collect()
        };
        assert!(ages((0..20).map(|n| kept(n, 1)).collect()).is_empty());
        assert_eq!(
            ages((0..22).map(|n| kept(n, 1)).collect()),
            ["/f/20", "/f/21"]
        );
        assert_eq!(
            ages(vec![kept(2, 1), kept(0, BYTES), kept(1, 1)]),
            ["/f/1", "/f/2"]
        );
        assert!(ages(vec![kept(0, BYTES + 1)]).is_empty());
    }
}
