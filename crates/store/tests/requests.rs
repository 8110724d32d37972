//! What the store promises its callers: leases with the row, goals by compare-and-set (R-STATE-1,
//! R-SVC-4), rebuilt rows (R-STATE-8).
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use banger_model::*;
use banger_store::{Error, Recovered, Store, Unique};
use common::{INSTANCE, vm};
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("state.db"), INSTANCE).unwrap();
    (dir, store)
}

const FIRST: Generation = Generation::FIRST;

#[test]
fn a_vm_comes_back_as_it_went_in() {
    let (_dir, store) = store();
    let bare = Vm {
        reason: None,
        mirror: None,
        last_error: None,
        ..vm(2)
    };
    for vm in [vm(1), bare] {
        store.insert_vm(&vm).unwrap();
        assert_eq!(store.get(vm.id).unwrap(), Some(vm.clone()));
        assert_eq!(store.by_name(&vm.name).unwrap(), Some(vm));
    }
    assert_eq!(store.get(vm(3).id).unwrap(), None);
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn every_goal_and_phase_has_its_place_in_the_schema() {
    let (_dir, store) = store();
    use {Goal::*, Phase::*};
    let phases = [
        Creating,
        Starting,
        Phase::Running,
        Stopping,
        Phase::Stopped,
        Deleting,
        Phase::Error,
    ];
    for (n, phase) in phases.into_iter().enumerate() {
        for (m, goal) in [Goal::Running, Goal::Stopped, Absent]
            .into_iter()
            .enumerate()
        {
            let vm = Vm {
                goal,
                phase,
                ..vm((10 * n + m) as u32)
            };
            store.insert_vm(&vm).unwrap();
            assert_eq!(store.get(vm.id).unwrap(), Some(vm));
        }
    }
}

#[test]
fn what_is_taken_is_refused_by_name_and_nothing_stays() {
    let (_dir, store) = store();
    let first = vm(1);
    store.insert_vm(&first).unwrap();
    let other = || vm(2);
    let with_lease = |lease| Vm { lease, ..other() };
    for (what, clash) in [
        (
            Unique::Id,
            Vm {
                id: first.id,
                ..other()
            },
        ),
        (
            Unique::Name,
            Vm {
                name: first.name.clone(),
                ..other()
            },
        ),
        (
            Unique::Ip,
            with_lease(Lease {
                ip: first.lease.ip,
                ..other().lease
            }),
        ),
        (
            Unique::Mac,
            with_lease(Lease {
                mac: first.lease.mac,
                ..other().lease
            }),
        ),
        (
            Unique::Cid,
            with_lease(Lease {
                cid: first.lease.cid,
                ..other().lease
            }),
        ),
    ] {
        match store.insert_vm(&clash) {
            Err(Error::AlreadyExists { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(
            store.list().unwrap(),
            std::slice::from_ref(&first),
            "{what}"
        );
    }
    store.insert_vm(&other()).unwrap();
}

#[test]
fn an_update_for_an_older_generation_is_stale() {
    let (_dir, store) = store();
    let created = vm(1);
    store.insert_vm(&created).unwrap();
    // Progress of the goal, then a new goal, then progress of the goal that is not wanted any more.
    let stopping = Vm {
        phase: Phase::Stopping,
        ..created.clone()
    };
    store.update(FIRST, &stopping).unwrap();
    let absent = Vm {
        goal: Goal::Absent,
        generation: FIRST.next(),
        ..stopping.clone()
    };
    store.update(FIRST, &absent).unwrap();
    match store.update(
        FIRST,
        &Vm {
            phase: Phase::Stopped,
            ..stopping
        },
    ) {
        Err(Error::Stale {
            expected, found, ..
        }) => assert_eq!((expected, found), (FIRST, FIRST.next())),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(created.id).unwrap(), Some(absent));
    assert!(matches!(store.update(FIRST, &vm(2)), Err(Error::NotFound(id)) if id == vm(2).id));
}

#[test]
fn a_change_is_made_of_the_row_that_is_there() {
    let (_dir, store) = store();
    store.insert_vm(&vm(1)).unwrap();
    let stop = |there: &Vm| Vm {
        goal: Goal::Stopped,
        generation: there.generation.next(),
        ..there.clone()
    };
    let stopped = store.modify(vm(1).id, FIRST, stop).unwrap();
    assert_eq!(stopped.generation, FIRST.next());
    assert_eq!(store.get(vm(1).id).unwrap(), Some(stopped.clone()));
    assert!(matches!(
        store.modify(vm(1).id, FIRST, stop),
        Err(Error::Stale { .. })
    ));
    assert!(matches!(
        store.modify(vm(2).id, FIRST, stop),
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        store.modify(vm(1).id, FIRST.next(), |_| vm(2)),
        Err(Error::Immutable { what: "id", .. })
    ));
    assert_eq!(store.get(vm(1).id).unwrap(), Some(stopped));
}

#[test]
fn leases_owner_and_birth_are_for_life() {
    let (_dir, store) = store();
    let there = vm(1);
    store.insert_vm(&there).unwrap();
    for (changed, part) in [
        (
            Vm {
                lease: vm(2).lease,
                ..there.clone()
            },
            "leases",
        ),
        (
            Vm {
                owner_uid: 0,
                ..there.clone()
            },
            "owner",
        ),
        (
            Vm {
                created_at: 1,
                ..there.clone()
            },
            "time of creation",
        ),
    ] {
        assert!(
            matches!(store.update(FIRST, &changed), Err(Error::Immutable { what, .. }) if what == part)
        );
    }
    assert_eq!(store.get(there.id).unwrap(), Some(there));
}

#[test]
fn a_rename_to_a_taken_name_is_refused() {
    let (_dir, store) = store();
    store.insert_vm(&vm(1)).unwrap();
    store.insert_vm(&vm(2)).unwrap();
    let renamed = Vm {
        name: vm(2).name,
        ..vm(1)
    };
    assert!(matches!(
        store.update(FIRST, &renamed),
        Err(Error::AlreadyExists {
            what: Unique::Name,
            ..
        })
    ));
    let renamed = Vm {
        name: "free".parse().unwrap(),
        ..vm(1)
    };
    store.update(FIRST, &renamed).unwrap();
    assert_eq!(store.by_name(&renamed.name).unwrap(), Some(renamed));
    assert_eq!(store.by_name(&vm(1).name).unwrap(), None);
}

#[test]
fn remove_frees_name_and_leases_and_remembers_their_order() {
    let (_dir, store) = store();
    for n in 1..=3 {
        store.insert_vm(&vm(n)).unwrap();
    }
    assert!(matches!(
        store.remove(vm(2).id, FIRST.next()),
        Err(Error::Stale { .. })
    ));
    store.remove(vm(2).id, FIRST).unwrap();
    store.remove(vm(1).id, FIRST).unwrap();
    assert!(matches!(
        store.remove(vm(1).id, FIRST),
        Err(Error::NotFound(_))
    ));
    let lease = |n| vm(n).lease;
    let released = || store.leases().unwrap().released;
    assert_eq!(released(), [lease(2).ip, lease(1).ip]);
    assert_eq!(store.leases().unwrap().held, [lease(3)]);
    // Leased again, it is not free; released again, it is the youngest.
    store.insert_vm(&vm(2)).unwrap();
    assert_eq!(released(), [lease(1).ip]);
    assert_eq!(store.leases().unwrap().held, [lease(2), lease(3)]);
    store.remove(vm(2).id, FIRST).unwrap();
    assert_eq!(released(), [lease(1).ip, lease(2).ip]);
    assert_eq!(store.list().unwrap(), [vm(3)]);
}

#[test]
fn recovery_takes_the_higher_generation() {
    let (_dir, store) = store();
    let at = |n, generation| Vm {
        generation: Generation(generation),
        ..vm(n)
    };
    assert_eq!(
        store.recover_insert(&at(1, 5)).unwrap(),
        Recovered::Inserted
    );
    assert_eq!(store.recover_insert(&at(1, 4)).unwrap(), Recovered::Kept);
    assert_eq!(store.recover_insert(&at(1, 5)).unwrap(), Recovered::Kept);
    let newer = Vm {
        goal: Goal::Stopped,
        lease: vm(9).lease,
        ..at(1, 6)
    };
    assert_eq!(store.recover_insert(&newer).unwrap(), Recovered::Replaced);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&newer));
    // A directory that claims another VM's name changes nothing.
    let clash = Vm {
        name: newer.name.clone(),
        ..vm(2)
    };
    assert!(matches!(
        store.recover_insert(&clash),
        Err(Error::AlreadyExists {
            what: Unique::Name,
            ..
        })
    ));
    // Nor does a newer one that would take another's lease: the old row stays.
    store.insert_vm(&vm(3)).unwrap();
    let clash = Vm {
        lease: vm(3).lease,
        generation: Generation(7),
        ..newer.clone()
    };
    assert!(matches!(
        store.recover_insert(&clash),
        Err(Error::AlreadyExists {
            what: Unique::Ip | Unique::Mac | Unique::Cid,
            ..
        })
    ));
    assert_eq!(store.get(newer.id).unwrap(), Some(newer));
}

#[test]
fn a_use_is_noted_and_never_goes_back() {
    let (_dir, store) = store();
    let vm = vm(1);
    store.insert_vm(&vm).unwrap();
    store.touch(vm.id, vm.last_used_at + 5).unwrap();
    store.touch(vm.id, 1).unwrap();
    assert_eq!(
        store.get(vm.id).unwrap().unwrap().last_used_at,
        vm.last_used_at + 5
    );
    assert!(matches!(
        store.touch(common::vm(2).id, 1),
        Err(Error::NotFound(_))
    ));
}

#[test]
fn two_writers_take_turns() {
    let (dir, store) = store();
    let vm = vm(1);
    store.insert_vm(&vm).unwrap();
    let path = dir.path().join("state.db");
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let own = Store::open(&path).unwrap();
                    let mut wins = 0;
                    for generation in 1..=25 {
                        let next = Vm {
                            generation: Generation(generation + 1),
                            ..vm.clone()
                        };
                        match own.update(Generation(generation), &next) {
                            Ok(()) => wins += 1,
                            Err(Error::Stale { .. }) => {}
                            Err(error) => {
                                panic!("{error}: {:?}", std::error::Error::source(&error))
                            }
                        }
                    }
                    wins
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    // Each step from one generation to the next was one writer's.
    let reached = store.get(vm.id).unwrap().unwrap().generation;
    assert_eq!(reached, Generation(1 + wins as u64));
    assert!(wins >= 25, "{wins}");
}

/// A request of the model test below.
#[derive(Debug, Clone)]
enum Request {
    Insert(u32, u32, u32),
    Update(u32, u64, Goal),
    Remove(u32, u64),
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let goal = prop_oneof![Just(Goal::Running), Just(Goal::Stopped), Just(Goal::Absent)];
    let one = prop_oneof![
        3 => (0..4u32, 0..4u32, 0..4u32).prop_map(|(id, name, lease)| Request::Insert(id, name, lease)),
        4 => (0..4u32, 1..4u64, goal).prop_map(|(id, g, goal)| Request::Update(id, g, goal)),
        2 => (0..4u32, 1..4u64).prop_map(|(id, g)| Request::Remove(id, g)),
    ];
    proptest::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random requests against a map.
    #[test]
    fn the_store_is_a_map_with_unique_names_and_leases(script in requests()) {
        let (_dir, store) = store();
        let mut model: Vec<Vm> = Vec::new();
        for request in script {
            match request {
                Request::Insert(id, name, lease) => {
                    let new = Vm { name: vm(name).name, lease: vm(lease).lease, ..vm(id) };
                    let clash = model.iter().any(|v| v.id == new.id || v.name == new.name || v.lease.ip == new.lease.ip);
                    prop_assert_eq!(store.insert_vm(&new).is_err(), clash);
                    if !clash { model.push(new); }
                }
                Request::Update(id, generation, goal) => {
                    let there = model.iter_mut().find(|v| v.id == vm(id).id && v.generation.0 == generation);
                    match there {
                        Some(there) => {
                            there.goal = goal;
                            there.generation = there.generation.next();
                            prop_assert!(store.update(Generation(generation), there).is_ok());
                        }
                        None => prop_assert!(store.update(Generation(generation), &vm(id)).is_err()),
                    }
                }
                Request::Remove(id, generation) => {
                    let before = model.len();
                    model.retain(|v| v.id != vm(id).id || v.generation.0 != generation);
                    prop_assert_eq!(store.remove(vm(id).id, Generation(generation)).is_ok(), model.len() < before);
                }
            }
        }
        model.sort_by(|a, b| a.name.cmp(&b.name));
        prop_assert_eq!(store.list().unwrap(), model);
    }

    /// Any text survives, in JSON columns and in plain ones.
    #[test]
    fn any_text_survives(text in any::<String>(), number in 0..=i64::MAX as u64, uid in any::<u32>()) {
        let (_dir, store) = store();
        let vm = Vm {
            last_error: Some(text.replace('\0', "")),
            reason: Some(Reason { kind: ReasonKind::VmmExited, text: text.clone() }),
            spec: VmSpec { image: text, memory: ByteSize(number), ..vm(1).spec },
            created_at: number,
            last_used_at: number,
            owner_uid: uid,
            ..vm(1)
        };
        store.insert_vm(&vm).unwrap();
        prop_assert_eq!(store.get(vm.id).unwrap(), Some(vm));
    }
}
