//! Single cases on the simulated machine that the enumeration's scripts do not come to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use banger_converge::{
    Convergence, Env, Error, Ledger, Outcome, Step, delete_lost, lost, observe, recover,
    recover_database, request, settle, views,
};
use banger_host::{
    Effect, ErrorKind,
    sim::{Content, Link, SimHost, World},
};
use banger_model::{Label, Phase, Role};
use banger_plan::Action;
use harness::{
    drive::{Waits, ask, with_env},
    ledger::SimLedger,
    script::Verb,
    site::{self, Profile, SimRecipes, site, vm_id},
};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

type SimEnv<'a, 'l> = Env<'a, SimHost, SimLedger<'l>, SimRecipes>;

/// A machine with the first instance's daemon on it.
fn machine() -> (Rc<RefCell<World>>, SimHost) {
    let world = Rc::new(RefCell::new(site::world(&[])));
    let host = SimHost::on(world.clone());
    (world, host)
}

fn converge(env: &SimEnv<'_, '_>, world: &Rc<RefCell<World>>, n: u8) -> Outcome {
    settle(
        env,
        &mut Convergence::new(vm_id(0, n)),
        &Waits(world.clone()),
    )
}

/// Asks, and brings the VM there.
fn get(env: &SimEnv<'_, '_>, world: &Rc<RefCell<World>>, n: u8, verb: Verb) -> Outcome {
    ask(env, 0, n, verb).unwrap();
    converge(env, world, n)
}

fn lose_row(world: &Rc<RefCell<World>>, n: u8) {
    let mut world = world.borrow_mut();
    world.rows_mut(site(0).instance).vms.remove(&vm_id(0, n));
}

/// R-STATE-10: what is lost is deleted when that is asked for, whoever has its name by now; and its
/// address is nobody else's, because it may be alive.
#[test]
fn a_lost_vm_keeps_its_lease_and_can_be_deleted_though_its_name_is_taken() {
    let (world, host) = machine();
    let one = site(0);
    with_env(&host, &one, |env| {
        let create = Verb::Create("dev", Profile::Everything);
        let Outcome::Done(first) = get(env, &world, 1, create) else {
            panic!("the first VM did not come up");
        };
        lose_row(&world, 1);
        let Outcome::Done(second) = get(env, &world, 2, create) else {
            panic!("the second VM did not come up");
        };
        assert_ne!(first.lease.ip, second.lease.ip, "two live VMs, one address");
        assert_ne!(first.lease.cid, second.lease.cid);
        assert_eq!(lost(env).unwrap().len(), 1);

        delete_lost(env, vm_id(0, 1)).unwrap();
        assert!(matches!(converge(env, &world, 1), Outcome::Gone));
        assert_eq!(lost(env).unwrap(), []);
        let objects = &world.borrow().kernel.links;
        assert!(!objects.values().any(|link| {
            let label = link.alias.parse::<Label>().ok();
            label.and_then(|label| label.vm_id()) == Some(vm_id(0, 1))
        }));
    });
}

/// A lease that somebody has all the same (a row that was put back by hand) is no reason either.
#[test]
fn a_lost_vm_can_be_deleted_though_its_lease_is_taken() {
    let (world, host) = machine();
    with_env(&host, &site(0), |env| {
        let create = |name| Verb::Create(name, Profile::Everywhere);
        let Outcome::Done(first) = get(env, &world, 1, create("one")) else {
            panic!("the first VM did not come up");
        };
        get(env, &world, 1, Verb::Stop);
        lose_row(&world, 1);
        get(env, &world, 2, create("two"));
        // The second VM's row is given the first one's lease.
        let mut second = {
            let mut world = world.borrow_mut();
            let row = world.rows_mut(site(0).instance).vms.remove(&vm_id(0, 2));
            row.unwrap().vm().clone()
        };
        second.lease.ip = first.lease.ip;
        banger_converge::Ledger::insert(env.ledger, &second).unwrap();

        assert_eq!(recover_database(env).unwrap().failed.len(), 1);
        delete_lost(env, vm_id(0, 1)).unwrap();
        assert!(matches!(converge(env, &world, 1), Outcome::Gone));
    });
}

/// R-HOST-6: a bridge of our name that is not ours gets no guests of ours.
#[test]
fn another_instances_bridge_is_foreign() {
    let (world, host) = machine();
    let one = site(0);
    let theirs = Link {
        alias: site(1).bridge_label().to_string().into(),
        master: None,
        bridge: true,
    };
    let name = one.bridge.name.clone();
    let insert = theirs.clone();
    Rc::make_mut(&mut world.borrow_mut().kernel)
        .links
        .insert(name.as_str().into(), insert);
    with_env(&host, &one, |env| {
        let create = Verb::Create("dev", Profile::Everything);
        let Outcome::RolledBack { cause, .. } = get(env, &world, 1, create) else {
            panic!("a guest was put on somebody else's bridge");
        };
        assert!(
            matches!(&cause.error, Error::Host(e) if e.kind == ErrorKind::Foreign),
            "{cause:?}"
        );
    });
    let world = world.borrow();
    assert_eq!(world.kernel.links.get(name.as_str()), Some(&theirs));
    assert!(
        world
            .kernel
            .links
            .values()
            .all(|link| link.master.is_none())
    );
}

