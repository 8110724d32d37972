//! The simulation is strict: one test for every refusal, prefix and loss it is trusted with.

use super::*;
use crate::{
    Blocks, Clock, DiskRecipe, DmState, DmTable, ErrorKind, Files, Firewall, Jails, Links,
    ProcessIdentity, Processes, Proof, Signal, SpawnSpec,
};
use banger_model::{ByteSize, DmName, Instance, Label, Owner, ProcessHandle, Role, TapName, VmId};
use std::{collections::BTreeMap, fmt::Debug, path::Path, time::Duration};

pub(super) const OURS: Instance = Instance::from_bytes([1; 4]);
pub(super) const THEIRS: Instance = Instance::from_bytes([2; 4]);
const VM: VmId = VmId::from_bytes([7; 6]);

pub(super) fn label(role: Role) -> Label {
    Label::vm(OURS, VM, role)
}

fn foreign(role: Role) -> Label {
    Label::vm(THEIRS, VM, role)
}

pub(super) fn world() -> World {
    let mut world = World::new(Nature::default());
    world.given_dir(Path::new("/s/vms"));
    world.given_dir(Path::new("/run/b"));
    world.given_disk(Path::new("/s/base.ext4"), 4096);
    world
}

pub(super) fn host() -> SimHost {
    SimHost::new(world())
}

#[track_caller]
pub(super) fn refused<T: Debug>(answer: Result<T, crate::Error>, kind: ErrorKind) {
    match answer {
        Err(error) => assert_eq!(error.kind, kind, "{error}: {}", error.source),
        Ok(value) => panic!("expected {kind:?}, got {value:?}"),
    }
}

pub(super) fn p(path: &str) -> &Path {
    Path::new(path)
}

pub(super) fn identity(program: &str) -> ProcessIdentity {
    ProcessIdentity {
        label: label(Role::Vmm),
        program: program.into(),
        uid: 0,
        control_socket: Some("/run/b/qmp".into()),
        log: "/s/vmm.log".into(),
        hint: None,
    }
}

