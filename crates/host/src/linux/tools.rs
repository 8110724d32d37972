//! Programs run to their end: one loop over their pipes and their pidfd, no threads.

use super::{LinuxHost, spawn};
use crate::{Effect, Error, ErrorKind, ToolCall, ToolOutput, Tools, effects::Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ExitStatus},
    time::{Duration, Instant},
};

/// The most a tool may write to its standard output.
const STDOUT_MAX: usize = 16 << 20;
/// How much of the end of standard error is kept.
const STDERR_TAIL: usize = 64 << 10;
/// A line of progress is passed on at this length though it has not ended.
const LINE_MAX: usize = 4096;
/// How often cancellation is asked about.
const TICK: Duration = Duration::from_millis(50);
/// From SIGTERM to SIGKILL: enough for a tool to take down its mounts.
const GRACE: Duration = Duration::from_secs(2);
/// From SIGKILL to giving up on a process the kernel does not let die.
const DYING: Duration = Duration::from_secs(5);

/// Why a program did not do its work; the source of the [`Error`] of [`Tools::run_tool`].
#[derive(Debug, thiserror::Error)]
pub enum ToolFailed {
    /// Not in PATH, /usr/sbin, /sbin.
    #[error(
        "there is no program '{0}' in PATH, /usr/sbin or /sbin; install the package that has it"
    )]
    Absent(String),
    /// It could not be started or waited for.
    #[error("the kernel refused")]
    System(#[from] io::Error),
    /// It ended with a status other than 0.
    #[error("it ended with {status}{}", tail(stderr))]
    Status {
        /// As wait(2) gave it.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// It was killed at its deadline.
    #[error("it was not done after {} s and was killed{}", after.as_secs(), tail(stderr))]
    TimedOut {
        /// The deadline.
        after: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// It was killed because whoever asked for it changed their mind.
    #[error("it was cancelled")]
    Cancelled,
    /// It wrote more than 16 MiB to its standard output.
    #[error("it wrote more than {} MiB to its standard output and was killed", STDOUT_MAX >> 20)]
    TooMuch,
    /// SIGKILL did not end it.
    #[error("it does not die (it hangs in the kernel)")]
    Undead,
}

/// The last lines of what a program complained about, for an error message.
fn tail(stderr: &str) -> String {
    let lines: Vec<_> = stderr.trim_end().lines().collect();
    if lines.is_empty() {
        return String::from(" and said nothing");
    }
    format!(": {}", lines[lines.len().saturating_sub(10)..].join("\n"))
}

impl ToolFailed {
    fn kind(&self) -> ErrorKind {
        match self {
            ToolFailed::Absent(_) => ErrorKind::NotFound,
            ToolFailed::System(e) => ErrorKind::of_io(e),
            ToolFailed::TimedOut { .. } | ToolFailed::Undead => ErrorKind::TimedOut,
            ToolFailed::Status { .. } | ToolFailed::Cancelled | ToolFailed::TooMuch => {
                ErrorKind::Other
            }
        }
    }
}

impl Tools for LinuxHost {
    fn find_tool(&self, program: &Path) -> Option<PathBuf> {
        find(program, &search_path()).filter(|file| is_program(file))
    }

    fn run_tool(
        &self,
        call: &ToolCall,
        progress: &mut dyn FnMut(&str),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ToolOutput> {
        run(call, progress, cancelled).map_err(|e| {
            let name = call.program.display().to_string();
            Error::new(Effect::Tool, "run", name, e.kind(), e)
        })
    }
}

/// PATH for a tool: ours, and where distributions keep administrators' programs.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// Where a program is; a name with a slash is taken as it is.
fn find(program: &Path, path: &OsStr) -> Option<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Some(program.to_owned());
    }
    env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn run(
    call: &ToolCall,
    progress: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<ToolOutput, ToolFailed> {
    let path = search_path();
    let program = find(&call.program, &path)
        .ok_or_else(|| ToolFailed::Absent(call.program.display().to_string()))?;
    let mut vars = BTreeMap::from([
        (OsString::from("PATH"), path),
        ("LC_ALL".into(), "C.UTF-8".into()),
        (
            "HOME".into(),
            env::var_os("HOME").unwrap_or_else(|| "/".into()),
        ),
    ]);
    vars.extend(call.env.clone());
    let mut child = spawn::tool(&spawn::Program {
        program: &program,
        args: &call.args,
        env: &vars,
        cwd: &call.cwd,
    })?;
    let watched = Watch::new(&mut child, call).and_then(|watch| watch.finish(progress, cancelled));
    // Before it is reaped its number is still taken, so this group is surely its own. What it left
    // in the background dies with it: a tool ends when it ends.
    if let Some(group) = pid_of(&child) {
        let _ = kill_process_group(group, Signal::KILL); // no one left is the usual answer
    }
    if let Err(ToolFailed::Undead) = watched {
        return Err(ToolFailed::Undead);
    }
    let status = child.wait()?;
    let output = watched?;
    if status.success() {
        Ok(output)
    } else {
        Err(ToolFailed::Status {
            status,
            stderr: output.stderr,
        })
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// A running tool and what it said so far.
struct Watch<'a> {
    call: &'a ToolCall,
    group: Pid,
    pidfd: std::os::fd::OwnedFd,
    stdin: Option<ChildStdin>,
    written: usize,
    stdout: Option<std::process::ChildStdout>,
    stderr: Option<std::process::ChildStderr>,
    out: Vec<u8>,
    err: Vec<u8>,
    line: Vec<u8>,
    started: Instant,
    /// Why it is being ended, and since when with which signal.
    ending: Option<(ToolFailed, Instant, Signal)>,
}

impl<'a> Watch<'a> {
    fn new(child: &mut Child, call: &'a ToolCall) -> Result<Self, ToolFailed> {
        let group = pid_of(child).ok_or_else(|| io::Error::other("a pid out of range"))?;
        let pidfd = pidfd_open(group, PidfdFlags::empty()).map_err(io::Error::from)?;
        let watch = Watch {
            call,
            group,
            pidfd,
            stdin: child.stdin.take(),
            written: 0,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            out: Vec::new(),
            err: Vec::new(),
            line: Vec::new(),
            started: Instant::now(),
            ending: None,
        };
        for fd in [
            watch.stdin.as_ref().map(AsFd::as_fd),
            watch.stdout.as_ref().map(AsFd::as_fd),
            watch.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            rustix::io::ioctl_fionbio(fd, true).map_err(io::Error::from)?;
        }
        Ok(watch)
    }

    /// Feeds and listens until the program has ended, by itself or by us.
    fn finish(
        mut self,
        progress: &mut dyn FnMut(&str),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ToolOutput, ToolFailed> {
        loop {
            let ended = self.wait()?;
            self.feed()?;
            self.listen(progress)?;
            if ended {
                break;
            }
            self.end_if_due(cancelled)?;
        }
        if !self.line.is_empty() {
            progress(&String::from_utf8_lossy(&self.line));
        }
        let stderr = String::from_utf8_lossy(&self.err).into_owned();
        match self.ending {
            Some((ToolFailed::TimedOut { after, .. }, ..)) => {
                Err(ToolFailed::TimedOut { after, stderr })
            }
            Some((why, ..)) => Err(why),
            None => Ok(ToolOutput {
                stdout: self.out,
                stderr,
            }),
        }
    }

    /// Waits at most a tick for something to do; true once the program has ended.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.extend(self.stdin.iter().map(|f| PollFd::new(f, PollFlags::OUT)));
        fds.extend(self.stdout.iter().map(|f| PollFd::new(f, PollFlags::IN)));
        fds.extend(self.stderr.iter().map(|f| PollFd::new(f, PollFlags::IN)));
        let tick = Timespec::try_from(TICK).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&tick)) {
            Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what the program takes of its standard input; closes it at the end.
    fn feed(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.call.stdin[self.written..]) {
                Ok(0) => self.stdin = None,
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It does not want the rest; its status says whether that is well.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Takes what the program has said until now.
    fn listen(&mut self, progress: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut piece = [0; 16 << 10];
        while let Some(n) = read_some(&mut self.stdout, &mut piece)? {
            if self.out.len() + n > STDOUT_MAX {
                if self.ending.is_none() {
                    self.end(ToolFailed::TooMuch, Signal::TERM);
                }
                continue; // drained, so that it can end
            }
            self.out.extend_from_slice(&piece[..n]);
        }
        while let Some(n) = read_some(&mut self.stderr, &mut piece)? {
            self.err.extend_from_slice(&piece[..n]);
            if self.err.len() > 2 * STDERR_TAIL {
                self.err.drain(..self.err.len() - STDERR_TAIL);
            }
            for &byte in &piece[..n] {
                let ends = matches!(byte, b'\n' | b'\r');
                if !ends {
                    self.line.push(byte);
                }
                if !self.line.is_empty() && (ends || self.line.len() == LINE_MAX) {
                    progress(&String::from_utf8_lossy(&self.line));
                    self.line.clear();
                }
            }
        }
        if self.err.len() > STDERR_TAIL {
            self.err.drain(..self.err.len() - STDERR_TAIL);
        }
        Ok(())
    }

    /// Ends the program when its time is over or no one wants it, gently, then not.
    fn end_if_due(&mut self, cancelled: &dyn Fn() -> bool) -> Result<(), ToolFailed> {
        match &self.ending {
            None if cancelled() => self.end(ToolFailed::Cancelled, Signal::TERM),
            None if self.started.elapsed() >= self.call.timeout => {
                let why = ToolFailed::TimedOut {
                    after: self.call.timeout,
                    stderr: String::new(),
                };
                self.end(why, Signal::TERM);
            }
            Some((_, since, Signal::TERM)) if since.elapsed() >= GRACE => {
                if let Some((why, ..)) = self.ending.take() {
                    self.end(why, Signal::KILL);
                }
            }
            Some((_, since, Signal::KILL)) if since.elapsed() >= DYING => {
                return Err(ToolFailed::Undead);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, why: ToolFailed, signal: Signal) {
        // ESRCH only: it is ending already.
        let _ = kill_process_group(self.group, signal);
        self.ending = Some((why, Instant::now(), signal));
    }
}

/// One read of a non-blocking pipe; `None` when there is nothing now or ever (then it is closed).
fn read_some(pipe: &mut Option<impl Read>, piece: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        let Some(open) = pipe else { return Ok(None) };
        match open.read(piece) {
            Ok(0) => *pipe = None,
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
