//! Handing PID 1 to the image's own init (`--init image`).
//!
//! PID 1 starts the agent as a process beside it, before anything else, and waits ([`wait`]). The agent boots the
//! guest as ever; when the root is there it tells PID 1 which program to become ([`hand_over`]). So the agent never
//! is PID 1 in such a guest, and nothing of it has to survive an exec.

mod fstab;
mod systemd;
mod wait;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use banger_wire::guest::{BootFacts, Init};
pub use wait::wait;

/// Where the kernel looks for an init, and where systemd is if nobody linked it there.
const PLACES: &[&str] = &[
    "/sbin/init",
    "/etc/init",
    "/bin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
];

/// What kind of init it is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// systemd.
    Systemd,
    /// Any other.
    Other,
}

/// What a process beside PID 1 must arrange for that PID 1 has by nature.
pub fn leave_pid1() -> Result<(), String> {
    let arranged = || -> std::io::Result<()> {
        rustix::process::setsid()?;
        // Orphans of commands come to us.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // PID 1 is never killed for want of memory. What we start is, see `spawn`.
        std::fs::write("/proc/self/oom_score_adj", "-1000")
    };
    arranged().map_err(|error| format!("the agent cannot leave PID 1: {error}"))
}

/// Makes the image's init PID 1; returns when it is. Gives its kind, and sentences about what failed without
/// stopping it. The root is entered.
pub fn hand_over(facts: &BootFacts) -> Result<(Kind, Vec<String>), String> {
    let path = find(&facts.init)?;
    let program = std::fs::canonicalize(&path)
        .map_err(|error| format!("the init {path} cannot be looked at: {error}"))?;
    let kind = if program.file_name().is_some_and(|name| name == "systemd") {
        Kind::Systemd
    } else {
        Kind::Other
    };
    let warnings = match kind {
        Kind::Systemd => systemd::prepare(facts),
        Kind::Other => Vec::new(),
    };
    become_init(&path)?;
    Ok((kind, warnings))
}

/// The program that is to be PID 1.
fn find(init: &Init) -> Result<String, String> {
    let (wanted, places) = match init {
        Init::Path(path) => (path.as_str(), vec![path.as_str()]),
        Init::Agent | Init::Image => ("image", PLACES.to_vec()),
    };
    let found = places.iter().find(|path| is_program(Path::new(path)));
    found.map(|path| (*path).to_owned()).ok_or_else(|| {
        format!(
            "there is no init '{wanted}' in the image: no program at {}; without --init the agent is PID 1",
            places.join(", ")
        )
    })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Tells PID 1, at the other end of standard input, and waits until it has done so: its end of the stream closes
/// with the exec.
fn become_init(path: &str) -> Result<(), String> {
    let told = || -> std::io::Result<String> {
        let mut pid1 = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        pid1.write_all(path.as_bytes())?;
        pid1.shutdown(Shutdown::Write)?;
        let mut refusal = String::new();
        pid1.read_to_string(&mut refusal)?;
        Ok(refusal)
    };
    match told() {
        Ok(refusal) if refusal.is_empty() => Ok(()),
        Ok(refusal) => Err(refusal),
        Err(error) => Err(format!("PID 1 cannot be told to become {path}: {error}")),
    }
}
