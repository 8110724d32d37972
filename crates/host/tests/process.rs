//! Long-lived processes: birth, lock, proof against impostors, end (R-HOST-4, R-HOST-8, R-PROG-5).
//!
//! The VMM is played by this test binary itself in the role `helper` gives it, so that executable,
//! arguments and socket are real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{
    ErrorKind, ProcessIdentity, Processes, Proof, Signal, SpawnSpec, linux::LinuxHost,
};
use banger_model::{ProcessHandle, Role};
use common::{Ends, eventually, identity, label};
use rustix::fs::{FlockOperation, flock};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PLAY: &str = "BANGER_TEST_PLAY";
const WHERE: &str = "BANGER_TEST_WHERE";

/// Not a test: what a spawned copy of this binary does.
#[test]
fn helper() {
    let Ok(play) = std::env::var(PLAY) else {
        return;
    };
    let place = std::path::PathBuf::from(std::env::var_os(WHERE).unwrap_or_default());
    if play == "daemon" {
        // Starts a VMM as the label says, and dies at once like a daemon by kill -9.
        let label = std::env::var("BANGER_TEST_LABEL").unwrap().parse().unwrap();
        let spec = spec(identity(&place, label), &place, "sleep");
        common::host(&place).spawn(&spec).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
    let _listener = match play.as_str() {
        "listen" => Some(UnixListener::bind(&place).unwrap()),
        _ => None,
    };
    // An end of its own, should its test die.
    std::thread::sleep(Duration::from_secs(60));
}

fn spec(identity: ProcessIdentity, dir: &Path, play: &str) -> SpawnSpec {
    let socket = identity.control_socket.clone().unwrap_or_default();
    SpawnSpec {
        args: vec![
            "--exact".into(),
            "helper".into(),
            identity.label.to_string().into(),
        ],
        env: BTreeMap::from([
            (OsString::from(PLAY), OsString::from(play)),
            (WHERE.into(), socket.into()),
        ]),
        cwd: dir.to_owned(),
        log: identity.log.clone(),
        cgroup: None,
        identity,
    }
}

/// A spawned helper that is ended with the test.
fn start(host: &LinuxHost, dir: &Path, play: &str) -> (ProcessIdentity, ProcessHandle, Ends) {
    let identity = identity(dir, label(Role::Vmm));
    let handle = host.spawn(&spec(identity.clone(), dir, play)).unwrap();
    if play == "listen" {
        let socket = identity.control_socket.clone().unwrap();
        eventually("the helper listens", || {
            UnixStream::connect(&socket).is_ok()
        });
    }
    (identity, handle, Ends(handle.pid))
}

#[allow(
    clippy::disallowed_methods,
    reason = "impostors are not started through the host"
)]
fn foreign(program: &Path, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .env(PLAY, "sleep")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A child of the test, ended with it.
struct Impostor(Child);
impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn status(pid: u32, field: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn birth_takes_nothing_from_us() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    // Leaked into us by our own starter, as far as the child can tell.
    let leaked = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let (identity, handle, _ends) = start(&host, dir.path(), "sleep");
    let pid = handle.pid;
    let fds: BTreeMap<_, _> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| {
            (
                p.file_name().unwrap().to_owned(),
                fs::read_link(&p).unwrap_or_default(),
            )
        })
        .collect();
    let fd = |n: &str| fds.get(&OsString::from(n)).unwrap();
    assert_eq!(fd("0"), Path::new("/dev/null"));
    assert_eq!(fd("1"), &identity.log);
    assert_eq!(fd("2"), &identity.log);
    let theirs: Vec<_> = fds.values().filter(|to| to.ends_with("status")).collect();
    assert!(theirs.is_empty(), "{fds:?}");
    // Fields 5 and 6 of stat: process group and session.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ids: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!((ids[2], ids[3]), (&*pid.to_string(), &*pid.to_string()));
    assert_eq!(status(pid, "Umask"), "0077");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        dir.path()
    );
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(
        environ.split(|&b| b == 0).filter(|v| !v.is_empty()).count(),
        2
    );
}

