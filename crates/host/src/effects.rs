//! The effect traits. Methods take `&self`: a host is shared by the operations of several VMs.
//!
//! Rules every implementation keeps:
//! - a method that removes or changes an object takes its [`Label`] and refuses with
//!   [`ErrorKind::Foreign`](crate::ErrorKind) when the object there does not carry it (R-HOST-6);
//! - making what is there already is `Exists`, removing what is gone is `NotFound`: callers decide;
//! - nothing is retried here but `EINTR`; waits are bounded by the caller's timeout.

use crate::{DmSeen, Error, FileSeen, LinkSeen, LoopSeen, Proof, Signal};
use banger_model::{BootId, ByteSize, DmName, Label, ProcessHandle, TapName};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Files and directories under the state, runtime and cache directories.
pub trait Files {
    /// Whole content, `None` if there is no such file.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// What is at the path (symlinks not followed), `None` if nothing.
    fn stat(&self, path: &Path) -> Result<Option<FileSeen>>;
    /// Names in a directory, sorted; empty if there is no such directory.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;
    /// Makes a directory, mode 0700. `Exists` if there. Durable after `sync_dir` of its parent.
    fn mkdir(&self, dir: &Path) -> Result<()>;
    /// Writes a file (mode 0600), truncating what was there. Prefixes: empty, half written. Neither
    /// content nor name is durable before `sync_file` and `sync_dir`.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()>;
    /// fsync of a file's content.
    fn sync_file(&self, path: &Path) -> Result<()>;
    /// fsync of a directory: its entries are durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Renames within a file system; replaces an existing file. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Exchanges what two names of one directory stand for, in one step: a crash leaves both as they were or both
    /// exchanged. `Unsupported` where the file system cannot. Durable after `sync_dir`.
    fn exchange(&self, one: &Path, other: &Path) -> Result<()>;
    /// Unlinks a file, socket or symlink.
    fn unlink(&self, path: &Path) -> Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, dir: &Path) -> Result<()>;
    /// Makes the content of a disk file at a temporary path. Not durable before `sync_file`.
    /// Prefixes: absent, half made. Truncates what was there.
    fn make_disk(&self, path: &Path, recipe: &DiskRecipe) -> Result<()>;
    /// Makes a disk file so long, with a hole at its end; one that is as long or longer is left alone. Not durable
    /// before `sync_file`.
    fn grow_disk(&self, path: &Path, size: ByteSize) -> Result<()>;
    /// Free bytes and total bytes for us on the file system that holds the path.
    fn disk_space(&self, path: &Path) -> Result<(u64, u64)>;
}

/// How a disk file comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskRecipe {
    /// All holes (a dm snapshot's CoW store).
    Sparse {
        /// Apparent size.
        size: ByteSize,
    },
    /// A copy of a template's allocated extents (a clone where the file system shares blocks).
    CopyOf {
        /// The file to copy: a ready-made empty file system of just this size.
        template: PathBuf,
    },
    /// A file that shares all its blocks with the template: the cost is the same whatever is in it. Never a copy: where
    /// the file system does not share blocks, `Unsupported`, and the disk is empty.
    CloneOf {
        /// The file whose blocks are shared, on the same file system.
        template: PathBuf,
    },
}

/// A device-mapper table, kernel syntax (Documentation/admin-guide/device-mapper/snapshot.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DmTable {
    /// `snapshot <base> <cow> P <chunk>`: persistent, so that a reboot keeps the data.
    Snapshot {
        /// Length of the device in 512-byte sectors.
        sectors: u64,
        /// Number of the loop device under it.
        base_loop: u32,
        /// Number of the loop device that takes the writes.
        cow_loop: u32,
        /// Chunk size in 512-byte sectors.
        chunk: u32,
    },
}