pub(super) fn spawn_spec() -> SpawnSpec {
    SpawnSpec {
        identity: identity("/usr/bin/vmm"),
        args: vec![label(Role::Vmm).to_string().into(), "disk=/s/vms/d".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        log: "/s/vmm.log".into(),
        cgroup: None,
    }
}

pub(super) fn with_disk(host: &SimHost) {
    let recipe = DiskRecipe::Sparse {
        size: ByteSize::mib(1),
    };
    host.make_disk(p("/s/vms/d"), &recipe).unwrap();
    host.sync_file(p("/s/vms/d")).unwrap();
    host.sync_dir(p("/s/vms")).unwrap();
}

fn dm(host: &SimHost) -> (DmName, u32, u32) {
    with_disk(host);
    let name = DmName::of_vm(OURS, VM);
    let base = host
        .loop_attach(p("/s/base.ext4"), true, &label(Role::BaseLoop))
        .unwrap();
    let cow = host
        .loop_attach(p("/s/vms/d"), false, &label(Role::CowLoop))
        .unwrap();
    host.dm_create(&name, &label(Role::DmSnapshot)).unwrap();
    (name, base, cow)
}

fn table(base_loop: u32, cow_loop: u32) -> DmTable {
    DmTable::Snapshot {
        sectors: 8,
        base_loop,
        cow_loop,
        chunk: 8,
    }
}

#[test]
fn files_refuse_what_the_kernel_refuses() {
    let host = host();
    refused(host.mkdir(p("/s/vms")), ErrorKind::Exists);
    refused(host.mkdir(p("/s/none/x")), ErrorKind::NotFound);
    refused(host.write(p("/s/none/x"), b""), ErrorKind::NotFound);
    refused(host.unlink(p("/s/x")), ErrorKind::NotFound);
    refused(host.unlink(p("/s/vms")), ErrorKind::Other);
    refused(host.rename(p("/s/x"), p("/s/y")), ErrorKind::NotFound);
    refused(host.sync_file(p("/s/x")), ErrorKind::NotFound);
    refused(host.sync_dir(p("/s/x")), ErrorKind::NotFound);
    refused(host.rmdir(p("/s")), ErrorKind::Exists);
    refused(host.rmdir(p("/s/base.ext4")), ErrorKind::Other);
    host.mkdir(p("/s/a")).unwrap();
    refused(
        host.rename(p("/s/a"), p("/s/vms/../x")),
        ErrorKind::NotFound,
    );
    host.write(p("/s/vms/f"), b"x").unwrap();
    refused(host.rename(p("/s/a"), p("/s/vms")), ErrorKind::Exists);
    let copy = DiskRecipe::CopyOf {
        template: "/s/none".into(),
    };
    refused(host.make_disk(p("/s/d"), &copy), ErrorKind::NotFound);
    assert_eq!(host.list(p("/s/none")).unwrap(), Vec::<String>::new());
}

#[test]
fn a_full_disk_takes_nothing_and_gives_up_everything() {
    let mut world = world();
    world.full = true;
    let host = SimHost::new(world);
    refused(host.write(p("/s/f"), b"x"), ErrorKind::NoSpace);
    refused(host.mkdir(p("/s/f")), ErrorKind::NoSpace);
    let sparse = DiskRecipe::Sparse {
        size: ByteSize::mib(1),
    };
    refused(host.make_disk(p("/s/d"), &sparse), ErrorKind::NoSpace);
    assert!(
        !host
            .snapshot()
            .fs
            .content(p("/s/d"))
            .unwrap()
            .as_disk()
            .unwrap()
            .whole
    );
    host.unlink(p("/s/base.ext4")).unwrap();
    let answer = host.transaction(OURS, "row", |_| Ok::<_, ()>(()));
    refused(answer, ErrorKind::NoSpace);
}

#[test]
fn a_reboot_takes_what_was_not_synced() {
    let host = host();
    host.write(p("/s/synced"), b"abcd").unwrap();
    host.sync_file(p("/s/synced")).unwrap();
    host.sync_dir(p("/s")).unwrap();
    host.write(p("/s/synced"), b"efgh").unwrap();
    host.write(p("/s/unsynced"), b"ijkl").unwrap();
    host.rename(p("/s/unsynced"), p("/s/renamed")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let world = host.snapshot();
    for survival in world.fs.survivals(100) {
        let mut world = world.clone();
        world.reboot(&survival);
        assert!(world.fs.all_durable());
        let text = |path: &str| {
            world.fs.content(p(path)).map(|c| match c {
                Content::Bytes(b) => String::from_utf8(b.to_vec()).unwrap(),
                Content::Disk(_) => unreachable!(),
            })
        };
        assert!(world.fs.lookup(p("/s/unsynced")).is_none() || text("/s/renamed").is_none());
        seen.insert((text("/s/synced"), text("/s/unsynced"), text("/s/renamed")));
    }
    let some = |s: &str| Some(s.to_owned());
    for expected in [
        (some("abcd"), None, None),
        (some("efgh"), None, some("ijkl")),
        (some("abcd"), None, some("ijkl")),
        (some("efgh"), None, some("")),
        (some("efgh"), None, some("ij")),
        (some("ef"), None, some("ijkl")),
        (some("efgh"), some("ijkl"), None),
        (some("efgh"), None, None),
    ] {
        assert!(seen.contains(&expected), "{expected:?} not in {seen:?}");
    }
}

#[test]
fn an_exchange_is_done_or_not_done() {
    let host = host();
    for (path, text) in [("/s/one", "1"), ("/s/other", "2")] {
        host.write(p(path), text.as_bytes()).unwrap();
        host.sync_file(p(path)).unwrap();
    }
    host.sync_dir(p("/s")).unwrap();
    host.exchange(p("/s/one"), p("/s/other")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for survival in host.snapshot().fs.survivals(100) {
        let mut world = host.snapshot();
        world.reboot(&survival);
        let after = SimHost::new(world);
        seen.insert(["/s/one", "/s/other"].map(|path| after.read(p(path)).unwrap().unwrap()));
    }
    let (one, other) = (b"1".to_vec(), b"2".to_vec());
    let both = [[one.clone(), other.clone()], [other, one]];
    assert_eq!(seen, both.into());
    refused(host.exchange(p("/s/one"), p("/s/x")), ErrorKind::NotFound);
    refused(host.exchange(p("/s/one"), p("/s/vms/x")), ErrorKind::Other);
}

#[test]
fn a_rename_between_directories_is_one_transaction() {
    let host = host();
    host.mkdir(p("/s/a")).unwrap();
    host.sync_dir(p("/s")).unwrap();
    host.write(p("/s/a/f"), b"x").unwrap();
    host.sync_file(p("/s/a/f")).unwrap();
    host.sync_dir(p("/s/a")).unwrap();
    host.rename(p("/s/a/f"), p("/s/vms/f")).unwrap();
    for survival in host.snapshot().fs.survivals(100) {
        let mut world = host.snapshot();
        world.reboot(&survival);
        let there = [p("/s/a/f"), p("/s/vms/f")].map(|f| world.fs.lookup(f).is_some());
        assert_ne!(there[0], there[1], "{survival:?}");
    }
}

#[test]
fn a_reboot_empties_the_kernel_and_the_runtime_directory() {
    let host = host();
    with_disk(&host);
    host.spawn(&spawn_spec()).unwrap();
    host.tap_create(&TapName::of_vm(VM), &label(Role::Tap), 0)
        .unwrap();
    let table = "banger1_01010101";
    let text = format!("table ip {table} {{\n}}\n");
    host.ruleset_swap(table, &text).unwrap();
    host.cgroup_create(&label(Role::Cgroup)).unwrap();
    host.loop_attach(p("/s/base.ext4"), true, &label(Role::BaseLoop))
        .unwrap();
    let boot = host.boot_id().unwrap();
    let mut world = host.snapshot();
    world.reboot(&Survival::default());
    let host = SimHost::new(world);
    assert_ne!(host.boot_id().unwrap(), boot);
    assert!(host.links().unwrap().is_empty() && host.loops().unwrap().is_empty());
    assert!(host.cgroups().unwrap().is_empty() && host.ruleset(table).unwrap().is_none());
    assert!(host.stat(p("/run/b")).unwrap().is_none());
    assert_eq!(
        host.prove(&identity("/usr/bin/vmm")).unwrap(),
        Proof::Absent
    );
    assert!(!host.log_locked(p("/s/vmm.log")).unwrap());
}

#[test]
fn devices_refuse_what_the_kernel_refuses() {
    let host = host();
    let (name, base, cow) = dm(&host);
    let snapshot = label(Role::DmSnapshot);
    refused(
        host.loop_attach(p("/s/no"), true, &label(Role::CowLoop)),
        ErrorKind::NotFound,
    );
    refused(host.dm_create(&name, &snapshot), ErrorKind::Exists);
    refused(host.dm_resume(&name, &snapshot), ErrorKind::Other);
    refused(
        host.dm_load(&name, &snapshot, &table(base, 63)),
        ErrorKind::NoDevice,
    );
    refused(
        host.dm_load(&name, &snapshot, &table(cow, base)),
        ErrorKind::Other,
    );
    refused(
        host.dm_load(&name, &foreign(Role::DmSnapshot), &table(base, cow)),
        ErrorKind::Foreign,
    );
    host.dm_load(&name, &snapshot, &table(base, cow)).unwrap();
    refused(
        host.loop_detach(cow, &label(Role::CowLoop)),
        ErrorKind::Busy,
    );
    refused(
        host.loop_detach(cow, &foreign(Role::CowLoop)),
        ErrorKind::Foreign,
    );
    refused(
        host.loop_detach(63, &label(Role::CowLoop)),
        ErrorKind::NotFound,
    );
    host.dm_resume(&name, &snapshot).unwrap();
    assert_eq!(host.dms().unwrap()[0].state, DmState::Live);
    refused(
        host.dm_load(&name, &snapshot, &table(base, cow)),
        ErrorKind::Busy,
    );
    refused(
        host.dm_remove(&name, &foreign(Role::DmSnapshot)),
        ErrorKind::Foreign,
    );
    let mut spec = spawn_spec();
    spec.args[1] = format!("/dev/mapper/{name}").into();
    let vmm = host.spawn(&spec).unwrap();
    refused(host.dm_remove(&name, &snapshot), ErrorKind::Busy);
    host.signal(&spec.identity, vmm, Signal::Kill).unwrap();
    // Killed is not yet dead.
    refused(host.dm_remove(&name, &snapshot), ErrorKind::Busy);
    host.await_exit(&spec.identity, vmm, Duration::from_secs(1))
        .unwrap();
    host.dm_remove(&name, &snapshot).unwrap();
    assert!(host.loops().unwrap().is_empty(), "loops clear themselves");
    refused(host.dm_remove(&name, &snapshot), ErrorKind::NotFound);
}

#[test]
fn loop_devices_run_out_and_a_kernel_may_lack_device_mapper() {
    let mut world = world();
    world.nature = std::rc::Rc::new(Nature {
        max_loops: 1,
        has_dm: false,
        ..Nature::default()
    });
    let host = SimHost::new(world);
    host.loop_attach(p("/s/base.ext4"), true, &label(Role::BaseLoop))
        .unwrap();
    let second = host.loop_attach(p("/s/base.ext4"), true, &label(Role::BaseLoop));
    refused(second, ErrorKind::NoDevice);
    let name = DmName::of_vm(OURS, VM);
    refused(
        host.dm_create(&name, &label(Role::DmSnapshot)),
        ErrorKind::NoDevice,
    );
}

#[test]
fn loops_clear_themselves_with_the_daemon_unless_a_table_holds_them() {
    for loaded in [false, true] {
        let host = host();
        let (name, base, cow) = dm(&host);
        if loaded {
            host.dm_load(&name, &label(Role::DmSnapshot), &table(base, cow))
                .unwrap();
        }
        host.kill();
        assert_eq!(
            host.snapshot().kernel.loops.len(),
            if loaded { 2 } else { 0 }
        );
        let next = SimHost::on(host.world());
        assert_eq!(next.dms().unwrap().len(), 1);
        next.dm_remove(&name, &label(Role::DmSnapshot)).unwrap();
        assert!(next.loops().unwrap().is_empty());
    }
}

#[test]
fn links_refuse_what_the_kernel_refuses() {
    let host = host();
    let (tap, name) = (TapName::of_vm(VM), label(Role::Tap));
    let bridge = Label {
        instance: OURS,
        owner: Owner::Pool,
        role: Role::BridgePort,
    };
    refused(host.link_delete(&tap, &name), ErrorKind::NotFound);
    host.tap_create(&tap, &name, 0).unwrap();
    refused(host.tap_create(&tap, &name, 0), ErrorKind::Exists);
    refused(
        host.tap_create(&tap, &foreign(Role::Tap), 0),
        ErrorKind::Foreign,
    );
    refused(host.set_master(&tap, &name, "br0"), ErrorKind::NoDevice);
    let address = std::net::Ipv4Addr::new(172, 16, 0, 1);
    host.bridge_create("br0", &bridge, address, 24).unwrap();
    refused(
        host.bridge_create("br0", &bridge, address, 24),
        ErrorKind::Exists,
    );
    refused(
        host.set_master(&tap, &foreign(Role::Tap), "br0"),
        ErrorKind::Foreign,
    );
    host.set_master(&tap, &name, "br0").unwrap();
    refused(
        host.link_delete(&tap, &foreign(Role::Tap)),
        ErrorKind::Foreign,
    );
    refused(host.bridge_delete("br0", &name), ErrorKind::Foreign);
    host.bridge_delete("br0", &bridge).unwrap();
    assert_eq!(host.links().unwrap()[0].master, None);
    host.link_delete(&tap, &name).unwrap();
}

#[test]
fn jails_and_cgroups_refuse_what_the_kernel_refuses() {
    let host = host();
    with_disk(&host);
    let (jail, cgroup) = (label(Role::Jail), label(Role::Cgroup));
    refused(host.jail_remove(&jail), ErrorKind::NotFound);
    host.jail_create(&jail).unwrap();
    refused(host.jail_create(&jail), ErrorKind::Exists);
    refused(host.cgroup_remove(&cgroup), ErrorKind::NotFound);
    let mut spec = spawn_spec();
    spec.cgroup = Some(cgroup);
    refused(host.spawn(&spec), ErrorKind::NotFound);
    host.cgroup_create(&cgroup).unwrap();
    refused(host.cgroup_create(&cgroup), ErrorKind::Exists);
    let vmm = host.spawn(&spec).unwrap();
    refused(host.cgroup_remove(&cgroup), ErrorKind::Busy);
    host.signal(&spec.identity, vmm, Signal::Kill).unwrap();
    host.await_exit(&spec.identity, vmm, Duration::from_secs(1))
        .unwrap();
    host.cgroup_remove(&cgroup).unwrap();
    host.jail_remove(&jail).unwrap();
}

#[test]
fn a_locked_log_keeps_a_second_vmm_out() {
    let host = host();
    with_disk(&host);
    let spec = spawn_spec();
    let first = host.spawn(&spec).unwrap();
    refused(host.spawn(&spec), ErrorKind::Busy);
    host.signal(&spec.identity, first, Signal::Kill).unwrap();
    refused(host.spawn(&spec), ErrorKind::Busy);
    host.await_exit(&spec.identity, first, Duration::from_secs(1))
        .unwrap();
    assert!(!host.log_locked(&spec.log).unwrap());
    assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Absent, "reaped");
    assert!(host.snapshot().sins.is_empty());
    // The dead one's socket file is in the way: the next one ends at once.
    host.spawn(&spec).unwrap();
    assert!(!host.log_locked(&spec.log).unwrap());
    host.unlink(p("/run/b/qmp")).unwrap();
    let second = host.spawn(&spec).unwrap();
    assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Alive(second));
}

#[test]
fn only_the_process_meant_is_proven_or_signalled() {
    let host = host();
    with_disk(&host);
    let text = label(Role::Vmm).to_string();
    let grep = host
        .world()
        .borrow_mut()
        .stranger(None, "/usr/bin/grep", &[&text], 0);
    let other_uid = host
        .world()
        .borrow_mut()
        .stranger(None, "/usr/bin/vmm", &[&text], 7);
    let part = format!("x{text}");
    host.world()
        .borrow_mut()
        .stranger(None, "/usr/bin/vmm", &[&part], 0);
    let mut spec = spawn_spec();
    assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Absent);
    let vmm = host.spawn(&spec).unwrap();
    assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Alive(vmm));
    for (pid, start_time) in [
        (grep, 2),
        (other_uid, 3),
        (vmm.pid, vmm.start_time + 1),
        (9999, 1),
    ] {
        let handle = ProcessHandle { pid, start_time };
        refused(
            host.signal(&spec.identity, handle, Signal::Kill),
            ErrorKind::NotFound,
        );
        spec.identity.hint = Some(handle);
        assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Alive(vmm));
    }
}

