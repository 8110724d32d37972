//! The harness is tested too: every bug that can be planted is, and the enumeration must fail with
//! it and pass without.

mod harness;

use banger_host::sim::Guest;
use banger_plan::{Planted, planted::with_planted};
use harness::{
    explore::{Depth, explore_script},
    script::{
        Deed::{Ask, GuestEnds, KillDaemons},
        Script,
        Verb::{Create, Delete, Kill},
        When::{After, Quiet},
    },
    scripts,
    site::{Profile, vm_id},
};

/// Explores with and without the bug; what is found must be among `symptoms`.
#[track_caller]
fn caught(bug: Planted, script: &Script, depth: Depth, symptom: &str) {
    let (sound, _) = explore_script(script, depth);
    assert_eq!(sound.failed, 0, "without the bug: {:?}", sound.failures);
    let (with_bug, _) = with_planted(bug, || explore_script(script, depth));
    let hit = with_bug
        .failures
        .keys()
        .any(|finding| finding.contains(symptom));
    assert!(
        hit,
        "{bug:?}: {} of {} cases failed, none with '{symptom}': {:?}",
        with_bug.failed, with_bug.cases, with_bug.failures
    );
    println!(
        "{bug:?}: {} of {} cases fail",
        with_bug.failed, with_bug.cases
    );
}

fn big_life() -> Script {
    scripts::life(Profile::Everything)
}

fn small_life() -> Script {
    scripts::life(Profile::Everywhere)
}

fn named(name: &str) -> Script {
    let mut found = scripts::written().into_iter().map(|(script, _)| script);
    found
        .find(|s| s.name.starts_with(name))
        .unwrap_or_else(|| panic!("no script is called {name}"))
}

#[test]
fn pid_without_start_time() {
    let script = Script::new(
        "its number goes to a stranger while it is being stopped",
        &[
            (Quiet, Ask(0, 1, Create("dev", Profile::Everywhere))),
            (Quiet, KillDaemons),
            (Quiet, Ask(0, 1, Kill)),
            (After(2), GuestEnds(0, 1)),
        ],
    );
    caught(
        Planted::PidWithoutStartTime,
        &script,
        Depth::ONCE,
        "was signalled",
    );
}

#[test]
fn row_deleted_before_dm() {
    caught(
        Planted::RowDeletedBeforeDm,
        &big_life(),
        Depth::ONCE,
        "belongs to no VM",
    );
}

/// A create while another VM is being deleted, with all addresses taken.
fn reuse() -> Script {
    let small = Profile::Everywhere;
    Script::new(
        "a create while another VM dies",
        &[
            (Quiet, Ask(0, 1, Create("one", small))),
            (Quiet, Ask(0, 2, Create("two", small))),
            (Quiet, Ask(0, 3, Create("three", small))),
            (Quiet, Ask(0, 1, Delete)),
            (After(1), Ask(0, 4, Create("four", small))),
        ],
    )
    .with_guests(&[(vm_id(0, 1), Guest::Stuck(5_000))])
}

#[test]
fn lease_freed_before_teardown() {
    caught(
        Planted::LeaseFreedBeforeTeardown,
        &reuse(),
        Depth::ONCE,
        "at one time",
    );
}

#[test]
fn dying_vm_address_reused() {
    caught(
        Planted::DyingVmAddressReused,
        &reuse(),
        Depth::ONCE,
        "at one time",
    );
}

#[test]
fn tombstone_after_first_removal() {
    let symptom = "lost a disk all the same";
    caught(
        Planted::TombstoneAfterFirstRemoval,
        &small_life(),
        Depth::ONCE,
        symptom,
    );
}

#[test]
fn sweep_of_another_instance() {
    let script = named("another instance's VM runs");
    caught(
        Planted::SweepOfAnotherInstance,
        &script,
        Depth::ONCE,
        "under a live VMM",
    );
}

#[test]
fn missing_row_deletes_disk() {
    let script = named("a row is lost");
    caught(
        Planted::MissingRowDeletesDisk,
        &script,
        Depth::ONCE,
        "is gone",
    );
}