/// Loop and device-mapper devices.
pub trait Blocks {
    /// Configured loop devices, ours and others'.
    fn loops(&self) -> Result<Vec<LoopSeen>>;
    /// Attaches a loop device with LO_FLAGS_AUTOCLEAR and the label in `lo_file_name`, in one
    /// LOOP_CONFIGURE. This host object keeps it open until a dm table that names it is loaded, so
    /// if we die before, the kernel detaches it.
    fn loop_attach(&self, file: &Path, read_only: bool, label: &Label) -> Result<u32>;
    /// Lets go of a loop device and detaches it; `Busy` while a dm device holds it.
    fn loop_detach(&self, number: u32, label: &Label) -> Result<()>;
    /// Device-mapper devices, ours and others'. Empty where the kernel has no device-mapper.
    fn dms(&self) -> Result<Vec<DmSeen>>;
    /// DM_DEV_CREATE with the label as uuid (`.` for `/`): state `Created`.
    fn dm_create(&self, name: &DmName, label: &Label) -> Result<()>;
    /// DM_TABLE_LOAD: state `Loaded`; the table now holds the loop devices.
    fn dm_load(&self, name: &DmName, label: &Label, table: &DmTable) -> Result<()>;
    /// DM_DEV_SUSPEND without the suspend flag: state `Live`.
    fn dm_resume(&self, name: &DmName, label: &Label) -> Result<()>;
    /// DM_DEV_REMOVE; `Busy` while it is open. Its loop devices then clear themselves.
    fn dm_remove(&self, name: &DmName, label: &Label) -> Result<()>;
}

/// Network links.
pub trait Links {
    /// Links, ours and others'.
    fn links(&self) -> Result<Vec<LinkSeen>>;
    /// Makes a persistent tap that carries the label: created, labelled, then made persistent, so
    /// that dying between leaves nothing.
    fn tap_create(&self, name: &TapName, label: &Label, owner_uid: u32) -> Result<()>;
    /// Makes the tap an isolated port of the bridge, and brings it up.
    fn set_master(&self, name: &TapName, label: &Label, bridge: &str) -> Result<()>;
    /// Takes the tap from its bridge.
    fn clear_master(&self, name: &TapName, label: &Label) -> Result<()>;
    /// Deletes the tap.
    fn link_delete(&self, name: &TapName, label: &Label) -> Result<()>;
    /// Makes the instance's bridge with its address, up. `Exists` if it is there and ours.
    fn bridge_create(&self, name: &str, label: &Label, address: Ipv4Addr, prefix: u8)
    -> Result<()>;
    /// Deletes the bridge.
    fn bridge_delete(&self, name: &str, label: &Label) -> Result<()>;
}

/// Our nftables table, one per instance, swapped whole.
pub trait Firewall {
    /// The text our table was last rendered from, as far as the kernel's table carries its digest in
    /// its comment; another text if it does not or if we cannot know (swap then); `None` if there is
    /// no table, or nobody here who could have made one (no nft, no right to ask).
    fn ruleset(&self, table: &str) -> Result<Option<String>>;
    /// Replaces the table in one transaction; an empty `text` deletes it. `text` is the whole table,
    /// its first line `table ip <table> {`; the name ends with the instance. `Foreign` if a table of
    /// that name does not carry our label.
    fn ruleset_swap(&self, table: &str, text: &str) -> Result<()>;
}

/// Jail directories and cgroups.
pub trait Jails {
    /// Labels of the jail directories that are there.
    fn jails(&self) -> Result<Vec<Label>>;
    /// Makes the jail directory.
    fn jail_create(&self, label: &Label) -> Result<()>;
    /// Removes it and what is in it; resumable from every prefix.
    fn jail_remove(&self, label: &Label) -> Result<()>;
    /// Labels of the cgroups that are there.
    fn cgroups(&self) -> Result<Vec<Label>>;
    /// Makes the cgroup.
    fn cgroup_create(&self, label: &Label) -> Result<()>;
    /// Removes it; `Busy` while a process is in it.
    fn cgroup_remove(&self, label: &Label) -> Result<()>;
}

