//! The one file of the daemon's side that starts programs.
//!
//! Two ways, and no third: a process that outlives us ([`long_lived`]) and a tool that does not
//! ([`tool`]). Neither inherits anything it was not given.

use rustix::{
    fs::{Mode, OFlags, RawDir, open},
    io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd},
    process::{Resource, Rlimit, Signal, getrlimit, setrlimit},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
};

/// Held while a program is started, and while anything holds a log's lock that is not a VMM, or a
/// tap's queue: a child has copies of all our descriptors until its exec, and a copy of a locked log
/// looks like a VMM.
static STARTING: Mutex<()> = Mutex::new(());

/// Waits until no start is under way and keeps others from beginning.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    super::locked(&STARTING)
}

/// What to start.
pub(super) struct Program<'a> {
    /// Absolute path.
    pub program: &'a Path,
    pub args: &'a [OsString],
    /// Whole environment.
    pub env: &'a BTreeMap<OsString, OsString>,
    pub cwd: &'a Path,
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the file of this crate that spawns"
)]
fn command(what: &Program<'_>) -> Command {
    let mut command = Command::new(what.program);
    command
        .args(what.args)
        .env_clear()
        .envs(what.env)
        .current_dir(what.cwd);
    command
}

/// Starts a process that outlives us, in a session of its own: stdin is /dev/null, stdout and stderr
/// are `log` (whose lock it thereby holds), all else is closed, umask 077, limits reset. With
/// `cgroup`, an open `cgroup.procs`, it starts in that cgroup. Yields its pid; it is our child and
/// someone must reap it. The caller holds [`alone`] since before it locked the log.
pub(super) fn long_lived(
    _alone: &MutexGuard<'_, ()>,
    what: &Program<'_>,
    log: File,
    cgroup: Option<OwnedFd>,
) -> io::Result<u32> {
    let mut command = command(what);
    let errors = log.try_clone()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(errors));
    // SAFETY: between fork and exec only system calls are made; nothing allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if let Some(procs) = &cgroup {
                rustix::io::write(procs, b"0")?; // the writer itself (cgroup v2 documentation)
            }
            rustix::process::umask(Mode::from_raw_mode(0o077));
            reset_limits();
            close_others_on_exec()
        });
    }
    command.spawn().map(|child| child.id())
}

/// Starts a program that ends before we do, leader of its own process group, its three streams piped.
/// If we die, the kernel kills it: a tool must not go on writing what its successor writes again.
pub(super) fn tool(what: &Program<'_>) -> io::Result<Child> {
    let mut command = command(what);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: as above, system calls only.
    unsafe {
        command.pre_exec(|| {
            // The signal comes when the thread that forked ends; that one waits for the tool.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            rustix::process::umask(Mode::from_raw_mode(0o022)); // what tools expect of their caller
            close_others_on_exec()
        });
    }
    let _alone = alone();
    command.spawn()
}

/// Limits that whoever started us may have lowered; raised as far as we may.
fn reset_limits() {
    let at_most = |limit: Option<u64>, hard: Option<u64>| match (limit, hard) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    for (resource, soft) in [
        (Resource::Cpu, None),
        (Resource::Fsize, None),
        (Resource::Data, None),
        (Resource::As, None),
        (Resource::Stack, Some(8 << 20)),
        (Resource::Nofile, Some(4096)),
        (Resource::Core, Some(0)), // a dump would hold the guest's memory
    ] {
        let maximum = getrlimit(resource).maximum;
        // Cannot fail below the hard limit; if it did, the inherited limit would still be a valid one.
        let _ = setrlimit(
            resource,
            Rlimit {
                current: at_most(soft, maximum),
                maximum,
            },
        );
    }
}

/// Marks every descriptor but the first three close-on-exec. Ours are already; this is for those
/// that our own starter leaked into us.
fn close_others_on_exec() -> io::Result<()> {
    let dir = open(
        c"/proc/self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // On the stack: no allocation is allowed here.
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Some(number) = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue; // . and ..
        };
        if number > 2 {
            // SAFETY: the directory says that this descriptor is open, and nothing else runs in
            // this process to close it.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            match fcntl_getfd(fd).and_then(|flags| fcntl_setfd(fd, flags | FdFlags::CLOEXEC)) {
                Ok(()) | Err(Errno::BADF) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}
