//! Starting the daemon, its program as `doctor`, `ssh`, Docker's credential helpers, and `tar` for what only it can read: the one place in the command line that spawns programs.

use banger_wire::environment::INHERITED;
use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Longest a credential helper may take: it may ask its user something.
const HELPER: Duration = Duration::from_secs(120);
/// Most bytes that are read of its answer.
const ANSWER: u64 = 1 << 20;

/// File name of the daemon.
const DAEMON: &str = "bangerd";

/// The daemon's binary: beside our own, else the first in PATH.
pub fn daemon_binary() -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()?
        .canonicalize()
        .ok()?
        .with_file_name(DAEMON);
    if beside.is_file() {
        return Some(beside);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(DAEMON))
        .find(|p| p.is_file())
}

/// Starts the daemon with nothing of ours: no terminal, no pipe, its own process group, an
/// environment of known variables. It frees itself of the rest (session, umask, descriptors) in its
/// own birth (R-PROG-5).
///
/// # Errors
/// The operating system's, if the program cannot be started.
pub fn spawn_daemon(binary: &Path) -> io::Result<Child> {
    daemon_program(binary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// The daemon's program with what it may have of us.
fn daemon_program(binary: &Path) -> Command {
    #[allow(clippy::disallowed_methods, reason = "the command line's first spawn")]
    let mut command = Command::new(binary);
    let variables = INHERITED
        .iter()
        .filter_map(|n| Some((n, std::env::var_os(n)?)));
    command
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .current_dir("/");
    command
}

/// Has the daemon's program look at this machine and say how it stands, in the environment that a daemon would have.
/// It starts no daemon.
///
/// # Errors
/// The operating system's.
pub fn look_at_machine(binary: &Path) -> io::Result<Output> {
    daemon_program(binary).arg("--doctor").output()
}

/// Becomes the user's own `ssh`, with all that is ours: terminal, environment, signals. Comes back only with the reason why
/// not.
pub fn become_ssh(args: &[String]) -> io::Error {
    #[allow(clippy::disallowed_methods, reason = "the command line becomes ssh")]
    Command::new("ssh").args(args).exec()
}

/// Asks a credential helper of Docker for a server's login: whether it has one, and what it says.
///
/// # Errors
/// There is no such helper, or it does not answer.
pub fn ask_helper(helper: &str, server: &str) -> io::Result<(bool, Vec<u8>)> {
    #[allow(clippy::disallowed_methods, reason = "the command line's fourth spawn")]
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let mut child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // One that does not read has its reasons, and says them.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (tell, told) = mpsc::channel();
    if let Some(stdout) = stdout {
        thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(ANSWER).read_to_end(&mut answer);
            let _ = tell.send(read.map(|_| answer));
        });
    }
    match told.recv_timeout(HELPER) {
        Ok(answer) => Ok((child.wait()?.success(), answer?)),
        Err(_) => {
            child.kill()?;
            child.wait()?;
            Err(io::Error::other(format!(
                "no answer for {} s",
                HELPER.as_secs()
            )))
        }
    }
}

/// Starts `tar`, which writes an archive of a directory to its stdout: numeric owners, extended attributes, holes, and
/// nothing of other file systems. It dies of its broken pipe when we do.
///
/// # Errors
/// The operating system's; there is no `tar`.
pub fn spawn_tar(directory: &Path) -> io::Result<Child> {
    tar(
        directory,
        &["--xattrs", "--xattrs-include=*", "--sparse"],
        &[".".into()],
    )
}

/// Starts `tar` as [`spawn_tar`] does, for the content of some entries of a directory only; each name of a file has it.
///
/// # Errors
/// The operating system's; there is no `tar`.
pub fn spawn_tar_of(directory: &Path, entries: &[String]) -> io::Result<Child> {
    tar(directory, &["--hard-dereference"], entries)
}

fn tar(directory: &Path, options: &[&str], entries: &[String]) -> io::Result<Child> {
    #[allow(clippy::disallowed_methods, reason = "the command line's third spawn")]
    let mut command = Command::new("tar");
    command
        .args(["--create", "--file=-", "--format=posix", "--numeric-owner"])
        .args(options)
        .args(["--one-file-system", "--warning=no-file-ignored"])
        .arg("--directory")
        .arg(directory)
        .arg("--")
        .args(entries)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}