#[test]
fn stop_rolls_back() {
    caught(
        Planted::StopRollsBack,
        &small_life(),
        Depth::ONCE,
        "asked to stop, and runs",
    );
}

#[test]
fn stuck_vm_blocks_another() {
    let script = Script::new(
        "stuck for ever beside a healthy one",
        &[
            (Quiet, Ask(0, 1, Create("stuck", Profile::Everywhere))),
            (Quiet, Ask(0, 2, Create("well", Profile::Everywhere))),
            (Quiet, Ask(0, 1, Kill)),
            (After(4), Ask(0, 2, Kill)),
        ],
    )
    .with_guests(&[(vm_id(0, 1), Guest::Stuck(u64::MAX))]);
    let symptom = "b00000000002 is stopping though no operation";
    caught(Planted::StuckVmBlocksAnother, &script, Depth::ONCE, symptom);
}

#[test]
fn directory_not_synced() {
    caught(
        Planted::DirectoryNotSynced,
        &small_life(),
        Depth::ONCE,
        "is gone",
    );
}

/// R-STATE-2, R-STATE-7: `handles.json` wins while it is whole, and that of another boot is void.
#[test]
fn mirror_used_though_handles_whole() {
    let script = named("the host loses power");
    caught(
        Planted::MirrorUsedThoughHandlesWhole,
        &script,
        Depth::ONCE,
        "b0000000",
    );
}

#[test]
fn half_made_disk_taken_as_made() {
    caught(
        Planted::HalfMadeDiskTakenAsMade,
        &small_life(),
        Depth::ONCE,
        "half-made disk",
    );
}

#[test]
fn vmm_spawned_twice() {
    caught(
        Planted::VmmSpawnedTwice,
        &small_life(),
        Depth::ONCE,
        "a second VMM opened",
    );
}

/// R-STATE-5: who is not alive is in no list.
#[test]
fn zone_lists_dead_vm() {
    caught(
        Planted::ZoneListsDeadVm,
        &small_life(),
        Depth::ONCE,
        "the resolver answers",
    );
}

/// R-HOST-1: the original error first.
#[test]
fn rollback_hides_cause() {
    caught(
        Planted::RollbackHidesCause,
        &big_life(),
        Depth::ONCE,
        "hides why it failed",
    );
}

#[test]
fn stale_generation_acts() {
    let script = named("delete 4 steps into create");
    caught(
        Planted::StaleGenerationActs,
        &script,
        Depth::ONCE,
        "asked to be down",
    );
}

#[test]
fn hello_taken_for_ready() {
    caught(
        Planted::HelloTakenForReady,
        &named("says hello, cannot mount"),
        Depth::ONCE,
        "is said to run, and its guest is not ready",
    );
}

#[test]
fn failed_guest_booted_again() {
    caught(
        Planted::FailedGuestBootedAgain,
        &named("cannot mount its root any more"),
        Depth::ONCE,
        "was booted again after its guest had failed",
    );
}

/// R-HOST-7: the logs of a failed create survive a crash.
#[test]
fn row_forgotten_before_logs() {
    // The first death interrupts the create, the second one its undoing.
    let script = Script::new(
        "a create",
        &[(Quiet, Ask(0, 1, Create("dev", Profile::Everywhere)))],
    );
    let twice = Depth {
        injections: 2,
        ..Depth::RACE
    };
    caught(
        Planted::RowForgottenBeforeLogs,
        &script,
        twice,
        "whose create failed, is lost",
    );
}

#[test]
fn disk_not_grown() {
    caught(
        Planted::DiskNotGrown,
        &named("growth Everywhere"),
        Depth::ONCE,
        "is too short",
    );
}

#[test]
fn clone_made_by_copying() {
    caught(
        Planted::CloneMadeByCopying,
        &named("an image on another file system"),
        Depth::ONCE,
        "root.ext4 was copied",
    );
}

/// Every bug of the enum has its test here.
#[test]
fn none_is_forgotten() {
    let here = include_str!("planted_bugs.rs");
    for bug in Planted::ALL {
        assert!(here.contains(&format!("Planted::{bug:?},")), "{bug:?}");
    }
}