/// R-HOST-6: sweeps never touch a live object, a lost VM's included.
#[test]
fn the_bridge_stays_under_a_lost_vm_that_is_up() {
    let (world, host) = machine();
    let one = site(0);
    let there = || {
        world
            .borrow()
            .kernel
            .links
            .contains_key(one.bridge.name.as_str())
    };
    with_env(&host, &one, |env| {
        get(env, &world, 1, Verb::Create("dev", Profile::Everything));
        lose_row(&world, 1);
        views::retire_bridge(env).unwrap();
        assert!(there(), "a live VM lost its network");
        delete_lost(env, vm_id(0, 1)).unwrap();
        converge(env, &world, 1);
        views::retire_bridge(env).unwrap();
        assert!(!there());
    });
}

/// R-HOST-10: deleting is how a full disk gets room, so it needs none.
#[test]
fn a_delete_needs_no_room_on_the_disk() {
    let (world, host) = machine();
    with_env(&host, &site(0), |env| {
        get(env, &world, 1, Verb::Create("dev", Profile::Everywhere));
        request::delete(env, vm_id(0, 1)).unwrap();
        let mut convergence = Convergence::new(vm_id(0, 1));
        world.borrow_mut().full = true;
        let first = convergence.step(env);
        assert!(matches!(first, Step::Did(Action::MarkDeleted)), "{first:?}");
        // The database has room of its own to write in.
        world.borrow_mut().full = false;
        let outcome = settle(env, &mut convergence, &Waits(world.clone()));
        assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    });
    assert!(
        world
            .borrow()
            .fs
            .lookup(&site(0).vm_dir(vm_id(0, 1)))
            .is_none()
    );
}

/// A convergence follows as many goals as there are: each has its own looks.
#[test]
fn many_goals_are_no_endless_plan() {
    let (world, host) = machine();
    with_env(&host, &site(0), |env| {
        get(env, &world, 1, Verb::Create("dev", Profile::Everywhere));
        let mut convergence = Convergence::new(vm_id(0, 1));
        for _ in 0..20 {
            for (verb, phase) in [(Verb::Stop, Phase::Stopped), (Verb::Start, Phase::Running)] {
                ask(env, 0, 1, verb).unwrap();
                let outcome = settle(env, &mut convergence, &Waits(world.clone()));
                let Outcome::Done(vm) = outcome else {
                    panic!("{outcome:?}");
                };
                assert_eq!(vm.phase, phase);
            }
        }
    });
}

/// What the kernel still has of a VM: labels of its devices and links.
fn devices(world: &Rc<RefCell<World>>, n: u8) -> Vec<String> {
    let world = world.borrow();
    let kernel = &world.kernel;
    let loops = kernel.loops.values().map(|l| l.label.to_string());
    let dms = kernel.dms.values().map(|d| d.uuid.to_string());
    let links = kernel.links.values().map(|l| l.alias.to_string());
    let id = vm_id(0, n).to_string();
    let all = loops.chain(dms).chain(links);
    all.filter(|label| label.contains(&id)).collect()
}

/// R-STATE-2, R-STATE-6: handles that cannot be read are told of; a VMM that is dead yields its devices all the same,
/// and they are torn down.
#[test]
fn damaged_handles_are_told_and_stop_no_teardown() {
    let (world, host) = machine();
    let (one, id) = (site(0), vm_id(0, 1));
    with_env(&host, &one, |env| {
        get(env, &world, 1, Verb::Create("dev", Profile::Everything));
    });
    world.borrow_mut().guest_ends(id);
    let damaged = Content::bytes(b"{\"boot");
    let written = world.borrow_mut().fs.write(&one.handles(id), damaged);
    written.unwrap();
    let successor = SimHost::on(world.clone());
    with_env(&successor, &one, |env| {
        let report = recover(env).unwrap();
        assert_eq!(report.corrupt_handles.len(), 1, "{report:?}");
        assert!(report.errors.is_empty(), "{report:?}");
        let vm = env.ledger.vm(id).unwrap().unwrap();
        let seen = observe(env, &vm).unwrap();
        assert!(!seen.lives(Role::Vmm));
        for role in [Role::Tap, Role::DmSnapshot, Role::BaseLoop] {
            assert!(seen.objects.contains_key(&role), "{role}: {seen:?}");
        }
        let outcome = converge(env, &world, 1);
        assert!(
            matches!(&outcome, Outcome::Done(vm) if vm.phase == Phase::Stopped),
            "{outcome:?}"
        );
    });
    assert_eq!(devices(&world, 1), Vec::<String>::new());
}

