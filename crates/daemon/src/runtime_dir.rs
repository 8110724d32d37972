//! The runtime directory and the one daemon in it (R-PROG-5, R-PROG-6).

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::{
    io,
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often a held lock is tried again.
const LOOK: Duration = Duration::from_millis(5);

/// Why a private directory or the lock in it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// Something that is not a directory of ours is there.
    #[error("{} {what}; remove it or choose another directory", .path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another daemon neither listens nor ends.
    #[error("waited {waited:?} for another daemon to listen or to end; it holds {}", .path.display())]
    Held {
        /// Its lock.
        path: PathBuf,
        /// For how long.
        waited: Duration,
    },
    /// The system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes sure of a directory that only we can enter: made 0700 with its parents, or there, ours, and no symlink.
///
/// # Errors
/// It is a symlink, another user's, no directory, or cannot be made.
pub fn private_dir(path: &Path) -> Result<(), RuntimeDirError> {
    let io = |doing| {
        move |source| RuntimeDirError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    // `create` follows a symlink at the last component; look at what is really there.
    let seen = match std::fs::symlink_metadata(path) {
        Ok(seen) => seen,
        Err(_) => return made.map_err(io("make the directory")),
    };
    let refused = |what| {
        Err(RuntimeDirError::NotOurs {
            path: path.to_owned(),
            what,
        })
    };
    if seen.is_symlink() {
        return refused("is a symlink, not a directory");
    }
    if !seen.is_dir() {
        return refused("is not a directory");
    }
    if seen.uid() != rustix::process::geteuid().as_raw() {
        return refused("belongs to another user");
    }
    if seen.permissions().mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .map_err(io("make private the directory"))?;
    }
    Ok(())
}

/// Held by the one daemon of an instance for its whole life. The kernel frees it however the daemon ends.
#[derive(Debug)]
pub struct DaemonLock(#[allow(dead_code, reason = "held, never read")] OwnedFd);

/// Takes the daemon's lock; `None` if another daemon has it. The file is never removed: a lock on a removed file
/// would exclude nobody.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn single_instance(path: &Path) -> Result<Option<DaemonLock>, RuntimeDirError> {
    let io = |doing| {
        move |source: Errno| RuntimeDirError::Io {
            doing,
            path: path.to_owned(),
            source: source.into(),
        }
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(io("open the lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(DaemonLock(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(io("lock")(error)),
    }
}

/// Waits for the lock while its holder no more than ends: a daemon that drains has taken its socket away, and the
/// command that found none counts on us. `None` as soon as another daemon listens, seen twice: of one that was killed
/// the socket may take connections a moment longer than it lives.
///
/// # Errors
/// The lock cannot be opened, or `limit` has passed.
pub fn our_turn(
    lock: &Path,
    socket: &Path,
    limit: Duration,
) -> Result<Option<DaemonLock>, RuntimeDirError> {
    let end = Instant::now() + limit;
    let mut listened = false;
    loop {
        if let Some(held) = single_instance(lock)? {
            return Ok(Some(held));
        }
        let listens = UnixStream::connect(socket).is_ok();
        if listens && listened {
            return Ok(None);
        }
        listened = listens;
        if Instant::now() >= end {
            return Err(RuntimeDirError::Held {
                path: lock.to_owned(),
                waited: limit,
            });
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_dir_is_ours_and_no_symlink() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        private_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&dir).unwrap();
        assert_eq!(
            std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(private_dir(&link).is_err());
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(private_dir(&file).is_err());
    }

    #[test]
    fn one_lock_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("daemon.lock");
        let first = single_instance(&path).unwrap();
        assert!(first.is_some());
        assert!(single_instance(&path).unwrap().is_none());
        drop(first);
        assert!(single_instance(&path).unwrap().is_some());
    }

    #[test]
    fn a_daemon_that_ends_is_waited_for_and_one_that_listens_is_not() {
        let home = tempfile::tempdir().unwrap();
        let (lock, socket) = (home.path().join("daemon.lock"), home.path().join("s"));
        let long = Duration::from_secs(20);
        let first = single_instance(&lock).unwrap();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        let second = our_turn(&lock, &socket, long).unwrap();
        assert!(second.is_some(), "the one that ended made room");
        ends.join().unwrap();

        let short = Duration::from_millis(20);
        let stuck = our_turn(&lock, &socket, short);
        assert!(matches!(stuck, Err(RuntimeDirError::Held { .. })));
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(our_turn(&lock, &socket, long).unwrap().is_none());
    }
}
