//! Requests about VMs that nothing is being done to, on the simulated machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use banger_converge::{
    Convergence, Env, Ledger, Outcome, recover, recover_database,
    request::{self, RequestError},
    settle, settled,
};
use banger_host::sim::{SimHost, World};
use banger_model::{ByteSize, Goal, Phase, ReasonKind, Vm};
use harness::{
    drive::{Waits, ask, with_env},
    explore::{Depth, explore_script},
    ledger::SimLedger,
    script::Verb,
    scripts,
    site::{self, Profile, SimRecipes, site, vm_id},
};
use std::{cell::RefCell, rc::Rc};

type SimEnv<'a, 'l> = Env<'a, SimHost, SimLedger<'l>, SimRecipes>;

/// A daemon and a VM that runs.
fn with_dev(test: impl FnOnce(&SimEnv<'_, '_>, &Rc<RefCell<World>>)) {
    let world = Rc::new(RefCell::new(site::world(&[])));
    let host = SimHost::on(world.clone());
    with_env(&host, &site(0), |env| {
        let create = Verb::Create("dev", Profile::Everywhere);
        ask(env, 0, 1, create).unwrap();
        assert!(matches!(converge(env, &world), Outcome::Done(_)));
        test(env, &world);
    });
}

fn converge(env: &SimEnv<'_, '_>, world: &Rc<RefCell<World>>) -> Outcome {
    let waits = Waits(world.clone());
    settle(env, &mut Convergence::new(vm_id(0, 1)), &waits)
}

fn row(env: &SimEnv<'_, '_>) -> Vm {
    env.ledger.vm(vm_id(0, 1)).unwrap().unwrap()
}

/// R-CLI-2: a name given is there after every crash, and the VM lives on.
#[test]
fn a_new_name_survives_every_crash() {
    let (tally, _) = explore_script(&scripts::names(Profile::Everywhere), Depth::WIDE);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.cases > 200, "{} cases", tally.cases);
}

/// R-NET-3: what was said of a guest's network is the row's after every crash, and the VM lives on.
#[test]
fn a_network_given_survives_every_crash() {
    let (tally, _) = explore_script(&scripts::networks(Profile::Everywhere), Depth::WIDE);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.cases > 200, "{} cases", tally.cases);
}

/// R-STATE-8: and after the loss of the database.
#[test]
fn a_new_name_survives_the_database() {
    with_dev(|env, world| {
        settled::rename(env, vm_id(0, 1), &"other".parse().unwrap()).unwrap();
        assert_eq!(row(env).runtime.dns_name, "other.vm");
        let rows =
            |world: &RefCell<World>| world.borrow_mut().rows_mut(site(0).instance).vms.clear();
        rows(world);
        recover_database(env).unwrap();
        assert_eq!(row(env).name.as_str(), "other");
        assert_eq!(row(env).phase, Phase::Running);
    });
}

/// A VM on its way is not renamed: its operation would begin anew.
#[test]
fn what_is_on_its_way_keeps_its_name() {
    with_dev(|env, world| {
        let rename = || settled::rename(env, vm_id(0, 1), &"other".parse().unwrap());
        ask(env, 0, 1, Verb::Stop).unwrap();
        let refused = rename().unwrap_err();
        assert!(
            matches!(refused, RequestError::Conflict { .. }),
            "{refused}"
        );
        converge(env, world);
        let before = row(env).generation;
        assert!(rename().unwrap().new);
        assert!(!rename().unwrap().new, "it has it already");
        assert_eq!(row(env).generation, before.next());
    });
}

/// A restart that does not come to its second half leaves a stopped VM that says so, to the next daemon as well; a
/// start takes that back.
#[test]
fn a_restart_cut_short_says_so() {
    with_dev(|env, world| {
        request::stop_to_restart(env, vm_id(0, 1)).unwrap();
        recover(env).unwrap();
        converge(env, world);
        for _ in 0..2 {
            let vm = row(env);
            assert_eq!((vm.goal, vm.phase), (Goal::Stopped, Phase::Stopped));
            let reason = vm.reason.unwrap();
            assert_eq!(reason.kind, ReasonKind::Interrupted);
            assert!(
                reason.text.ends_with("banger vm start dev"),
                "{}",
                reason.text
            );
            recover(env).unwrap();
            converge(env, world);
        }
        ask(env, 0, 1, Verb::Start).unwrap();
        converge(env, world);
        let reason = row(env).reason.unwrap();
        assert_eq!(
            (row(env).phase, reason.kind),
            (Phase::Running, ReasonKind::Requested)
        );
    });
}

/// Who clears up takes only what is stopped.
#[test]
fn only_what_is_stopped_is_cleared_away() {
    with_dev(|env, world| {
        let clear = || settled::delete_stopped(env, vm_id(0, 1), &|| true);
        assert!(matches!(
            clear().unwrap_err(),
            RequestError::Conflict { .. }
        ));
        ask(env, 0, 1, Verb::Stop).unwrap();
        assert!(matches!(
            clear().unwrap_err(),
            RequestError::Conflict { .. }
        ));
        converge(env, world);
        let restarting = settled::delete_stopped(env, vm_id(0, 1), &|| false);
        assert!(matches!(
            restarting.unwrap_err(),
            RequestError::Conflict { .. }
        ));
        clear().unwrap();
        assert!(matches!(converge(env, world), Outcome::Gone));
    });
}

/// R-CLI-3: a disk never shrinks; a size that was asked for by mistake and never came to be is taken back.
#[test]
fn what_a_disk_has_not_become_yet_is_taken_back() {
    with_dev(|env, world| {
        let set = |gib| ask(env, 0, 1, Verb::Set(gib));
        let sizes = || (row(env).spec.overlay_size, row(env).spec.disk_size);
        ask(env, 0, 1, Verb::Stop).unwrap();
        converge(env, world);
        set(64).unwrap();
        set(4).unwrap();
        assert_eq!(sizes(), (ByteSize::gib(4), ByteSize::gib(4)));
        ask(env, 0, 1, Verb::Start).unwrap();
        converge(env, world);
        ask(env, 0, 1, Verb::Stop).unwrap();
        converge(env, world);
        let refused = set(3).unwrap_err();
        assert!(matches!(refused, RequestError::Shrinks { .. }), "{refused}");
        assert_eq!(sizes(), (ByteSize::gib(4), ByteSize::gib(4)));
    });
}