#[test]
fn a_number_goes_to_a_stranger_and_proves_nothing() {
    let host = host();
    with_disk(&host);
    let mut spec = spawn_spec();
    let vmm = host.spawn(&spec).unwrap();
    host.kill();
    let host = SimHost::on(host.world());
    spec.identity.hint = Some(vmm);
    assert_eq!(
        host.prove(&spec.identity).unwrap(),
        Proof::Alive(vmm),
        "it outlives the daemon"
    );
    host.signal(&spec.identity, vmm, Signal::Kill).unwrap();
    host.await_exit(&spec.identity, vmm, Duration::from_secs(1))
        .unwrap();
    assert_eq!(
        &*host.snapshot().processes[&vmm.pid].exe,
        "/usr/bin/stranger"
    );
    assert_eq!(host.prove(&spec.identity).unwrap(), Proof::Absent);
}

#[test]
fn a_process_in_uninterruptible_sleep_holds_everything() {
    let guests = BTreeMap::from([(VM, Guest::Stuck(3000))]);
    let mut world = world();
    world.nature = std::rc::Rc::new(Nature {
        guests,
        ..Nature::default()
    });
    let host = SimHost::new(world);
    with_disk(&host);
    let spec = spawn_spec();
    let vmm = host.spawn(&spec).unwrap();
    host.signal(&spec.identity, vmm, Signal::Kill).unwrap();
    let wait = Duration::from_secs(1);
    refused(
        host.await_exit(&spec.identity, vmm, wait),
        ErrorKind::TimedOut,
    );
    assert!(host.log_locked(&spec.log).unwrap());
    host.sleep(wait);
    host.await_exit(&spec.identity, vmm, wait).unwrap();
    assert!(!host.log_locked(&spec.log).unwrap());
}
