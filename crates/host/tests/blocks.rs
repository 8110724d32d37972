//! Loop devices, and device-mapper where the kernel has it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{Blocks, DmState, DmTable, ErrorKind, LoopSeen, linux::LinuxHost};
use banger_model::{DmName, Label, Role};
use common::{eventually, label};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PLAY: &str = "BANGER_TEST_PLAY";

/// Not a test: a daemon that attaches `$BANGER_TEST_PLAY` with the label of the next variable, says
/// the number, and waits to be killed.
#[test]
fn helper() {
    let Some(file) = std::env::var_os(PLAY) else {
        return;
    };
    let label: Label = std::env::var("BANGER_TEST_LABEL").unwrap().parse().unwrap();
    let host = common::host(Path::new("/"));
    let number = host.loop_attach(Path::new(&file), false, &label).unwrap();
    println!("\nattached {number}");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

fn backing(dir: &Path, name: &str, mib: u64) -> PathBuf {
    let path = dir.join(name);
    fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path
}

fn labelled(host: &LinuxHost, label: &Label) -> Vec<LoopSeen> {
    let text = label.to_string();
    let all = host.loops().unwrap();
    all.into_iter().filter(|l| l.label == text).collect()
}

/// R-HOST-3: whoever is told "busy" is told by whom.
#[test]
fn a_busy_device_names_its_holder() {
    needs_root!("a_busy_device_names_its_holder");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let label = label(Role::BaseLoop);
    let number = host
        .loop_attach(&backing(dir.path(), "base", 4), true, &label)
        .unwrap();
    let held = fs::File::open(format!("/dev/loop{number}")).unwrap();
    let error = host.loop_detach(number, &label).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    let ourselves = format!("process {} (", std::process::id());
    assert!(
        error.source.to_string().contains(&ourselves),
        "{}",
        error.source
    );
    drop(held);
    eventually("it clears itself", || labelled(&host, &label).is_empty());
}

#[test]
fn attached_labelled_and_cleared_when_let_go() {
    needs_root!("attached_labelled_and_cleared_when_let_go");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let file = backing(dir.path(), "base", 4);
    let (ro, rw) = (label(Role::BaseLoop), label(Role::CowLoop));
    let base = host.loop_attach(&file, true, &ro).unwrap();
    let cow = host.loop_attach(&file, false, &rw).unwrap();
    assert_ne!(base, cow);
    let seen = labelled(&host, &ro);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].number, seen[0].backing.as_deref()),
        (base, Some(&*file))
    );
    let attribute = |n: u32, name: &str| {
        fs::read_to_string(format!("/sys/block/loop{n}/{name}"))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(
        (attribute(base, "ro"), attribute(cow, "ro")),
        ("1".into(), "0".into())
    );
    assert_eq!(attribute(cow, "loop/autoclear"), "1");
    let device = fs::OpenOptions::new()
        .write(true)
        .open(format!("/dev/loop{cow}"))
        .unwrap();
    device.write_all_at(b"through the loop", 4096).unwrap();
    device.sync_all().unwrap();
    drop(device);
    let mut read = [0; 16];
    fs::File::open(&file)
        .unwrap()
        .read_exact_at(&mut read, 4096)
        .unwrap();
    assert_eq!(&read, b"through the loop");
    // Looking does not clear them; letting go does.
    host.loops().unwrap();
    assert_eq!(labelled(&host, &rw).len(), 1);
    drop(host);
    let later = common::host(dir.path());
    eventually("both clear themselves", || {
        labelled(&later, &ro).is_empty() && labelled(&later, &rw).is_empty()
    });
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the daemon of this test is not one of ours"
)]
fn a_killed_daemon_leaves_no_loop() {
    needs_root!("a_killed_daemon_leaves_no_loop");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let file = backing(dir.path(), "base", 1);
    let label = label(Role::CowLoop);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--nocapture"])
        .env(PLAY, &file)
        .env("BANGER_TEST_LABEL", label.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .find(|l| l.starts_with("attached"));
    let seen = labelled(&host, &label);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said, seen.first().map(|l| format!("attached {}", l.number)));
    eventually("the kernel detaches it", || {
        labelled(&host, &label).is_empty()
    });
}

