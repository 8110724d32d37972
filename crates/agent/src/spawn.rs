//! The only file that starts programs in the guest.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

use banger_wire::guest::TtySize;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, WaitStatus, ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tokio::sync::oneshot;

use crate::reaper::Reaper;

/// Group that owns terminals, by convention number 5 everywhere.
const TTY_GROUP: u32 = 5;

/// How ready the kernel is to kill a process when memory is short; PID 1 it never kills.
const SPARED: &CStr = c"/proc/self/oom_score_adj";

/// A program with everything decided.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The file to execute.
    pub program: &'a Path,
    /// Its arguments; the first is the name it is called by.
    pub argv: &'a [String],
    /// Its whole environment.
    pub env: &'a [(String, String)],
    /// Its working directory.
    pub cwd: &'a Path,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: &'a [u32],
    /// Its standard streams.
    pub stdio: Stdio,
}

/// What a program's standard streams are.
#[derive(Debug, Clone, Copy)]
pub enum Stdio {
    /// Three pipes.
    Pipes,
    /// A terminal of this size.
    Terminal(TtySize),
    /// Nothing.
    Null,
}

/// A started program. It leads a session and a process group of its own.
#[derive(Debug)]
pub struct Running {
    /// Its process id, and that of its process group.
    pub pid: Pid,
    /// How it ended.
    pub exit: oneshot::Receiver<WaitStatus>,
    /// Our ends of its standard streams.
    pub streams: Streams,
}

/// Our ends of a program's standard streams.
#[derive(Debug)]
pub enum Streams {
    /// Three pipes.
    Pipes {
        /// Write end of its standard input.
        stdin: OwnedFd,
        /// Read end of its standard output.
        stdout: OwnedFd,
        /// Read end of its standard error.
        stderr: OwnedFd,
    },
    /// The controlling side of its terminal.
    Terminal(OwnedFd),
    /// There are none.
    None,
}

/// Starts a program. An error is the one of fork, of entering the directory, or of exec.
pub fn spawn(reaper: &Reaper, launch: &Launch<'_>) -> io::Result<Running> {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the agent's one spawn file"
    )]
    let mut command = Command::new(launch.program);
    if let Some((name, rest)) = launch.argv.split_first() {
        command.arg0(OsStr::new(name)).args(rest);
    }
    command
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)));
    let mut master = None;
    match launch.stdio {
        Stdio::Terminal(size) => master = Some(terminal(&mut command, size, launch.uid)?),
        Stdio::Pipes => all_three(&mut command, process::Stdio::piped),
        Stdio::Null => all_three(&mut command, process::Stdio::null),
    }
    prepare_child(&mut command, launch)?;
    let mut child = None;
    let (pid, exit) = reaper.spawn(|| {
        let started = command.spawn()?;
        let pid = Pid::from_child(&started);
        child = Some(started);
        Ok(pid)
    })?;
    // The command holds the terminal's other side; as long as it is open here, its end is never seen.
    drop(command);
    let streams = match (master, child) {
        (Some(master), _) => Streams::Terminal(master),
        (None, Some(_)) if matches!(launch.stdio, Stdio::Null) => Streams::None,
        (None, Some(child)) => match (child.stdin, child.stdout, child.stderr) {
            (Some(stdin), Some(stdout), Some(stderr)) => Streams::Pipes {
                stdin: stdin.into(),
                stdout: stdout.into(),
                stderr: stderr.into(),
            },
            _ => return Err(io::Error::other("a pipe is missing")),
        },
        (None, None) => return Err(io::Error::other("the child is missing")),
    };
    Ok(Running { pid, exit, streams })
}

fn all_three(command: &mut Command, stream: impl Fn() -> process::Stdio) {
    command.stdin(stream()).stdout(stream()).stderr(stream());
}

/// Starts this program once more, beside PID 1, which is at the other end of its standard input. Its name says to
/// systemd that it belongs to the machine and is left alone at shutdown (systemd.io/ROOT_STORAGE_DAEMONS).
pub fn service(channel: OwnedFd) -> io::Result<()> {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the agent's one spawn file"
    )]
    let mut command = Command::new("/init");
    command.arg0("@banger-agent").arg("service");
    command
        .stdin(process::Stdio::from(channel))
        .spawn()
        .map(drop)
}

/// Makes this process the image's init, with what the kernel gives an init; returns why it cannot.
pub fn become_init(path: &str) -> io::Error {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the agent's one spawn file"
    )]
    let mut command = Command::new(path);
    command
        .env_clear()
        .envs([("HOME", "/"), ("TERM", "linux")])
        .exec()
}

/// Makes a terminal, gives its far side to the command and its near side to us.
fn terminal(command: &mut Command, size: TtySize, uid: u32) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    if uid != 0 {
        // The user may open its own terminal by name.
        rustix::fs::fchown(
            &slave,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(TTY_GROUP)),
        )?;
    }
    command
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave);
    Ok(master)
}

/// Sets the size of a terminal.
pub fn resize(terminal: impl AsFd, size: TtySize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// What happens in the child between fork and exec: session, terminal, identity, directory, in this order.
fn prepare_child(command: &mut Command, launch: &Launch<'_>) -> io::Result<()> {
    let cwd = CString::new(launch.cwd.as_os_str().as_bytes())?;
    let with_terminal = matches!(launch.stdio, Stdio::Terminal(_));
    let (uid, gid) = (Uid::from_raw(launch.uid), Gid::from_raw(launch.gid));
    let groups: Vec<Gid> = launch.groups.iter().copied().map(Gid::from_raw).collect();
    // Without privileges (tests) there is no identity to change.
    let beside_init = std::process::id() != 1;
    let change_identity = rustix::process::geteuid().is_root();
    let enter = move || -> io::Result<()> {
        setsid()?;
        if with_terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if beside_init {
            // The agent is spared when memory is short, its commands are not. Tests may not write this.
            if let Ok(file) = rustix::fs::open(SPARED, OFlags::WRONLY, Mode::empty()) {
                let _ = rustix::io::write(file, b"0");
            }
        }
        if change_identity {
            // Only the forking thread exists in the child, so these change the whole process.
            match set_thread_groups(&groups) {
                // A user namespace may forbid it (tests); root has all rights without.
                Err(rustix::io::Errno::PERM) if uid.is_root() => {}
                other => other?,
            }
            set_thread_gid(gid)?;
            set_thread_uid(uid)?;
        }
        rustix::process::chdir(&*cwd)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only, on values made before the fork; it allocates nothing.
    unsafe {
        command.pre_exec(enter);
    }
    Ok(())
}

/// Makes reads and writes return instead of waiting.
pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