#[test]
fn one_at_a_time_by_the_lock_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (identity, handle, _ends) = start(&host, dir.path(), "sleep");
    assert!(host.log_locked(&identity.log).unwrap());
    let again = spec(identity.clone(), dir.path(), "sleep");
    assert_eq!(host.spawn(&again).unwrap_err().kind, ErrorKind::Busy);
    fs::write(dir.path().join("other"), b"").unwrap();
    assert!(!host.log_locked(&dir.path().join("other")).unwrap());
    assert!(!host.log_locked(&dir.path().join("gone")).unwrap());
    host.signal(&identity, handle, Signal::Kill).unwrap();
    host.await_exit(&identity, handle, Duration::from_secs(5))
        .unwrap();
    assert!(
        !host.log_locked(&identity.log).unwrap(),
        "the lock ended with it"
    );
    let next = host.spawn(&again).unwrap();
    let _ends = Ends(next.pid);
    assert_eq!(host.prove(&identity).unwrap(), Proof::Alive(next));
}

#[test]
fn lookers_do_not_keep_a_vmm_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let log = dir.path().join("vmm.log");
    fs::write(&log, b"").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            // As another process looks, which our own exclusion does not hold back.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let file = fs::File::open(&log).unwrap();
                let _ = flock(&file, FlockOperation::NonBlockingLockShared);
            }
        });
        for _ in 0..20 {
            let identity = identity(dir.path(), label(Role::Vmm));
            let spawned = host.spawn(&spec(identity.clone(), dir.path(), "sleep"));
            if spawned.is_err() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            let handle = spawned.unwrap();
            let _ends = Ends(handle.pid);
            host.signal(&identity, handle, Signal::Kill).unwrap();
            host.await_exit(&identity, handle, Duration::from_secs(5))
                .unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// R-STATE-6: the control socket's peer before the recorded number.
#[test]
fn found_by_socket_by_hint_and_by_argument() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (identity, handle, _ends) = start(&host, dir.path(), "listen");
    let alive = Proof::Alive(handle);
    let by = |control_socket: bool, hint| ProcessIdentity {
        control_socket: identity.control_socket.clone().filter(|_| control_socket),
        hint,
        ..identity.clone()
    };
    assert_eq!(host.prove(&by(true, None)).unwrap(), alive, "socket");
    assert_eq!(host.prove(&by(false, Some(handle))).unwrap(), alive, "hint");
    assert_eq!(host.prove(&by(false, None)).unwrap(), alive, "argument");
    // A monitor with a full backlog answers EAGAIN: then the others are asked.
    let socket = identity.control_socket.clone().unwrap();
    let waiting: Vec<_> = (0..5)
        .filter_map(|_| UnixStream::connect(&socket).ok())
        .collect();
    assert_eq!(host.prove(&identity).unwrap(), alive);
    drop(waiting);
    // Another daemon, that is not its parent, sees the same.
    assert_eq!(common::host(dir.path()).prove(&identity).unwrap(), alive);
}

#[test]
fn no_impostor_is_ever_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let identity = identity(dir.path(), label(Role::Vmm));
    let text = identity.label.to_string();
    let socket = identity.control_socket.clone().unwrap();
    let exe = identity.program.to_str().unwrap().to_owned();
    // The log is locked by nobody provable, so that every process is looked at.
    let log = fs::File::create(&identity.log).unwrap();
    flock(&log, FlockOperation::LockExclusive).unwrap();
    // Someone else listens on the socket's path, and this test holds a connection to it.
    let _listener = UnixListener::bind(&socket).unwrap();
    let _client = UnixStream::connect(&socket).unwrap();
    let sh = fs::canonicalize("/bin/sh").unwrap();
    let part = format!("x{text}");
    let path = socket.to_str().unwrap();
    let wait = "read line; true"; // its standard input never says any
    let impostors = [
        // Right executable, the label only part of an argument.
        Impostor(foreign(Path::new(&exe), &["--exact", "helper", &part])),
        // Right executable and uid, another VM's label.
        Impostor(foreign(
            Path::new(&exe),
            &["--exact", "helper", &label(Role::Vmm).to_string()],
        )),
        // The exact label, another executable: grep, an editor.
        Impostor(foreign(&sh, &["-c", wait, &text])),
        // curl --unix-socket PATH.
        Impostor(foreign(&sh, &["-c", wait, "--unix-socket", path])),
    ];
    eventually("the impostors run", || {
        impostors.iter().all(|i| {
            let line = fs::read(format!("/proc/{}/cmdline", i.0.id())).unwrap_or_default();
            line.windows(8)
                .any(|w| w == b"--exact\0" || w == b"read lin")
        })
    });
    assert_eq!(host.prove(&identity).unwrap(), Proof::Absent);
    for impostor in &impostors {
        let pid = impostor.0.id();
        let handle = ProcessHandle {
            pid,
            start_time: start_time(pid),
        };
        let hinted = ProcessIdentity {
            hint: Some(handle),
            ..identity.clone()
        };
        assert_eq!(host.prove(&hinted).unwrap(), Proof::Absent);
        let error = host.signal(&hinted, handle, Signal::Kill).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
    let alive = impostors
        .into_iter()
        .all(|mut i| i.0.try_wait().unwrap().is_none());
    assert!(alive, "nobody was killed");
}

fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    rest.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// R-STATE-5, R-HOST-8: a number alone is nobody.
#[test]
fn a_recycled_pid_is_not_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (identity, handle, _ends) = start(&host, dir.path(), "sleep");
    let earlier = ProcessHandle {
        start_time: handle.start_time - 1,
        ..handle
    };
    let error = host.signal(&identity, earlier, Signal::Kill).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    // Whoever was meant is dead, whoever has the number now.
    host.await_exit(&identity, earlier, Duration::ZERO).unwrap();
    let other = ProcessIdentity {
        label: label(Role::Vmm),
        log: dir.path().join("other.log"),
        hint: Some(earlier),
        control_socket: None,
        ..identity.clone()
    };
    assert_eq!(host.prove(&other).unwrap(), Proof::Absent);
    assert_eq!(host.prove(&identity).unwrap(), Proof::Alive(handle));
}

#[test]
fn another_uid_is_not_it() {
    needs_root!("another_uid_is_not_it");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (identity, _, _ends) = start(&host, dir.path(), "listen");
    let theirs = ProcessIdentity {
        uid: 65534,
        ..identity
    };
    assert_eq!(host.prove(&theirs).unwrap(), Proof::Absent);
}

#[test]
fn a_zombie_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    // Our own child is reaped on the way.
    let (identity, handle, _ends) = start(&host, dir.path(), "sleep");
    host.signal(&identity, handle, Signal::Term).unwrap();
    host.await_exit(&identity, handle, Duration::from_secs(5))
        .unwrap();
    let hinted = ProcessIdentity {
        hint: Some(handle),
        ..identity
    };
    assert_eq!(host.prove(&hinted).unwrap(), Proof::Absent);
    assert!(
        !Path::new(&format!("/proc/{}", handle.pid)).exists(),
        "it was reaped"
    );
    // Somebody else's child stays, and is dead all the same.
    let mut child = foreign(Path::new("/bin/sh"), &["-c", "exit 0"]);
    let pid = child.id();
    let handle = ProcessHandle {
        pid,
        start_time: start_time(pid),
    };
    eventually("it is a zombie", || status(pid, "State").starts_with('Z'));
    let hinted = ProcessIdentity {
        hint: Some(handle),
        ..hinted
    };
    assert_eq!(host.prove(&hinted).unwrap(), Proof::Zombie(handle));
    host.await_exit(&hinted, handle, Duration::ZERO).unwrap();
    child.wait().unwrap();
    assert_eq!(host.prove(&hinted).unwrap(), Proof::Absent);
}

