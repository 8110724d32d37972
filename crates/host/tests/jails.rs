//! Jail directories, and cgroups where there is cgroup v2.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{
    ErrorKind, Jails, Processes, SpawnSpec,
    linux::{LinuxConfig, LinuxHost},
};
use banger_model::Role;
use common::label;
use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

#[test]
fn jails_are_found_by_name_and_removed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    assert!(host.jails().unwrap().is_empty());
    let (one, two) = (label(Role::Jail), label(Role::Jail));
    fs::create_dir(dir.path().join("jails")).unwrap();
    fs::create_dir(dir.path().join("jails/somebody.elses")).unwrap();
    host.jail_create(&one).unwrap();
    host.jail_create(&two).unwrap();
    assert_eq!(host.jail_create(&one).unwrap_err().kind, ErrorKind::Exists);
    let mut all = [one, two];
    all.sort_unstable();
    assert_eq!(host.jails().unwrap(), all);
    let jail = dir
        .path()
        .join("jails")
        .join(one.to_string().replace('/', "."));
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), b"").unwrap();
    fs::create_dir_all(jail.join("root/dev")).unwrap();
    fs::write(jail.join("root/vmlinux"), b"").unwrap();
    symlink(&outside, jail.join("root/link")).unwrap();
    host.jail_remove(&one).unwrap();
    assert!(outside.join("kept").exists(), "symlinks are not followed");
    assert_eq!(host.jails().unwrap(), [two]);
    assert_eq!(
        host.jail_remove(&one).unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert!(dir.path().join("jails/somebody.elses").exists());
}

/// Nothing of a user's is removed through a mount in a jail (R-STATE-10).
#[test]
fn a_jail_with_a_mount_in_it_is_left_whole() {
    needs_root!("a_jail_with_a_mount_in_it_is_left_whole");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let label = label(Role::Jail);
    let disks = dir.path().join("disks");
    fs::create_dir(dir.path().join("jails")).unwrap();
    fs::create_dir(&disks).unwrap();
    fs::write(disks.join("work.ext4"), b"precious").unwrap();
    host.jail_create(&label).unwrap();
    let name = label.to_string().replace('/', ".");
    let jail = dir.path().join("jails").join(name);
    let inside = jail.join("a b");
    fs::create_dir(&inside).unwrap();
    common::in_namespace(|| {
        rustix::mount::mount_bind(&disks, &inside).unwrap();
        let error = host.jail_remove(&label).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.source.to_string().contains("a b"), "{}", error.source);
    });
    assert!(disks.join("work.ext4").exists(), "what is mounted is kept");
    host.jail_remove(&label).unwrap();
    assert!(!jail.exists());
}

#[test]
fn without_cgroup_v2_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let host = LinuxHost::new(LinuxConfig {
        jail_root: dir.path().join("jails"),
        cgroup_root: dir.path().to_owned(),
    });
    let label = label(Role::Cgroup);
    assert_eq!(
        host.cgroup_create(&label).unwrap_err().kind,
        ErrorKind::NoDevice
    );
    assert!(host.cgroups().unwrap().is_empty());
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn a_cgroup_holds_its_process_and_is_busy_with_it() {
    needs_root!("a_cgroup_holds_its_process_and_is_busy_with_it");
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let Some(root) = roots
        .iter()
        .find(|r| Path::new(r).join("cgroup.procs").exists())
    else {
        common::skip("a_cgroup_holds_its_process_and_is_busy_with_it: no cgroup v2");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let host = LinuxHost::new(LinuxConfig {
        jail_root: dir.path().join("jails"),
        cgroup_root: root.into(),
    });
    let cgroup = label(Role::Cgroup);
    host.cgroup_create(&cgroup).unwrap();
    assert_eq!(
        host.cgroup_create(&cgroup).unwrap_err().kind,
        ErrorKind::Exists
    );
    assert!(host.cgroups().unwrap().contains(&cgroup));
    let mut identity = common::identity(dir.path(), label(Role::Vmm));
    identity.program = fs::canonicalize("/bin/sh").unwrap();
    let spec = SpawnSpec {
        args: vec![
            "-c".into(),
            "read line < /proc/self/cgroup; sleep 60; true".into(),
            identity.label.to_string().into(),
        ],
        env: BTreeMap::new(),
        cwd: "/".into(),
        log: identity.log.clone(),
        cgroup: Some(cgroup),
        identity: identity.clone(),
    };
    let handle = host.spawn(&spec).unwrap();
    let ends = common::Ends(handle.pid);
    let procs = Path::new(root)
        .join(cgroup.to_string().replace('/', "."))
        .join("cgroup.procs");
    let members = fs::read_to_string(&procs).unwrap();
    let busy = host.cgroup_remove(&cgroup).map_err(|e| e.kind);
    for pid in members.lines() {
        let pid: i32 = pid.parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    drop(ends);
    common::eventually("the cgroup empties", || {
        // What the shell had started may have come after the listing.
        for pid in fs::read_to_string(&procs).unwrap_or_default().lines() {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        host.cgroup_remove(&cgroup).is_ok()
    });
    assert!(
        members.lines().any(|pid| pid == handle.pid.to_string()),
        "{members}"
    );
    assert_eq!(busy, Err(ErrorKind::Busy));
    assert_eq!(
        host.cgroup_remove(&cgroup).unwrap_err().kind,
        ErrorKind::NotFound
    );
}