/// R-STATE-3, R-STATE-7: a new daemon has the handles of what lives, and of what is dead nothing runs again; looking
/// a second time changes nothing.
#[test]
fn a_new_daemon_keeps_the_living_and_buries_the_dead() {
    let (world, host) = machine();
    let one = site(0);
    with_env(&host, &one, |env| {
        get(env, &world, 1, Verb::Create("lives", Profile::Everything));
        get(env, &world, 2, Verb::Create("dies", Profile::Everything));
    });
    world.borrow_mut().guest_ends(vm_id(0, 2));
    let running = world.borrow().vmm_of(vm_id(0, 1)).unwrap().handle();
    let successor = SimHost::on(world.clone());
    with_env(&successor, &one, |env| {
        let report = recover(env).unwrap();
        assert_eq!(report.adopted, [vm_id(0, 1)]);
        let handles = env.shared.handles.get(vm_id(0, 1)).unwrap();
        assert_eq!(handles.processes.get(&Role::Vmm), Some(&running));
        assert!(env.shared.handles.get(vm_id(0, 2)).is_none());
        for (n, phase) in [(1, Phase::Running), (2, Phase::Stopped)] {
            let outcome = converge(env, &world, n);
            assert!(
                matches!(&outcome, Outcome::Done(vm) if vm.phase == phase),
                "{n}: {outcome:?}"
            );
        }
        assert!(world.borrow().vmm_of(vm_id(0, 2)).is_none());
        let before = world.borrow().clone();
        let again = recover(env).unwrap();
        assert_eq!(again.rewritten, []);
        converge(env, &world, 1);
        converge(env, &world, 2);
        assert!(world.borrow().same_as(&before));
    });
}

/// R-HOST-1: what was made before a failing step is undone; when that fails too both are told, the original first.
#[test]
fn a_failing_create_is_undone_and_says_why() {
    let (world, host) = machine();
    with_env(&host, &site(0), |env| {
        host.set_broken(BTreeSet::from([(Effect::Spawn, ErrorKind::Other)]));
        let undone = get(env, &world, 1, Verb::Create("dev", Profile::Everything));
        let Outcome::RolledBack { cause, .. } = undone else {
            panic!("{undone:?}");
        };
        assert!(matches!(cause.action, Some(Action::Spawn(_))), "{cause:?}");
        assert_eq!(devices(&world, 1), Vec::<String>::new());
        assert!(env.ledger.vm(vm_id(0, 1)).unwrap().is_none());

        host.set_broken(BTreeSet::from([
            (Effect::Spawn, ErrorKind::Other),
            (Effect::LinkDelete, ErrorKind::Other),
        ]));
        let fenced = get(env, &world, 2, Verb::Create("two", Profile::Everything));
        let Outcome::Fenced { cause, undo } = fenced else {
            panic!("{fenced:?}");
        };
        assert!(matches!(cause.action, Some(Action::Spawn(_))), "{cause:?}");
        let failed: Vec<_> = undo.iter().map(|f| f.action.clone()).collect();
        assert_eq!(failed, [Some(Action::DeleteTap)]);
        let told = env.ledger.vm(vm_id(0, 2)).unwrap().unwrap().last_error;
        let told = told.unwrap();
        let (first, then) = told.split_once("; then ").unwrap();
        assert_ne!(first, then, "{told}");
    });
}

/// R-HOST-2: a teardown goes on past what fails, reports all of it, and is finished by the next try.
#[test]
fn a_teardown_goes_on_past_what_fails() {
    let (world, host) = machine();
    with_env(&host, &site(0), |env| {
        get(env, &world, 1, Verb::Create("dev", Profile::Everything));
        host.set_broken(BTreeSet::from([
            (Effect::CgroupRemove, ErrorKind::Other),
            (Effect::LinkDelete, ErrorKind::Other),
        ]));
        let outcome = get(env, &world, 1, Verb::Kill);
        let Outcome::Unfinished { failures } = outcome else {
            panic!("{outcome:?}");
        };
        let mut failed: Vec<_> = failures.iter().filter_map(|f| f.action.clone()).collect();
        failed.dedup();
        assert_eq!(failed, [Action::RemoveCgroup, Action::DeleteTap]);
        let left = devices(&world, 1);
        assert!(left.len() == 1 && left[0].ends_with("/tap"), "{left:?}");

        host.set_broken(BTreeSet::new());
        let outcome = converge(env, &world, 1);
        assert!(
            matches!(&outcome, Outcome::Done(vm) if vm.phase == Phase::Stopped),
            "{outcome:?}"
        );
    });
    assert_eq!(devices(&world, 1), Vec::<String>::new());
}
