//! What looking at the machine yields.

use banger_model::ProcessHandle;
use std::path::PathBuf;

/// What kind of file is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symlink, not followed.
    Symlink,
    /// Socket.
    Socket,
    /// Fifo, device.
    Other,
}

/// A file as `lstat` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSeen {
    /// Its kind.
    pub kind: FileKind,
    /// Apparent size in bytes.
    pub len: u64,
}

/// A configured loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopSeen {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// `lo_file_name` (linux/loop.h): our label, or what others put there.
    pub label: String,
    /// Backing file as sysfs names it, where known.
    pub backing: Option<PathBuf>,
}

/// How far a device-mapper device was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DmState {
    /// Exists with its uuid, no table.
    Created,
    /// A table waits to become live; it holds the devices under it.
    Loaded,
    /// The table is live.
    Live,
}

/// A device-mapper device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmSeen {
    /// Its name.
    pub name: String,
    /// Our label, or the uuid that others gave it.
    pub uuid: String,
    /// How far it is.
    pub state: DmState,
}

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSeen {
    /// Interface name.
    pub name: String,
    /// `ifalias`: our label, or what others put there.
    pub alias: String,
    /// Bridge it is a port of. A port of ours that is not isolated or not up is half made, and none.
    pub master: Option<String>,
}

/// The answer to "is a process of this identity alive?" (R-HOST-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Proven alive.
    Alive(ProcessHandle),
    /// It ended and waits to be reaped; dead for every purpose but its number.
    Zombie(ProcessHandle),
    /// No such process.
    Absent,
}

/// Signals we send to what we spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in order.
    Term,
    /// SIGKILL.
    Kill,
}
