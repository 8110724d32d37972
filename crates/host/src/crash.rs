//! Dying at a chosen effect on the real machine, so that it can be enumerated like the simulated one.
//!
//! `BANGER_CRASH_AT=n` kills this process (SIGKILL, as nothing else leaves so little behind) before
//! its n-th effect that changes something, `n:after` right after it; counting starts at 1.
//! `BANGER_EFFECT_LOG=path` appends a line `<n> <effect>` before each, so that an enumeration knows
//! how many there are. Both are consulted in builds with debug assertions or the feature
//! `crash-points` only: the program that is shipped contains neither.

use crate::{
    Blocks, Clock, DiskRecipe, DmSeen, DmTable, Effect, FileSeen, Files, Firewall, Jails, LinkSeen,
    Links, LoopSeen, ProcessIdentity, Processes, Proof, Signal, SpawnSpec, ToolCall, ToolOutput,
    Tools, effects::Result,
};
use banger_model::{BootId, ByteSize, DmName, Label, ProcessHandle, TapName};
use std::{
    env,
    fs::{File, OpenOptions},
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The variable that says where to die.
pub const CRASH_AT: &str = "BANGER_CRASH_AT";
/// The variable that names the file effects are listed in.
pub const EFFECT_LOG: &str = "BANGER_EFFECT_LOG";

/// Whether this build consults the two variables at all.
pub const ENABLED: bool = cfg!(any(feature = "crash-points", debug_assertions));

/// A variable of this module that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum CrashPointError {
    /// Not `n` or `n:after` with n from 1.
    #[error("{CRASH_AT} is a number from 1, or that number and ':after', not '{0}'")]
    At(String),
    /// The log cannot be opened.
    #[error("{EFFECT_LOG} names a file that cannot be opened: {path}")]
    Log {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Before or after which effect to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Death {
    at: u64,
    after: bool,
}

#[derive(Debug, Default)]
struct Inner {
    death: Option<Death>,
    log: Option<File>,
    count: AtomicU64,
}

/// Counts the effects of this process, those of the host and those of the state database, and dies
/// where it was told to. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct CrashPoints(Option<Arc<Inner>>);

impl CrashPoints {
    /// Counts nothing, never dies.
    pub fn none() -> Self {
        CrashPoints(None)
    }

    /// What the environment asks for; nothing in a build that does not consult it.
    ///
    /// # Errors
    /// A variable that cannot be followed: better than a test that silently tests nothing.
    pub fn from_env() -> std::result::Result<Self, CrashPointError> {
        if !ENABLED {
            return Ok(CrashPoints::none());
        }
        let death = match env::var(CRASH_AT) {
            Ok(text) => Some(parse(&text).ok_or(CrashPointError::At(text))?),
            Err(env::VarError::NotPresent) => None,
            Err(env::VarError::NotUnicode(text)) => {
                return Err(CrashPointError::At(text.to_string_lossy().into_owned()));
            }
        };
        let log = match env::var_os(EFFECT_LOG) {
            Some(path) => Some(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&path)
                    .map_err(|source| CrashPointError::Log {
                        path: path.to_string_lossy().into_owned(),
                        source,
                    })?,
            ),
            None => None,
        };
        if death.is_none() && log.is_none() {
            return Ok(CrashPoints::none());
        }
        let count = AtomicU64::new(0);
        Ok(CrashPoints(Some(Arc::new(Inner { death, log, count }))))
    }

    /// Does one effect that changes something: counts it, lists it, dies before or after it.
    pub fn around<T>(&self, effect: Effect, act: impl FnOnce() -> T) -> T {
        if !ENABLED {
            return act();
        }
        let Some(inner) = &self.0 else { return act() };
        let n = inner.count.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(mut log) = inner.log.as_ref() {
            // One write, so that lines of several threads do not mix. A full disk is itself a test.
            let _ = log.write_all(format!("{n} {effect:?}\n").as_bytes());
        }
        let death = inner.death.filter(|death| death.at == n);
        if death.is_some_and(|death| !death.after) {
            die();
        }
        let answer = act();
        if death.is_some() {
            die();
        }
        answer
    }

    /// How many effects there were until now.
    pub fn count(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |inner| inner.count.load(Ordering::SeqCst))
    }
}

fn parse(text: &str) -> Option<Death> {
    let (number, after) = match text.split_once(':') {
        None => (text, false),
        Some((number, "after")) => (number, true),
        Some(_) => return None,
    };
    let at = number.parse().ok().filter(|&at| at > 0)?;
    Some(Death { at, after })
}

fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        // The signal may need a moment to reach this thread.
        std::thread::park();
    }
}

/// Any host, dying where its [`CrashPoints`] say. Looking is passed on uncounted.
#[derive(Debug)]
pub struct CrashAt<H> {
    host: H,
    points: CrashPoints,
}

impl<H> CrashAt<H> {
    /// The host with these points; the state database counts on a clone of them.
    pub fn new(host: H, points: CrashPoints) -> Self {
        CrashAt { host, points }
    }

    /// The points, for whoever makes effects besides this host's.
    pub fn points(&self) -> &CrashPoints {
        &self.points
    }
}

/// Methods passed on as they are: they change nothing.
macro_rules! looks {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {$(
        fn $name(&self $(, $arg: $type)*) -> $answer {
            self.host.$name($($arg),*)
        }
    )*};
}

