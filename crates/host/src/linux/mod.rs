//! The machine: Linux.
//!
//! One file per kind of object, looking and effect side by side. Kernel structures are written out
//! by hand from the headers named beside them; everything else goes through `rustix`.

mod clock;
mod disk_copy;
mod dm;
mod files;
mod holder;
mod ioctl;
mod jail;
mod link;
mod loopdev;
mod nft;
mod process;
mod sharing;
mod spawn;
mod tools;

pub use disk_copy::copy as copy_file;
pub use dm::device_mapper;
pub use sharing::{Unshared, own_bytes, shares_blocks};
pub use tools::ToolFailed;

use crate::{Effect, Error};
use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Where this host keeps what has no place of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxConfig {
    /// Directory that holds the jail directories; made by whoever configures jails.
    pub jail_root: PathBuf,
    /// cgroup v2 directory that holds our cgroups; made by whoever configures them.
    pub cgroup_root: PathBuf,
}

impl Default for LinuxConfig {
    /// The system places, `/run/banger/jails` and `/sys/fs/cgroup/banger`.
    fn default() -> Self {
        LinuxConfig {
            jail_root: PathBuf::from("/run/banger/jails"),
            cgroup_root: PathBuf::from("/sys/fs/cgroup/banger"),
        }
    }
}

/// The machine we run on.
#[derive(Debug)]
pub struct LinuxHost {
    config: LinuxConfig,
    /// pids of what we spawned and have not reaped; a zombie keeps its number until we do.
    children: Mutex<Vec<u32>>,
    /// The openings that keep our loop devices until a dm table does.
    loops: Mutex<BTreeMap<u32, OwnedFd>>,
    /// The text each table was last swapped to.
    rulesets: Mutex<BTreeMap<String, String>>,
}

impl LinuxHost {
    /// A host. Touches nothing yet.
    pub fn new(config: LinuxConfig) -> Self {
        LinuxHost {
            config,
            children: Mutex::default(),
            loops: Mutex::default(),
            rulesets: Mutex::default(),
        }
    }
}

/// An error of a system call on a path.
fn fail(effect: Effect, what: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::io(effect, what, path, source.into())
}

/// The content of a mutex; a panic elsewhere while it was held leaves these containers valid.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
