//! One builder at a time: an exclusive `flock` on a file in the directory. The kernel releases it
//! when the holder dies, so there is no stale lock.

use crate::error::Doing;
use crate::{Error, Result};
use banger_host::{Clock, Files};
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

/// How often a held lock is tried again.
const POLL: Duration = Duration::from_millis(50);

/// The lock; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock at `path`, waiting at most `timeout` for its holder. `waiting` is called once if
/// there is one.
pub(crate) fn acquire<H: Files + Clock + ?Sized>(
    host: &H,
    path: &Path,
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
    waiting: &mut dyn FnMut(),
) -> Result<Lock> {
    let start = host.monotonic();
    let mut told = false;
    loop {
        if let Some(lock) = try_acquire(host, path)? {
            return Ok(lock);
        }
        if cancelled() {
            return Err(Error::Cancelled);
        }
        if host.monotonic().saturating_sub(start) >= timeout {
            return Err(Error::Locked {
                path: path.to_owned(),
                seconds: timeout.as_secs(),
            });
        }
        if !told {
            waiting();
            told = true;
        }
        host.sleep(POLL);
    }
}

/// Takes the lock at `path` if nobody holds it.
pub(crate) fn try_acquire<H: Files + ?Sized>(host: &H, path: &Path) -> Result<Option<Lock>> {
    if host.stat(path).doing("look for the lock file")?.is_none() {
        // Two makers do no harm: both write nothing to the same file.
        host.write(path, b"").doing("make the lock file")?;
    }
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
