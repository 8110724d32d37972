//! Where a user's banger keeps its things (R-PROG-6): a pure function of environment and uid, shared by the
//! command line and the daemon so that they always meet.

use crate::environment::{CONFIG, RUNTIME_DIR, STATE_DIR};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Directories and files of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// State: database, VMs, images, kernels. `BANGER_STATE_DIR`.
    pub state_dir: PathBuf,
    /// Sockets and locks, gone with the boot. `BANGER_RUNTIME_DIR`.
    pub runtime_dir: PathBuf,
    /// Configuration file; need not be there. `BANGER_CONFIG`.
    pub config: PathBuf,
}

/// Why the paths cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// A variable names a relative path.
    #[error("{variable} is not an absolute path: '{value}'")]
    Relative {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// No variable tells where to keep state.
    #[error("neither BANGER_STATE_DIR, XDG_STATE_HOME nor HOME is set")]
    NoHome,
    /// A socket's path would not fit `sun_path` (unix(7): 108 bytes with the NUL).
    #[error(
        "the socket path '{0}' has {len} bytes, a socket takes at most {MAX_SOCKET}; set BANGER_RUNTIME_DIR to a \
         shorter path", len = .0.as_os_str().len()
    )]
    SocketTooLong(PathBuf),
}

/// Longest path of a socket in bytes (unix(7)).
pub const MAX_SOCKET: usize = 107;

/// The longest name of a socket inside the runtime directory: `vms/<12 hex digits>/<name>`.
const LONGEST_INSIDE: &str = "vms/0123456789ab/agent.sock";

impl Paths {
    /// The paths for this environment and user.
    ///
    /// # Errors
    /// A variable holds a relative path, no home is known, or a socket's path would be too long.
    pub fn resolve(
        variable: impl Fn(&'static str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Self, PathsError> {
        let get = |name: &'static str| -> Result<Option<PathBuf>, PathsError> {
            let Some(value) = variable(name).filter(|v| !v.is_empty()) else {
                return Ok(None);
            };
            let path = PathBuf::from(value);
            if path.is_absolute() {
                Ok(Some(path))
            } else {
                Err(PathsError::Relative {
                    variable: name,
                    value: path.display().to_string(),
                })
            }
        };
        let under_home = |xdg: &'static str, rest: &str| -> Result<PathBuf, PathsError> {
            // The XDG specification says that a relative path is to be ignored.
            let base = match get(xdg).ok().flatten() {
                Some(base) => base,
                None => get("HOME")?.ok_or(PathsError::NoHome)?.join(rest),
            };
            Ok(base.join("banger"))
        };
        let root = uid == 0;
        let state_dir = match get(STATE_DIR)? {
            Some(dir) => dir,
            None if root => PathBuf::from("/var/lib/banger"),
            None => under_home("XDG_STATE_HOME", ".local/state")?,
        };
        let runtime_dir = match get(RUNTIME_DIR)? {
            Some(dir) => dir,
            None if root => PathBuf::from("/run/banger"),
            None => match get("XDG_RUNTIME_DIR").ok().flatten() {
                Some(dir) => dir.join("banger"),
                None => PathBuf::from(format!("/tmp/banger-{uid}")),
            },
        };
        let config = match get(CONFIG)? {
            Some(file) => file,
            None if root => PathBuf::from("/etc/banger/config.toml"),
            None => under_home("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
        };
        check_socket(&runtime_dir.join(LONGEST_INSIDE))?;
        Ok(Paths {
            state_dir,
            runtime_dir,
            config,
        })
    }

    /// The paths for this process's environment.
    ///
    /// # Errors
    /// As [`Paths::resolve`].
    pub fn of_process(uid: u32) -> Result<Self, PathsError> {
        Self::resolve(std::env::var_os, uid)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("bangerd.sock")
    }

    /// Locked (flock) by the one daemon of the instance.
    pub fn lock(&self) -> PathBuf {
        self.runtime_dir.join("daemon.lock")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.state_dir.join("daemon.log")
    }
}

fn check_socket(path: &Path) -> Result<(), PathsError> {
    if path.as_os_str().as_bytes().len() > MAX_SOCKET {
        return Err(PathsError::SocketTooLong(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(uid: u32, env: &[(&str, &str)]) -> Result<Paths, PathsError> {
        Paths::resolve(
            |name| {
                env.iter()
                    .find(|(k, _)| *k == name)
                    .map(|(_, v)| OsString::from(v))
            },
            uid,
        )
    }

    #[test]
    fn paths_of_root_and_of_a_user() {
        let root = resolve(0, &[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")]).unwrap();
        assert_eq!(root.socket(), Path::new("/run/banger/bangerd.sock"));
        assert_eq!(root.daemon_log(), Path::new("/var/lib/banger/daemon.log"));
        assert_eq!(root.config, Path::new("/etc/banger/config.toml"));

        let user = resolve(
            7,
            &[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")],
        )
        .unwrap();
        assert_eq!(user.runtime_dir, Path::new("/run/user/7/banger"));
        assert_eq!(user.state_dir, Path::new("/home/u/.local/state/banger"));
        assert_eq!(user.config, Path::new("/home/u/.config/banger/config.toml"));
        let bare = resolve(7, &[("HOME", "/home/u")]).unwrap();
        assert_eq!(bare.runtime_dir, Path::new("/tmp/banger-7"));
    }

    #[test]
    fn overrides_win_and_bad_ones_are_refused() {
        let own = resolve(
            0,
            &[
                ("BANGER_STATE_DIR", "/s"),
                ("BANGER_RUNTIME_DIR", "/r"),
                ("BANGER_CONFIG", "/c"),
            ],
        )
        .unwrap();
        assert_eq!(own.lock(), Path::new("/r/daemon.lock"));
        assert_eq!(own.config, Path::new("/c"));
        assert!(matches!(
            resolve(0, &[("BANGER_STATE_DIR", "s")]),
            Err(PathsError::Relative {
                variable: "BANGER_STATE_DIR",
                ..
            })
        ));
        assert_eq!(resolve(7, &[]), Err(PathsError::NoHome));
        let long = format!("/{}", "x".repeat(90));
        assert!(matches!(
            resolve(0, &[("BANGER_RUNTIME_DIR", &long)]),
            Err(PathsError::SocketTooLong(_))
        ));
    }
}