/// Methods that are counted as this effect.
macro_rules! changes {
    ($($effect:ident fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {$(
        fn $name(&self $(, $arg: $type)*) -> $answer {
            self.points.around(Effect::$effect, || self.host.$name($($arg),*))
        }
    )*};
}

impl<H: Files> Files for CrashAt<H> {
    looks! {
        fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
        fn stat(&self, path: &Path) -> Result<Option<FileSeen>>;
        fn list(&self, dir: &Path) -> Result<Vec<String>>;
        fn disk_space(&self, path: &Path) -> Result<(u64, u64)>;
    }
    changes! {
        Mkdir fn mkdir(&self, dir: &Path) -> Result<()>;
        WriteFile fn write(&self, path: &Path, bytes: &[u8]) -> Result<()>;
        SyncFile fn sync_file(&self, path: &Path) -> Result<()>;
        SyncDir fn sync_dir(&self, dir: &Path) -> Result<()>;
        Rename fn rename(&self, from: &Path, to: &Path) -> Result<()>;
        Rename fn exchange(&self, one: &Path, other: &Path) -> Result<()>;
        Unlink fn unlink(&self, path: &Path) -> Result<()>;
        Rmdir fn rmdir(&self, dir: &Path) -> Result<()>;
        MakeDisk fn make_disk(&self, path: &Path, recipe: &DiskRecipe) -> Result<()>;
        GrowDisk fn grow_disk(&self, path: &Path, size: ByteSize) -> Result<()>;
    }
}

impl<H: Blocks> Blocks for CrashAt<H> {
    looks! {
        fn loops(&self) -> Result<Vec<LoopSeen>>;
        fn dms(&self) -> Result<Vec<DmSeen>>;
    }
    changes! {
        LoopAttach fn loop_attach(&self, file: &Path, read_only: bool, label: &Label) -> Result<u32>;
        LoopDetach fn loop_detach(&self, number: u32, label: &Label) -> Result<()>;
        DmCreate fn dm_create(&self, name: &DmName, label: &Label) -> Result<()>;
        DmLoad fn dm_load(&self, name: &DmName, label: &Label, table: &DmTable) -> Result<()>;
        DmResume fn dm_resume(&self, name: &DmName, label: &Label) -> Result<()>;
        DmRemove fn dm_remove(&self, name: &DmName, label: &Label) -> Result<()>;
    }
}

impl<H: Links> Links for CrashAt<H> {
    looks! {
        fn links(&self) -> Result<Vec<LinkSeen>>;
    }
    changes! {
        TapCreate fn tap_create(&self, name: &TapName, label: &Label, owner_uid: u32) -> Result<()>;
        SetMaster fn set_master(&self, name: &TapName, label: &Label, bridge: &str) -> Result<()>;
        SetMaster fn clear_master(&self, name: &TapName, label: &Label) -> Result<()>;
        LinkDelete fn link_delete(&self, name: &TapName, label: &Label) -> Result<()>;
        BridgeCreate fn bridge_create(
            &self, name: &str, label: &Label, address: Ipv4Addr, prefix: u8
        ) -> Result<()>;
        LinkDelete fn bridge_delete(&self, name: &str, label: &Label) -> Result<()>;
    }
}

impl<H: Firewall> Firewall for CrashAt<H> {
    looks! {
        fn ruleset(&self, table: &str) -> Result<Option<String>>;
    }
    changes! {
        RulesetSwap fn ruleset_swap(&self, table: &str, text: &str) -> Result<()>;
    }
}

impl<H: Jails> Jails for CrashAt<H> {
    looks! {
        fn jails(&self) -> Result<Vec<Label>>;
        fn cgroups(&self) -> Result<Vec<Label>>;
    }
    changes! {
        JailCreate fn jail_create(&self, label: &Label) -> Result<()>;
        JailRemove fn jail_remove(&self, label: &Label) -> Result<()>;
        CgroupCreate fn cgroup_create(&self, label: &Label) -> Result<()>;
        CgroupRemove fn cgroup_remove(&self, label: &Label) -> Result<()>;
    }
}

impl<H: Processes> Processes for CrashAt<H> {
    looks! {
        fn log_locked(&self, log: &Path) -> Result<bool>;
        fn prove(&self, identity: &ProcessIdentity) -> Result<Proof>;
        fn await_exit(
            &self, identity: &ProcessIdentity, process: ProcessHandle, timeout: Duration
        ) -> Result<()>;
    }
    changes! {
        Spawn fn spawn(&self, spec: &SpawnSpec) -> Result<ProcessHandle>;
        Signal fn signal(
            &self, identity: &ProcessIdentity, process: ProcessHandle, signal: Signal
        ) -> Result<()>;
    }
}

impl<H: Clock> Clock for CrashAt<H> {
    looks! {
        fn now(&self) -> u64;
        fn monotonic(&self) -> Duration;
        fn boot_id(&self) -> Result<BootId>;
        fn sleep(&self, time: Duration) -> ();
    }
}

impl<H: Tools> Tools for CrashAt<H> {
    looks! {
        fn find_tool(&self, program: &Path) -> Option<PathBuf>;
    }
    changes! {
        Tool fn run_tool(
            &self, call: &ToolCall, progress: &mut dyn FnMut(&str), cancelled: &dyn Fn() -> bool
        ) -> Result<ToolOutput>;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_point_is_a_number_from_one() {
        let death = |at, after| Some(Death { at, after });
        assert_eq!(parse("1"), death(1, false));
        assert_eq!(parse("17:after"), death(17, true));
        for bad in [
            "",
            "0",
            "0:after",
            "-1",
            "1:before",
            "1:",
            "x",
            "1:after:after",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
