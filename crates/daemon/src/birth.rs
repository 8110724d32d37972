//! The daemon's birth (R-PROG-5): it takes nothing from its caller.
//!
//! [`detach`] forks first: a caller (a shell, the command line) may have made us the leader of a process group,
//! which may not begin a session. The parent waits for the child's word and passes it on by its exit status, so
//! `bangerd` returns when the daemon listens, or says on stderr why it does not.

use banger_wire::environment::INHERITED;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

/// Where programs are looked for when the caller's `PATH` says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The child's way to tell its parent that it listens.
#[derive(Debug)]
pub struct Readiness(Option<OwnedFd>);

impl Readiness {
    /// Nobody waits (`--foreground`).
    pub const fn nobody() -> Self {
        Readiness(None)
    }

    /// Tells the parent that the daemon listens; the parent exits with status 0.
    pub fn ready(self) {
        if let Some(pipe) = self.0 {
            // A parent that is gone needs no word.
            let _ = File::from(pipe).write_all(b"+");
        }
    }
}

/// Leaves caller, terminal and session behind. Must be called before any thread exists. Returns in the child only.
///
/// # Errors
/// The system has no process or pipe to give.
pub fn detach() -> io::Result<Readiness> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    close_others(&[read.as_raw_fd(), write.as_raw_fd()])?;
    // SAFETY: no thread has been started yet, so the child may go on like any single-threaded process.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => {
            drop(write);
            let mut word = [0];
            let ready = File::from(read).read_exact(&mut word).is_ok();
            std::process::exit(i32::from(!ready));
        }
    }
    drop(read);
    rustix::process::setsid()?;
    Ok(Readiness(Some(write)))
}

/// Makes what is inherited ours: directory, umask, limits, signals, environment. Must be called before any thread
/// exists.
///
/// # Errors
/// The root directory cannot be entered.
pub fn forget_caller() -> io::Result<()> {
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    reset_limits();
    reset_signals();
    let kept: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(k, _)| kept(k)).collect();
    for (name, _) in std::env::vars_os() {
        // SAFETY: no thread has been started yet (the caller's promise), so nobody reads the environment.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in kept {
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }
    if std::env::var_os("PATH").is_none() {
        // SAFETY: as above.
        unsafe { std::env::set_var("PATH", DEFAULT_PATH) };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("LC_ALL", "C.UTF-8") };
    Ok(())
}

fn kept(name: &OsStr) -> bool {
    INHERITED.iter().any(|k| name == *k)
}

/// Soft limits of the caller's shell (`ulimit -t`, `-f`, `-n`) are not the daemon's: each is raised to what is
/// allowed. No core files: they would hold guests' memory.
fn reset_limits() {
    use Resource::{Core, Cpu, Data, Fsize, Nofile, Nproc, Rss};
    for resource in [Cpu, Fsize, Data, Rss, Nproc, Nofile] {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let _ = rustix::process::setrlimit(
            resource,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
    let maximum = rustix::process::getrlimit(Core).maximum;
    let _ = rustix::process::setrlimit(
        Core,
        Rlimit {
            current: Some(0),
            maximum,
        },
    );
}

/// Unblocks every signal and gives each its default action (`nohup`, a shell's `trap ''` ignore some), but SIGPIPE,
/// which stays ignored as in every Rust program.
fn reset_signals() {
    // SAFETY: the calls take a set that was initialised by sigemptyset; SIG_DFL is a valid action; no thread exists.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for signal in 1..32 {
            if ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(&signal) {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Points stdin at /dev/null, stdout and stderr at the log.
///
/// # Errors
/// Neither /dev/null nor the log can be opened.
pub fn adopt_stdio(log: &Path) -> io::Result<()> {
    let null = rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let log = open_log(log)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

/// Opens the log for appending; above 8 MiB the old one is kept once as `<name>.1` (logs are capped).
///
/// # Errors
/// It cannot be opened.
pub fn open_log(path: &Path) -> io::Result<OwnedFd> {
    const CAP: u64 = 8 << 20;
    if std::fs::metadata(path).is_ok_and(|m| m.len() > CAP) {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        std::fs::rename(path, old)?;
    }
    Ok(rustix::fs::open(
        path,
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?)
}

/// Closes every descriptor but stdio and `keep`: a pipe of the caller held open would make it wait for us.
fn close_others(keep: &[RawFd]) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            open.push(fd);
        }
    }
    for fd in open {
        if fd > 2 && !keep.contains(&fd) {
            // SAFETY: nothing of ours is open yet but what is kept; the descriptor of the listing itself is closed
            // already, and closing a number that is not open is refused without harm.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_variables_come_along() {
        let points = [banger_host::crash::CRASH_AT, banger_host::crash::EFFECT_LOG];
        let known = ["HOME", "PATH", "BANGER_STATE_DIR", "https_proxy"];
        for name in known.into_iter().chain(points) {
            assert!(kept(OsStr::new(name)), "{name}");
        }
        for name in ["GIT_DIR", "LD_PRELOAD", "TMPDIR", "LANG", "BANGER_OTHER"] {
            assert!(!kept(OsStr::new(name)), "{name}");
        }
    }
}
