//! One error for every effect: what was tried, on what, how the kernel refused.

use std::path::Path;

/// The kinds of effect; the unit of the crash enumeration's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is named like the trait method it belongs to
pub enum Effect {
    Read,
    List,
    Mkdir,
    WriteFile,
    SyncFile,
    SyncDir,
    Rename,
    Unlink,
    Rmdir,
    MakeDisk,
    GrowDisk,
    LoopList,
    LoopAttach,
    LoopDetach,
    DmList,
    DmCreate,
    DmLoad,
    DmResume,
    DmRemove,
    LinkList,
    TapCreate,
    SetMaster,
    SetUp,
    LinkDelete,
    BridgeCreate,
    RulesetRead,
    RulesetSwap,
    JailCreate,
    JailRemove,
    CgroupCreate,
    CgroupRemove,
    JailList,
    LockProbe,
    Spawn,
    Prove,
    Signal,
    AwaitExit,
    Tool,
    DiskSpace,
    /// A transaction of the state database (made through the ledger, counted with the rest).
    Ledger,
}

/// How an effect failed, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// EBUSY: held by someone; worth a retry.
    Busy,
    /// EEXIST.
    Exists,
    /// ENOENT.
    NotFound,
    /// ENODEV or ENXIO: the driver or device is not there.
    NoDevice,
    /// ENOSPC, EDQUOT.
    NoSpace,
    /// EPERM, EACCES.
    Denied,
    /// The object there is not ours (its label says otherwise or it has none).
    Foreign,
    /// A bounded wait ended.
    TimedOut,
    /// The file system cannot do it: share blocks between files, or not between these two places; exchange two names.
    Unsupported,
    /// Anything else.
    Other,
    /// The process is dead (simulation only): nothing more happens, ever.
    Crashed,
}

/// A failed effect. The text says what was tried and on what; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("{what} {target}")]
pub struct Error {
    /// Which effect.
    pub effect: Effect,
    /// What was tried, as a verb phrase: `attach a loop device to`.
    pub what: &'static str,
    /// On what: a path, a device, a label.
    pub target: String,
    /// How it failed.
    pub kind: ErrorKind,
    /// Why, from the kernel or the program that was run.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// An error with its kind given.
    pub fn new(
        effect: Effect,
        what: &'static str,
        target: impl Into<String>,
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error {
            effect,
            what,
            target: target.into(),
            kind,
            source: source.into(),
        }
    }

    /// An error of the operating system on a path.
    pub fn io(effect: Effect, what: &'static str, path: &Path, source: std::io::Error) -> Self {
        let kind = ErrorKind::of_io(&source);
        Error {
            effect,
            what,
            target: path.display().to_string(),
            kind,
            source: source.into(),
        }
    }
}

impl ErrorKind {
    /// The kind of an operating-system error.
    pub fn of_io(error: &std::io::Error) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::BUSY | Errno::TXTBSY | Errno::AGAIN) => ErrorKind::Busy,
            Some(Errno::EXIST | Errno::NOTEMPTY) => ErrorKind::Exists,
            Some(Errno::NOENT) => ErrorKind::NotFound,
            Some(Errno::NODEV | Errno::NXIO) => ErrorKind::NoDevice,
            Some(Errno::NOSPC | Errno::DQUOT) => ErrorKind::NoSpace,
            Some(Errno::PERM | Errno::ACCESS) => ErrorKind::Denied,
            Some(Errno::TIMEDOUT) => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        }
    }
}