/// After the daemon was killed, its dead VMM stays a zombie where nobody reaps orphans (a container
/// without an init); `handles.json` may still name that one while the next is just being born.
#[test]
fn a_recorded_zombie_does_not_hide_the_one_that_lives() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let mut child = foreign(Path::new("/bin/sh"), &["-c", "exit 0"]);
    let pid = child.id();
    let dead = ProcessHandle {
        pid,
        start_time: start_time(pid),
    };
    eventually("it is a zombie", || status(pid, "State").starts_with('Z'));
    let (identity, alive, _ends) = start(&host, dir.path(), "sleep");
    let hinted = ProcessIdentity {
        hint: Some(dead),
        ..identity.clone()
    };
    assert_eq!(host.prove(&hinted).unwrap(), Proof::Alive(alive));
    // Somebody holds the lock who cannot be proven: not known to be dead, so not a zombie either.
    let stranger = ProcessIdentity {
        label: label(Role::Vmm),
        ..hinted
    };
    assert_eq!(host.prove(&stranger).unwrap(), Proof::Absent);
    child.wait().unwrap();
}

#[test]
fn a_number_that_is_a_threads_by_now_is_a_dead_process() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let identity = identity(dir.path(), label(Role::Vmm));
    let tid = std::thread::scope(|s| {
        let thread = s.spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            let handle = ProcessHandle {
                pid: u32::try_from(tid).unwrap(),
                start_time: 1,
            };
            host.await_exit(&identity, handle, Duration::ZERO).unwrap();
            let error = host.signal(&identity, handle, Signal::Kill).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFound);
            tid
        });
        thread.join().unwrap()
    });
    assert_ne!(u32::try_from(tid).unwrap(), std::process::id());
}

#[test]
fn waiting_for_the_end_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (identity, handle, _ends) = start(&host, dir.path(), "sleep");
    let error = host
        .await_exit(&identity, handle, Duration::from_millis(50))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[test]
fn an_upgraded_program_is_still_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let program = dir.path().join("vmm");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let identity = ProcessIdentity {
        program: program.clone(),
        ..identity(dir.path(), label(Role::Vmm))
    };
    let handle = host
        .spawn(&spec(identity.clone(), dir.path(), "sleep"))
        .unwrap();
    let _ends = Ends(handle.pid);
    fs::remove_file(&program).unwrap();
    assert_eq!(host.prove(&identity).unwrap(), Proof::Alive(handle));
    fs::write(&program, b"the new version").unwrap();
    assert_eq!(host.prove(&identity).unwrap(), Proof::Alive(handle));
}

#[test]
fn a_program_that_cannot_start_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let identity = ProcessIdentity {
        program: dir.path().join("absent"),
        ..identity(dir.path(), label(Role::Vmm))
    };
    let mut spec = spec(identity.clone(), dir.path(), "sleep");
    assert_eq!(host.spawn(&spec).unwrap_err().kind, ErrorKind::NotFound);
    // Children that other tests start may hold a copy of the log until their exec.
    eventually("the lock is free", || {
        !host.log_locked(&identity.log).unwrap()
    });
    // One that could never be proven is not started at all.
    spec.args.pop();
    let error = host.spawn(&spec).unwrap_err();
    assert!(
        error.source.to_string().contains("label"),
        "{}",
        error.source
    );
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the daemon of this test is not one of ours"
)]
fn a_vmm_outlives_the_daemon_and_the_next_one_finds_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let label = label(Role::Vmm);
    let died = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper"])
        .env(PLAY, "daemon")
        .env(WHERE, dir.path())
        .env("BANGER_TEST_LABEL", label.to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&died),
        Some(9)
    );
    let host = common::host(dir.path());
    let identity = identity(dir.path(), label);
    assert!(
        host.log_locked(&identity.log).unwrap(),
        "held by the VMM alone now"
    );
    let again = host.spawn(&spec(identity.clone(), dir.path(), "sleep"));
    assert_eq!(again.unwrap_err().kind, ErrorKind::Busy);
    let Proof::Alive(handle) = host.prove(&identity).unwrap() else {
        panic!("not found: {:?}", host.prove(&identity));
    };
    host.signal(&identity, handle, Signal::Kill).unwrap();
    host.await_exit(&identity, handle, Duration::from_secs(5))
        .unwrap();
    eventually("the lock ends with it", || {
        !host.log_locked(&identity.log).unwrap()
    });
    let hinted = ProcessIdentity {
        hint: Some(handle),
        ..identity
    };
    // Whoever adopted it reaps it, or not: it is dead.
    assert!(!matches!(host.prove(&hinted).unwrap(), Proof::Alive(_)));
}
