//! Out of descriptors: what cannot be looked at is not taken for dead (R-HOST-4, R-HOST-8).
//!
//! The only test of its binary: the limit holds for the whole process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{ErrorKind, Processes};
use banger_model::{ProcessHandle, Role};
use common::{identity, label};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs::File, os::fd::AsRawFd, time::Duration};

#[test]
fn without_descriptors_nobody_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let identity = identity(dir.path(), label(Role::Vmm));
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let ourselves = ProcessHandle {
        pid: std::process::id(),
        start_time: fields.split_whitespace().nth(19).unwrap().parse().unwrap(),
    };
    // Room for one more: the pidfd gets it, and then /proc cannot be read.
    let next = File::open("/dev/null").unwrap().as_raw_fd();
    let before = getrlimit(Resource::Nofile);
    let tight = Rlimit {
        current: Some(u64::try_from(next).unwrap() + 1),
        ..before
    };
    setrlimit(Resource::Nofile, tight).unwrap();
    let waited = host.await_exit(&identity, ourselves, Duration::ZERO);
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(waited.unwrap_err().kind, ErrorKind::Other);
    let waited = host.await_exit(&identity, ourselves, Duration::ZERO);
    assert_eq!(waited.unwrap_err().kind, ErrorKind::TimedOut);
}
