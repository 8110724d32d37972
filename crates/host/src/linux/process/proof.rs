//! Proof that a process is the one we mean (R-HOST-8).
//!
//! Where to look comes from three places, strongest first: who listens on the control socket, what
//! was recorded, every process there is. Wherever a pid comes from, two facts must hold: the uid, and the label as one
//! exact element of its arguments. Who does not listen must also run the executable: an editor or a grep can have the
//! label as an argument, but nobody else can listen in a directory of ours. So a configured program may be a script that
//! ends in `exec`.

use super::procfs;
use crate::{ProcessIdentity, Proof};
use banger_model::ProcessHandle;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Finds the process. `log_locked` says whether one is alive at all: without it /proc is not
/// searched.
pub(super) fn find(identity: &ProcessIdentity, log_locked: bool) -> Proof {
    let label = identity.label.to_string();
    let listener = identity.control_socket.as_deref().and_then(listener);
    if let Some(handle) = listener.and_then(|pid| labelled(pid, identity, &label)) {
        return Proof::Alive(handle);
    }
    if let Some(hint) = identity.hint {
        match procfs::stat(hint.pid) {
            Ok(Some(stat)) if stat.start_time != hint.start_time => {} // recycled
            // With the lock held it is another one that lives: a zombie holds no file.
            Ok(Some(stat)) if stat.is_dead() && log_locked => {}
            Ok(Some(stat)) if stat.is_dead() => return Proof::Zombie(hint),
            Ok(Some(_)) => {
                if let Some(handle) = running(hint.pid, identity, &label) {
                    return Proof::Alive(handle);
                }
            }
            Ok(None) | Err(_) => {}
        }
    }
    if !log_locked {
        return Proof::Absent;
    }
    // A child it forked shows the same facts until its exec: the eldest is the one.
    procfs::pids()
        .into_iter()
        .filter_map(|pid| running(pid, identity, &label))
        .min_by_key(|handle| (handle.start_time, handle.pid))
        .map_or(Proof::Absent, Proof::Alive)
}

/// The pid of whoever listens on a socket. A full backlog (the other end of a busy monitor) answers
/// EAGAIN, a dead one ECONNREFUSED: both say nothing here, and the caller looks elsewhere.
fn listener(path: &Path) -> Option<u32> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    let peer = sockopt::socket_peercred(&socket).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

/// The handle of this pid if it is the process now, wherever the pid comes from.
pub(super) fn verify(pid: u32, identity: &ProcessIdentity, label: &str) -> Option<ProcessHandle> {
    running(pid, identity, label).or_else(|| {
        let listener = identity.control_socket.as_deref().and_then(listener);
        (listener == Some(pid)).then(|| labelled(pid, identity, label))?
    })
}

/// The handle of this pid if executable, uid and label are right, and were for one and the same process.
fn running(pid: u32, identity: &ProcessIdentity, label: &str) -> Option<ProcessHandle> {
    let handle = labelled(pid, identity, label)?;
    let runs = runs(pid, &identity.program);
    (runs && labelled(pid, identity, label) == Some(handle)).then_some(handle)
}

/// The handle of this pid if uid and label are right, and were for one and the same process.
fn labelled(pid: u32, identity: &ProcessIdentity, label: &str) -> Option<ProcessHandle> {
    let before = procfs::stat(pid).ok()??;
    let proven = !before.is_dead()
        && procfs::has_argument(pid, label)
        && procfs::uids(pid) == Some((identity.uid, identity.uid));
    let after = procfs::stat(pid).ok()??;
    (proven && before.start_time == after.start_time).then_some(ProcessHandle {
        pid,
        start_time: before.start_time,
    })
}

/// Whether the process runs this program: the same file, or the file that had that path when it was
/// started (packages are upgraded under running VMs).
fn runs(pid: u32, program: &Path) -> bool {
    let exe = procfs::exe(pid);
    if let (Ok(running), Ok(file)) = (fs::metadata(&exe), fs::metadata(program))
        && (running.dev(), running.ino()) == (file.dev(), file.ino())
    {
        return true;
    }
    let Ok(running) = fs::read_link(&exe) else {
        return false;
    };
    let running = running.to_string_lossy();
    let running = running.strip_suffix(" (deleted)").unwrap_or(&running);
    // The directory may be reached through links though the file itself is gone.
    let real = match (program.parent().map(fs::canonicalize), program.file_name()) {
        (Some(Ok(dir)), Some(name)) => dir.join(name),
        _ => program.to_owned(),
    };
    [
        program,
        &real,
        &fs::canonicalize(program).unwrap_or_default(),
    ]
    .iter()
    .any(|path| path.as_os_str() == running)
}