#[test]
fn only_ours_is_detached() {
    needs_root!("only_ours_is_detached");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let file = backing(dir.path(), "base", 1);
    let mine = label(Role::BaseLoop);
    let number = host.loop_attach(&file, true, &mine).unwrap();
    let other = label(Role::BaseLoop);
    assert_eq!(
        host.loop_detach(number, &other).unwrap_err().kind,
        ErrorKind::Foreign
    );
    assert_eq!(labelled(&host, &mine).len(), 1);
    // An opener keeps it from going; with the opener it goes.
    let opener = fs::File::open(format!("/dev/loop{number}")).unwrap();
    assert_eq!(
        host.loop_detach(number, &mine).unwrap_err().kind,
        ErrorKind::Busy
    );
    drop(opener);
    eventually("it goes with its last opener", || {
        labelled(&host, &mine).is_empty()
    });
    let error = host.loop_detach(number, &mine).unwrap_err();
    // Somebody may have been given the number since.
    assert!(
        matches!(error.kind, ErrorKind::NotFound | ErrorKind::Foreign),
        "{error}"
    );
    let error = host
        .loop_attach(&dir.path().join("gone"), true, &mine)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn a_race_for_numbers_is_won_by_all() {
    needs_root!("a_race_for_numbers_is_won_by_all");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let file = backing(dir.path(), "base", 1);
    let labels: Vec<_> = (0..16).map(|_| label(Role::BaseLoop)).collect();
    let mut numbers: Vec<u32> = std::thread::scope(|s| {
        let racers: Vec<_> = labels
            .iter()
            .map(|label| s.spawn(|| host.loop_attach(&file, true, label).unwrap()))
            .collect();
        racers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    for (label, number) in labels.iter().zip(&numbers) {
        // Busy while a udev looks at it: then it goes when that is done.
        let answer = host.loop_detach(*number, label).map_err(|e| e.kind);
        assert!(
            matches!(answer, Ok(()) | Err(ErrorKind::Busy)),
            "{answer:?}"
        );
        eventually("it is detached", || labelled(&host, label).is_empty());
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), labels.len());
}

/// Whether this kernel has device-mapper.
fn has_dm() -> bool {
    fs::read_to_string("/proc/misc").is_ok_and(|text| text.contains("device-mapper"))
}

#[test]
fn without_device_mapper_there_is_none() {
    if has_dm() {
        common::skip("without_device_mapper_there_is_none: this kernel has it");
        return;
    }
    let host = common::host(Path::new("/"));
    let label = label(Role::DmSnapshot);
    let name = DmName::of_vm(label.instance, label.vm_id().unwrap());
    assert!(host.dms().unwrap().is_empty());
    let kind = |answer: Result<(), banger_host::Error>| answer.unwrap_err().kind;
    assert_eq!(kind(host.dm_create(&name, &label)), ErrorKind::NoDevice);
    assert_eq!(kind(host.dm_resume(&name, &label)), ErrorKind::NotFound);
    assert_eq!(kind(host.dm_remove(&name, &label)), ErrorKind::NotFound);
}

/// Removes the snapshot when the test is over, whatever happened.
struct Removes<'a>(&'a LinuxHost, DmName, Label);
impl Drop for Removes<'_> {
    fn drop(&mut self) {
        let _ = self.0.dm_remove(&self.1, &self.2);
    }
}

#[test]
fn a_snapshot_lives_from_create_to_remove_and_takes_its_loops_along() {
    needs_root!("a_snapshot_lives_from_create_to_remove_and_takes_its_loops_along");
    if !has_dm() {
        common::skip("a_snapshot_lives_from_create_to_remove…: no device-mapper in this kernel");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (base, cow) = (
        backing(dir.path(), "base", 8),
        backing(dir.path(), "cow", 8),
    );
    fs::OpenOptions::new()
        .write(true)
        .open(&base)
        .unwrap()
        .write_all_at(b"base", 0)
        .unwrap();
    let mine = label(Role::DmSnapshot);
    let role = |role| Label { role, ..mine };
    let name = DmName::of_vm(mine.instance, mine.vm_id().unwrap());
    let table = DmTable::Snapshot {
        sectors: (8 << 20) / 512,
        base_loop: host
            .loop_attach(&base, true, &role(Role::BaseLoop))
            .unwrap(),
        cow_loop: host.loop_attach(&cow, false, &role(Role::CowLoop)).unwrap(),
        chunk: 8,
    };
    let DmTable::Snapshot { cow_loop, .. } = table;
    let state = || {
        let all = host.dms().unwrap();
        all.into_iter()
            .find(|d| d.uuid == mine.to_string())
            .map(|d| d.state)
    };
    host.dm_create(&name, &mine).unwrap();
    let _removes = Removes(&host, name.clone(), mine);
    assert_eq!(state(), Some(DmState::Created));
    assert_eq!(
        host.dm_create(&name, &mine).unwrap_err().kind,
        ErrorKind::Exists
    );
    assert_eq!(
        host.dm_resume(&name, &mine).unwrap_err().kind,
        ErrorKind::Other
    );
    let other = label(Role::DmSnapshot);
    assert_eq!(
        host.dm_load(&name, &other, &table).unwrap_err().kind,
        ErrorKind::Foreign
    );
    host.dm_load(&name, &mine, &table).unwrap();
    assert_eq!(state(), Some(DmState::Loaded));
    // The table holds the loops now, and this host object does not.
    let role_label = role(Role::CowLoop);
    assert_eq!(
        host.loop_detach(cow_loop, &role_label).unwrap_err().kind,
        ErrorKind::Busy
    );
    host.dm_resume(&name, &mine).unwrap();
    assert_eq!(state(), Some(DmState::Live));
    let node = Path::new("/dev/mapper").join(name.as_str());
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&node)
        .unwrap();
    let mut read = [0; 4];
    device.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"base");
    device.write_all_at(b"mine", 0).unwrap();
    device.sync_all().unwrap();
    assert_eq!(
        host.dm_remove(&name, &mine).unwrap_err().kind,
        ErrorKind::Busy
    );
    assert!(node.exists(), "a device that stays keeps its node");
    assert_eq!(
        host.dm_remove(&name, &other).unwrap_err().kind,
        ErrorKind::Foreign
    );
    drop(device);
    // udev may still be looking.
    eventually("the device goes", || host.dm_remove(&name, &mine).is_ok());
    assert_eq!(state(), None);
    assert!(!node.exists() && fs::symlink_metadata(&node).is_err());
    eventually("its loops clear themselves", || {
        labelled(&host, &role(Role::BaseLoop)).is_empty()
            && labelled(&host, &role(Role::CowLoop)).is_empty()
    });
    assert_eq!(
        &fs::read(&base).unwrap()[..4],
        b"base",
        "writes went to the other file"
    );
    assert_eq!(
        host.dm_remove(&name, &mine).unwrap_err().kind,
        ErrorKind::NotFound
    );
}