/// A long-lived process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnSpec {
    /// Who it is; the label is one exact argv element.
    pub identity: ProcessIdentity,
    /// Arguments after the program.
    pub args: Vec<OsString>,
    /// Whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Its stdout and stderr, appended; exclusively locked (flock) before the fork and held by the
    /// open file exactly as long as the process lives (R-HOST-8).
    pub log: PathBuf,
    /// Label of the cgroup to start in.
    pub cgroup: Option<Label>,
}

/// What proves that a process is the one we mean (R-HOST-8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Label of VM and role.
    pub label: Label,
    /// Executable, absolute.
    pub program: PathBuf,
    /// uid it runs as.
    pub uid: u32,
    /// Socket it listens on; the peer credentials of a non-blocking connect name it.
    pub control_socket: Option<PathBuf>,
    /// Log whose lock says whether one is alive at all.
    pub log: PathBuf,
    /// From `handles.json`: where to look first, never proof.
    pub hint: Option<ProcessHandle>,
}

/// Long-lived processes: VMMs and their helpers.
pub trait Processes {
    /// Starts a process in its own session, without parent-death signal. `Busy` if the log is
    /// locked: one is alive or dying. Refused if its label is not among its arguments.
    fn spawn(&self, spec: &SpawnSpec) -> Result<ProcessHandle>;
    /// Whether the log's lock is held.
    fn log_locked(&self, log: &Path) -> Result<bool>;
    /// Looks for the process: by its control socket's peer credentials, else by the hint, else by
    /// exact argv element, uid and executable. An editor or a curl that holds the socket's path is
    /// never it. A zombie that is our child is reaped, and then absent.
    fn prove(&self, identity: &ProcessIdentity) -> Result<Proof>;
    /// pidfd, proof again, signal through the pidfd. `NotFound` if it is not that process (now).
    fn signal(
        &self,
        identity: &ProcessIdentity,
        process: ProcessHandle,
        signal: Signal,
    ) -> Result<()>;
    /// Waits until the process is dead (a zombie is dead); `TimedOut` after `timeout`.
    fn await_exit(
        &self,
        identity: &ProcessIdentity,
        process: ProcessHandle,
        timeout: Duration,
    ) -> Result<()>;
}

/// Time and boot.
pub trait Clock {
    /// Unix time in seconds.
    fn now(&self) -> u64;
    /// Time since some fixed point, never stepped.
    fn monotonic(&self) -> Duration;
    /// This boot.
    fn boot_id(&self) -> Result<BootId>;
    /// Sleeps.
    fn sleep(&self, time: Duration);
}

/// A program to run to its end (mke2fs, mmdebstrap, apt-get, nft).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Program, looked up in PATH and in /usr/sbin, /sbin.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<OsString>,
    /// Set on top of PATH, HOME, LC_ALL=C.UTF-8; nothing else is inherited.
    pub env: BTreeMap<OsString, OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Written to its stdin.
    pub stdin: Vec<u8>,
    /// Its process group is ended after this: SIGTERM, and SIGKILL two seconds later.
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// Standard output; a program that writes more than 16 MiB is ended, an error.
    pub stdout: Vec<u8>,
    /// Last 64 KiB of standard error.
    pub stderr: String,
}

/// Programs run to their end.
pub trait Tools {
    /// Where [`Tools::run_tool`] would find this program, `None` if nowhere. A look; nothing is run.
    fn find_tool(&self, program: &Path) -> Option<PathBuf>;

    /// Runs a program; a non-zero status is an error whose source holds the end of its stderr. What
    /// it leaves running in its process group is killed with it.
    /// `progress` gets each line of its stderr as it comes; `cancelled` is polled and ends it.
    fn run_tool(
        &self,
        call: &ToolCall,
        progress: &mut dyn FnMut(&str),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ToolOutput>;
}

/// The machine.
pub trait Host: Files + Blocks + Links + Firewall + Jails + Processes + Clock {}
impl<T: Files + Blocks + Links + Firewall + Jails + Processes + Clock> Host for T {}
