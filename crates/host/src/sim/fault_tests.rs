//! Faults: what a crash, an error or another thread leaves.

use super::{
    tests::{OURS, THEIRS, host, p, refused, spawn_spec, with_disk},
    *,
};
use crate::{Clock, Effect, ErrorKind, Files, Processes};
use std::path::Path;

#[test]
fn every_prefix_of_a_spawn_is_left_by_a_crash() {
    let mut left = Vec::new();
    for n in 0..3 {
        let host = host();
        with_disk(&host);
        let at = host.effects();
        host.inject(Fault {
            at,
            injection: Injection::CrashMid(n),
        });
        refused(host.spawn(&spawn_spec()), ErrorKind::Crashed);
        let world = host.snapshot();
        let alive = world
            .processes
            .values()
            .any(|q| q.guest.is_some() && q.is_alive());
        left.push((alive, world.fs.lookup(p("/run/b/qmp")).is_some()));
        assert!(world.fs.lookup(p("/s/vmm.log")).is_some());
    }
    assert_eq!(left, [(false, false), (true, false), (false, true)]);
}

#[test]
fn a_dead_daemon_does_nothing_for_ever() {
    for injection in [Injection::CrashBefore, Injection::CrashAfter] {
        let host = host();
        host.inject(Fault { at: 1, injection });
        host.mkdir(p("/s/a")).unwrap();
        refused(host.mkdir(p("/s/b")), ErrorKind::Crashed);
        refused(host.mkdir(p("/s/c")), ErrorKind::Crashed);
        refused(host.read(p("/s/c")), ErrorKind::Crashed);
        refused(host.boot_id(), ErrorKind::Crashed);
        assert!(host.rows(OURS).is_err());
        let done = host.snapshot().fs.lookup(p("/s/b")).is_some();
        assert_eq!(done, injection == Injection::CrashAfter);
        assert!(host.snapshot().fs.lookup(p("/s/c")).is_none());
        assert_eq!(host.hit(), Some(Effect::Mkdir));
    }
}

#[test]
fn errors_are_injected_once_for_ever_or_after_the_fact() {
    let fault = |injection| {
        let host = host();
        host.inject(Fault { at: 0, injection });
        let first = host.mkdir(p("/s/a")).map_err(|e| e.kind);
        let second = host.mkdir(p("/s/b")).map_err(|e| e.kind);
        (
            first,
            second,
            host.snapshot().fs.lookup(p("/s/a")).is_some(),
        )
    };
    let kind = ErrorKind::Denied;
    assert_eq!(fault(Injection::Error(kind)), (Err(kind), Ok(()), false));
    assert_eq!(
        fault(Injection::ErrorForEver(kind)),
        (Err(kind), Err(kind), false)
    );
    assert_eq!(
        fault(Injection::ErrorAfter(kind)),
        (Err(kind), Ok(()), true)
    );
}

#[test]
fn half_written_files_and_half_made_disks_are_left_by_a_crash() {
    let host = host();
    host.record();
    host.write(p("/s/f"), b"abcd").unwrap();
    with_disk(&host);
    let moments = host.take_record();
    let of = |moment: &Moment| -> Vec<u64> {
        moment
            .middle
            .iter()
            .map(|w| w.fs.content(p("/s/f")).unwrap().len())
            .collect()
    };
    assert_eq!(of(&moments[0]), [0, 2]);
    let half = moments[1].middle[0]
        .fs
        .content(p("/s/vms/d"))
        .unwrap()
        .clone();
    assert!(!half.as_disk().unwrap().whole);
    assert_eq!(moments.len(), 4);
}

#[test]
fn another_thread_acts_between_two_effects() {
    let host = host();
    host.interrupt(1, |host| {
        host.world().borrow_mut().given_dir(Path::new("/s/between"))
    });
    host.mkdir(p("/s/a")).unwrap();
    refused(host.mkdir(p("/s/between")), ErrorKind::Exists);
}

#[test]
fn transactions_are_atomic_and_durable() {
    let host = host();
    let refused: Result<Result<(), _>, _> = host.transaction(OURS, "row", |_| Err("no"));
    assert_eq!(refused.unwrap(), Err("no"));
    host.inject(Fault {
        at: 1,
        injection: Injection::CrashAfter,
    });
    let crashed = host.transaction(OURS, "row", |_| Ok::<_, ()>(()));
    assert_eq!(crashed.unwrap_err().kind, ErrorKind::Crashed);
    let mut world = host.snapshot();
    world.reboot(&Survival::default());
    assert!(world.rows.contains_key(&OURS) && !world.rows.contains_key(&THEIRS));
}
