//! Long-lived processes: started with the lock of their log, found by proof, ended by pidfd.

mod procfs;
mod proof;

use super::{LinuxHost, fail, locked, spawn};
use crate::{
    Effect, Error, ErrorKind, ProcessIdentity, Processes, Proof, Signal, SpawnSpec, effects::Result,
};
use banger_model::ProcessHandle;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// Another process's look at a lock holds it for microseconds; a spawn that meets one tries again for this long.
const LOOK: Duration = Duration::from_millis(50);

impl LinuxHost {
    /// Reaps children of ours that ended. Only pids we spawned: others wait for theirs.
    fn reap(&self) {
        locked(&self.children).retain(|&pid| {
            let Some(pid) = raw(pid) else { return false };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            matches!(
                waitid(WaitId::Pid(pid), options),
                Ok(None) | Err(Errno::INTR)
            )
        });
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Takes the lock that says "one is alive", or says `Busy`.
fn lock_log(path: &Path) -> Result<File> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|e| fail(Effect::Spawn, "open the log", path, e))?;
    let until = Instant::now() + LOOK;
    loop {
        match flock(&log, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(log),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(fail(Effect::Spawn, "lock the log", path, e)),
        }
    }
}

fn error_on(effect: Effect, what: &'static str, pid: u32, source: Errno) -> Error {
    let kind = match source {
        Errno::SRCH => ErrorKind::NotFound,
        other => ErrorKind::of_io(&other.into()),
    };
    let source = io::Error::from(source);
    Error::new(effect, what, format!("process {pid}"), kind, source)
}

impl Processes for LinuxHost {
    fn spawn(&self, spec: &SpawnSpec) -> Result<ProcessHandle> {
        self.reap();
        let program = &spec.identity.program;
        let label = spec.identity.label.to_string();
        if !spec.args.iter().any(|arg| arg == label.as_str()) {
            return Err(Error::new(
                Effect::Spawn,
                "start",
                program.display().to_string(),
                ErrorKind::Other,
                format!(
                    "its label {label} is not among its arguments, so it could never be proven"
                ),
            ));
        }
        let cgroup = match &spec.cgroup {
            Some(cgroup) => Some(self.open_cgroup(cgroup)?),
            None => None,
        };
        let alone = spawn::alone();
        let log = lock_log(&spec.log)?;
        let what = spawn::Program {
            program,
            args: &spec.args,
            env: &spec.env,
            cwd: &spec.cwd,
        };
        // Held over the fork, so that nobody reaps before the pid is in the list.
        let mut children = locked(&self.children);
        let pid = spawn::long_lived(&alone, &what, log, cgroup)
            .map_err(|e| fail(Effect::Spawn, "start", program, e))?;
        children.push(pid);
        let stat = procfs::stat(pid);
        drop(children);
        let start_time = stat
            .and_then(|stat| stat.ok_or(Errno::SRCH))
            .map(|stat| stat.start_time)
            .map_err(|e| error_on(Effect::Spawn, "read the start time of", pid, e))?;
        Ok(ProcessHandle { pid, start_time })
    }

    fn log_locked(&self, log: &Path) -> Result<bool> {
        let error = |e| fail(Effect::LockProbe, "look at the lock of", log, e);
        let _alone = spawn::alone();
        let file = match File::open(log) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(error(e)),
        };
        // Shared, so that two lookers do not see each other.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(error(e.into())),
        }
    }

    fn prove(&self, identity: &ProcessIdentity) -> Result<Proof> {
        self.reap();
        let alive = self.log_locked(&identity.log)?;
        Ok(proof::find(identity, alive))
    }

    fn signal(
        &self,
        identity: &ProcessIdentity,
        process: ProcessHandle,
        signal: Signal,
    ) -> Result<()> {
        let error = |e| error_on(Effect::Signal, "send a signal to", process.pid, e);
        let pidfd = open_pidfd(process.pid).map_err(error)?;
        // The pidfd holds this process; what is true now stays true of what the signal goes to.
        let label = identity.label.to_string();
        if proof::verify(process.pid, identity, &label) != Some(process) {
            return Err(error(Errno::SRCH));
        }
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        pidfd_send_signal(&pidfd, signal).map_err(error)
    }

    fn await_exit(
        &self,
        _identity: &ProcessIdentity,
        process: ProcessHandle,
        timeout: Duration,
    ) -> Result<()> {
        let error = |e| error_on(Effect::AwaitExit, "wait for the end of", process.pid, e);
        let pidfd = match open_pidfd(process.pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(()),
            Err(e) => return Err(error(e)),
        };
        // Read after the pidfd was opened: if the start time is still that one, the pidfd is its.
        match procfs::stat(process.pid).map_err(error)? {
            Some(stat) if stat.start_time == process.start_time => {}
            _ => return Ok(()),
        }
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| error(Errno::INVAL))?;
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(error(Errno::TIMEDOUT)),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(error(e)),
            }
        }
        self.reap();
        Ok(())
    }
}

/// A pidfd; `SRCH` if no process has this number. One that is a thread's by now is no process's: the
/// kernel says EINVAL to that, ENOENT since 6.9.
fn open_pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = raw(pid).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|e| match e {
        Errno::INVAL | Errno::NOENT => Errno::SRCH,
        other => other,
    })
}
