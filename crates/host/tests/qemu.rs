//! Proof against a real QEMU (R-HOST-8): its spare monitor names it, free or taken.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{ErrorKind, ProcessIdentity, Processes, Proof, Signal, SpawnSpec};
use banger_model::Role;
use common::{Ends, eventually, label};
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// QEMU from PATH, or where scripts/install-qemu unpacks it.
fn qemu() -> Option<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/share")));
    let private = data.map(|dir| dir.join("banger/tools/qemu/usr/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    private
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("qemu-system-x86_64"))
        .find(|program| program.is_file())
}

fn spec(identity: &ProcessIdentity, dir: &Path) -> SpawnSpec {
    let socket = identity.control_socket.as_ref().unwrap();
    let args = format!(
        "-M none -nodefaults -display none -S -name {}",
        identity.label
    );
    let mut args: Vec<_> = args.split(' ').map(Into::into).collect();
    args.push("-qmp".into());
    args.push(format!("unix:{},server=on,wait=off", socket.display()).into());
    SpawnSpec {
        identity: identity.clone(),
        args,
        env: BTreeMap::new(),
        cwd: dir.to_owned(),
        log: identity.log.clone(),
        cgroup: None,
    }
}

#[test]
fn a_real_vmm_is_proven_and_ended() {
    let Some(program) = qemu() else {
        common::skip("a_real_vmm_is_proven_and_ended: no qemu-system-x86_64");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let identity = ProcessIdentity {
        program,
        ..common::identity(dir.path(), label(Role::Vmm))
    };
    let handle = host.spawn(&spec(&identity, dir.path())).unwrap();
    let _ends = Ends(handle.pid);
    let socket = identity.control_socket.clone().unwrap();
    let log = || fs::read_to_string(&identity.log).unwrap_or_default();
    eventually("QEMU listens", || {
        assert!(
            host.log_locked(&identity.log).unwrap(),
            "QEMU ended: {}",
            log()
        );
        socket.exists()
    });
    let alive = Proof::Alive(handle);
    // Only the socket can tell here: no hint, and /proc is not searched without a held lock.
    let by_socket = ProcessIdentity {
        log: dir.path().join("no.log"),
        ..identity.clone()
    };
    eventually("the socket names it", || {
        host.prove(&by_socket).unwrap() == alive
    });
    for _ in 0..20 {
        // Each look connects and hangs up; QEMU takes the next.
        assert_eq!(host.prove(&identity).unwrap(), alive);
    }
    // One client is served, the backlog fills: connecting says EAGAIN at once. QEMU may take its
    // client only after the first filling, so it is filled until it stays full.
    let mut clients = Vec::new();
    eventually("the backlog stays full", || {
        clients.extend(
            std::iter::repeat_with(|| connect(&socket))
                .take(16)
                .map_while(Result::ok),
        );
        host.prove(&by_socket).unwrap() == Proof::Absent
    });
    assert_eq!(
        host.prove(&identity).unwrap(),
        alive,
        "found by its argument"
    );
    drop(clients);
    let again = host.spawn(&spec(&identity, dir.path())).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Busy);
    host.signal(&identity, handle, Signal::Term).unwrap();
    host.await_exit(&identity, handle, Duration::from_secs(10))
        .unwrap();
    assert_eq!(host.prove(&identity).unwrap(), Proof::Absent);
    let error = host.signal(&identity, handle, Signal::Kill).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

/// A connect that does not wait for room in the backlog.
fn connect(path: &Path) -> rustix::io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
