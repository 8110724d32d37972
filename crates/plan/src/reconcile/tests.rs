//! What must hold of every plan, and what plans look like.

use crate::{
    Action, AgentSeen, DirSeen, DiskSeen, Grace, ObjectSeen, Observed, Planted, ProcessSeen,
    RuntimeDirSeen, SelfSeen, explain,
    fixtures::{EVERYTHING, any_situation, boot, down, object, up, vm},
    planted::with_planted,
    reconcile,
    reconcile::because,
    rollback_goal,
};
use banger_model::{
    BootId, DmName, Drivers, Generation, Goal, Phase, ReasonKind, Role, Vm, VmHandles,
};
use proptest::prelude::*;

/// A world as coarse as a plan sees it: applies an action to row and observation, as if it had
/// succeeded. What it refuses, the kernel would refuse.
struct World {
    vm: Vm,
    seen: Observed,
    row: bool,
}

impl World {
    fn apply(&mut self, action: &Action) {
        let objects = &mut self.seen.objects;
        match action {
            Action::EnterDir => self.seen.dir = DirSeen::Present,
            Action::MakeDisk(role) => {
                assert_eq!(
                    self.vm.phase,
                    Phase::Creating,
                    "data is made only in creating"
                );
                let before = self.seen.disks.insert(*role, DiskSeen::Whole);
                assert_ne!(before, Some(DiskSeen::Whole), "made over data");
            }
            Action::GrowDisk(role) => {
                assert!(!self.seen.may_live(Role::Vmm), "grown under a VMM");
                assert!(self.seen.short.remove(role), "grown without need");
            }
            Action::AttachLoop(role) => {
                objects.insert(*role, object(&self.vm, *role).unwrap());
            }
            Action::CreateDm => self.dm(crate::DmStage::Created),
            Action::LoadDm => {
                for role in [Role::BaseLoop, Role::CowLoop] {
                    assert!(objects.contains_key(&role), "table without {role}");
                }
                self.dm(crate::DmStage::Loaded);
            }
            Action::ResumeDm => self.dm(crate::DmStage::Live),
            Action::CreateTap => {
                let name = banger_model::TapName::of_vm(self.vm.id);
                objects.insert(Role::Tap, ObjectSeen::Tap(name, None));
            }
            Action::CreateBridge => self.seen.bridge = true,
            Action::JoinBridge => {
                assert!(self.seen.bridge, "no bridge to join");
                objects.insert(Role::Tap, object(&self.vm, Role::Tap).unwrap());
            }
            Action::PublishViews => self.seen.views_current = true,
            Action::CreateJail => drop(objects.insert(Role::Jail, ObjectSeen::Labelled)),
            Action::CreateCgroup => drop(objects.insert(Role::Cgroup, ObjectSeen::Labelled)),
            Action::MakeRuntimeDir | Action::ClearSockets => {
                self.seen.runtime_dir = RuntimeDirSeen::Empty;
            }
            Action::Spawn(role) => self.spawn(*role),
            Action::AwaitReady => self.seen.agent = AgentSeen::Ready,
            Action::SaveHandles => {
                let mut handles = VmHandles::none(boot());
                for (role, process) in &self.seen.processes {
                    if let ProcessSeen::Alive(process) = process {
                        handles.processes.insert(*role, *process);
                    }
                }
                self.seen.handles = crate::HandlesSeen::Present(handles);
            }
            Action::SaveSelf => {
                self.seen.self_description = Some(SelfSeen {
                    generation: self.vm.generation,
                    goal: self.vm.goal,
                });
            }
            Action::SeekProof(role) | Action::Kill(role) => {
                self.seen.processes.remove(role);
            }
            Action::AskPowerOff => self.seen.grace = Grace::GuestSpent,
            Action::Terminate(_) => self.seen.grace = Grace::Spent,
            Action::RemoveCgroup => self.remove(Role::Cgroup),
            Action::RemoveJail => self.remove(Role::Jail),
            Action::DeleteTap => self.remove(Role::Tap),
            Action::RemoveDm => {
                self.remove(Role::DmSnapshot);
                // AUTOCLEAR.
                self.seen.objects.remove(&Role::BaseLoop);
                self.seen.objects.remove(&Role::CowLoop);
            }
            Action::DetachLoop(role) => self.remove(*role),
            Action::RemoveRuntimeDir => self.seen.runtime_dir = RuntimeDirSeen::Missing,
            Action::ClearHandles => self.seen.handles = crate::HandlesSeen::Missing,
            Action::MarkDeleted => self.seen.deleted_marker = true,
            Action::MoveToTrash => {
                assert!(
                    self.seen.deleted_marker || self.seen.dir == DirSeen::Creating,
                    "data given up without a tombstone on disk"
                );
                self.all_gone();
                self.seen.dir = DirSeen::Trash;
                self.seen.disks.clear();
            }
            Action::ForgetRow => {
                self.all_gone();
                assert_ne!(self.seen.dir, DirSeen::Present, "row gone before its data");
                self.row = false;
            }
            Action::EmptyTrash => self.seen.dir = DirSeen::Missing,
            Action::SetPhase { phase, reason } => {
                self.vm.phase = *phase;
                self.vm.reason.clone_from(reason);
            }
            Action::SyncDir | Action::SaveMirror | Action::KeepLogs => {}
        }
    }

    fn dm(&mut self, stage: crate::DmStage) {
        let name = DmName::of_vm(crate::fixtures::INSTANCE, self.vm.id);
        let dm = ObjectSeen::Dm(name, stage);
        self.seen.objects.insert(Role::DmSnapshot, dm);
    }

    fn spawn(&mut self, role: Role) {
        assert!(!self.seen.may_live(role), "a second {role}");
        let roles = self.vm.spec.drivers.roles();
        for needed in roles.into_iter().filter(|needed| *needed < role) {
            let there = match (needed, self.seen.objects.get(&needed)) {
                _ if needed.is_data() => self.seen.disks.get(&needed) == Some(&DiskSeen::Whole),
                (Role::BridgePort, _) => {
                    let tap = self.seen.objects.get(&Role::Tap);
                    matches!(tap, Some(ObjectSeen::Tap(_, Some(_))))
                }
                (Role::NftView, _) => self.seen.views_current,
                (Role::Helper, _) => self.seen.lives(Role::Helper),
                (Role::DmSnapshot, Some(ObjectSeen::Dm(_, stage))) => {
                    *stage == crate::DmStage::Live
                }
                // A live table holds them; whether they are seen besides does not matter.
                (Role::BaseLoop | Role::CowLoop, _) => true,
                (_, object) => object.is_some(),
            };
            assert!(there, "{role} started without {needed}");
        }
        assert_eq!(self.seen.runtime_dir, RuntimeDirSeen::Empty);
        let process = banger_model::ProcessHandle {
            pid: 9,
            start_time: 9,
        };
        let process = ProcessSeen::Alive(process);
        self.seen.processes.insert(role, process);
        if role == Role::Vmm {
            self.seen.runtime_dir = RuntimeDirSeen::Empty;
        }
    }

    fn remove(&mut self, role: Role) {
        for process in [Role::Vmm, Role::Helper] {
            assert!(
                !self.seen.may_live(process),
                "{role} removed under the {process}"
            );
        }
        assert!(
            self.seen.objects.remove(&role).is_some(),
            "{role} is not there"
        );
    }

    fn all_gone(&self) {
        assert!(self.seen.objects.is_empty(), "{:?}", self.seen.objects);
        for process in [Role::Vmm, Role::Helper] {
            assert!(!self.seen.may_live(process));
        }
    }

    /// Plans and applies until there is nothing left; the plans, in a row.
    fn settle(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let plan = reconcile(&self.vm, &self.seen);
            if plan.is_empty() || !self.row {
                return all;
            }
            for action in plan {
                self.apply(&action);
                all.push(action);
            }
        }
        panic!("no end: {all:#?}");
    }
}

fn settled(vm: Vm, seen: Observed) -> (World, Vec<Action>) {
    let mut world = World {
        vm,
        seen,
        row: true,
    };
    let actions = world.settle();
    (world, actions)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    /// From anywhere there is an end; and data is made only in creating, removed only behind the
    /// tombstone, nothing is removed under a live process (the world asserts it).
    /// R-HOST-2: whatever is found, whoever wants it down: the one teardown leaves nothing.
    #[test]
    fn every_situation_settles((vm, mut seen) in any_situation()) {
        // A guest that does not get ready is the executor's business; here it always does. A
        // directory that vanished under a create is an error the kernel reports.
        if vm.goal == Goal::Running && vm.phase == Phase::Creating
            && !matches!(seen.dir, DirSeen::Creating | DirSeen::Present) {
            seen.dir = DirSeen::Creating;
        }
        if seen.dir != DirSeen::Present {
            seen.disks.clear();
            seen.deleted_marker = false;
        }
        let (goal, phase) = (vm.goal, vm.phase);
        let (world, _) = settled(vm, seen);
        match (goal, phase) {
            (Goal::Absent, _) => {
                prop_assert!(!world.row);
                prop_assert_eq!(world.seen.dir, DirSeen::Missing);
            }
            (_, Phase::Error) => prop_assert_eq!(world.vm.phase, Phase::Error),
            _ => {
                prop_assert!(matches!(world.vm.phase, Phase::Running | Phase::Stopped | Phase::Error));
                prop_assert_eq!(world.vm.phase == Phase::Running, world.seen.lives(Role::Vmm));
                if world.vm.phase != Phase::Running {
                    world.all_gone();
                    prop_assert_eq!(world.seen.runtime_dir, RuntimeDirSeen::Missing);
                }
            }
        }
    }

    /// Only a tombstone removes data, whatever was seen.
    #[test]
    fn without_a_tombstone_nothing_is_given_up((vm, seen) in any_situation()) {
        let plan = reconcile(&vm, &seen);
        let gives_up = |a: &Action| matches!(
            a, Action::MarkDeleted | Action::MoveToTrash | Action::ForgetRow | Action::EmptyTrash
        );
        prop_assert!(vm.goal == Goal::Absent || !plan.iter().any(gives_up), "{:?}", plan);
    }

    /// Stop and delete never go back; a rollback only goes down.
    #[test]
    fn only_create_and_start_roll_back((vm, _) in any_situation()) {
        match rollback_goal(&vm) {
            None => {}
            Some((goal, _)) => {
                prop_assert_eq!(vm.goal, Goal::Running);
                prop_assert!(matches!(vm.phase, Phase::Creating | Phase::Starting));
                let unacknowledged = vm.phase == Phase::Creating || vm.generation == Generation::FIRST;
                prop_assert_eq!(goal, if unacknowledged { Goal::Absent } else { Goal::Stopped });
            }
        }
    }

    /// Every action reads as one sentence.
    #[test]
    fn actions_are_sentences((vm, seen) in any_situation()) {
        for action in reconcile(&vm, &seen) {
            let text = explain(&action);
            prop_assert!(text.ends_with('.') && text.starts_with(char::is_uppercase), "{}", text);
        }
    }
}

fn creating(drivers: Drivers) -> (Vm, Observed) {
    let vm = Vm {
        phase: Phase::Creating,
        generation: Generation::FIRST,
        ..vm(1, drivers)
    };
    let seen = Observed {
        dir: DirSeen::Creating,
        ..Observed::nothing(boot())
    };
    (vm, seen)
}

fn started() -> Action {
    Action::SetPhase {
        phase: Phase::Starting,
        reason: None,
    }
}

#[test]
fn the_plainest_create() {
    let (vm, seen) = creating(Drivers::EVERYWHERE);
    assert_eq!(
        reconcile(&vm, &seen),
        [
            Action::EnterDir,
            Action::MakeDisk(Role::OverlayDisk),
            Action::MakeDisk(Role::WorkDisk),
            Action::SyncDir,
            started(),
            Action::MakeRuntimeDir,
            Action::Spawn(Role::Vmm),
            Action::SaveHandles,
            Action::AwaitReady,
        ]
    );
}

/// R-HOST-1.
#[test]
fn every_object_is_written_down_as_it_is_made() {
    let (vm, mut seen) = creating(EVERYTHING);
    seen.bridge = false;
    let plan = reconcile(&vm, &seen);
    for (i, action) in plan.iter().enumerate() {
        let kernel_named = matches!(
            action,
            Action::AttachLoop(_) | Action::CreateDm | Action::CreateTap | Action::Spawn(_)
        );
        assert!(
            !kernel_named || plan[i + 1] == Action::SaveHandles,
            "{action:?}"
        );
    }
    let at = |wanted: &Action| plan.iter().position(|a| a == wanted).unwrap();
    assert!(at(&Action::SaveMirror) < at(&Action::Spawn(Role::Vmm)));
    assert!(at(&Action::PublishViews) < at(&Action::Spawn(Role::Vmm)));
    assert!(at(&Action::Spawn(Role::Helper)) < at(&Action::Spawn(Role::Vmm)));
}

#[test]
fn what_runs_as_asked_is_left_alone() {
    for drivers in [Drivers::EVERYWHERE, EVERYTHING] {
        let vm = vm(1, drivers);
        assert_eq!(reconcile(&vm, &up(&vm)), []);
    }
}

#[test]
fn a_graceful_stop_asks_twice_before_it_kills() {
    let vm = Vm {
        goal: Goal::Stopped,
        phase: Phase::Stopping,
        ..vm(1, EVERYTHING)
    };
    let (world, actions) = settled(vm.clone(), up(&vm));
    assert_eq!(world.vm.phase, Phase::Stopped);
    assert_eq!(
        actions,
        [
            Action::AskPowerOff,
            Action::Terminate(Role::Vmm),
            Action::Kill(Role::Vmm),
            Action::Kill(Role::Helper),
            Action::RemoveCgroup,
            Action::RemoveJail,
            Action::DeleteTap,
            Action::RemoveDm,
            Action::RemoveRuntimeDir,
            Action::ClearHandles,
            Action::SetPhase {
                phase: Phase::Stopped,
                reason: None
            },
        ]
    );
}

#[test]
fn a_vmm_that_ended_by_itself_means_stopped_with_the_reason_kept() {
    let vm = vm(1, EVERYTHING);
    let mut seen = up(&vm);
    seen.processes.clear();
    let cases = [
        (None, boot(), ReasonKind::VmmExited),
        (None, BootId("before".to_owned()), ReasonKind::HostReboot),
        (
            because(ReasonKind::GuestPowerOff, "it powered off"),
            boot(),
            ReasonKind::GuestPowerOff,
        ),
        (
            because(ReasonKind::GuestPanic, "it panicked"),
            BootId("before".to_owned()),
            ReasonKind::GuestPanic,
        ),
    ];
    for (last_word, of_boot, expected) in cases {
        let mut seen = seen.clone();
        seen.last_word = last_word;
        seen.handles = crate::HandlesSeen::Present(VmHandles::none(of_boot));
        let (world, actions) = settled(vm.clone(), seen);
        assert_eq!(world.vm.phase, Phase::Stopped);
        assert_eq!(
            world.vm.goal,
            Goal::Running,
            "never restarted, never rewritten"
        );
        assert_eq!(world.vm.reason.map(|r| r.kind), Some(expected));
        // Out of the views before anything of it is gone.
        assert!(matches!(
            actions[0],
            Action::SetPhase {
                phase: Phase::Stopping,
                ..
            }
        ));
        assert_eq!(actions[1], Action::PublishViews);
    }
}

#[test]
fn a_missing_disk_is_an_error_and_never_a_new_disk() {
    for (goal, phase) in [
        (Goal::Running, Phase::Starting),
        (Goal::Stopped, Phase::Stopping),
        (Goal::Running, Phase::Running),
    ] {
        for left in [None, Some(DiskSeen::Part)] {
            let vm = Vm {
                goal,
                phase,
                ..vm(1, Drivers::EVERYWHERE)
            };
            let mut seen = down(&vm);
            seen.disks.remove(&Role::WorkDisk);
            seen.disks.extend(left.map(|part| (Role::WorkDisk, part)));
            let (world, _) = settled(vm, seen);
            assert_eq!(world.vm.phase, Phase::Error);
            assert_eq!(world.vm.reason.unwrap().kind, ReasonKind::DiskMissing);
        }
    }
}

#[test]
fn half_a_disk_is_begun_anew() {
    let (vm, mut seen) = creating(Drivers::EVERYWHERE);
    seen.dir = DirSeen::Present;
    seen.disks.insert(Role::OverlayDisk, DiskSeen::Whole);
    seen.disks.insert(Role::WorkDisk, DiskSeen::Part);
    let plan = reconcile(&vm, &seen);
    assert_eq!(plan[0], Action::MakeDisk(Role::WorkDisk));
    assert!(!plan.contains(&Action::MakeDisk(Role::OverlayDisk)));
}

#[test]
fn delete_puts_the_tombstone_before_and_the_row_after_everything() {
    let vm = Vm {
        goal: Goal::Absent,
        phase: Phase::Deleting,
        ..vm(1, EVERYTHING)
    };
    let (_, actions) = settled(vm.clone(), up(&vm));
    assert_eq!(actions[..2], [Action::MarkDeleted, Action::Kill(Role::Vmm)]);
    assert_eq!(
        actions[actions.len() - 3..],
        [Action::MoveToTrash, Action::ForgetRow, Action::EmptyTrash]
    );
}

/// R-HOST-7: before the row goes, for a directory without a row is swept.
#[test]
fn a_failed_create_keeps_its_logs() {
    let why = [
        ReasonKind::StartFailed,
        ReasonKind::Interrupted,
        // Undoing it failed too, and is tried again.
        ReasonKind::RollbackFailed,
    ];
    for (kind, kept) in why
        .map(|kind| (kind, true))
        .into_iter()
        .chain([(ReasonKind::Requested, false)])
    {
        let vm = Vm {
            goal: Goal::Absent,
            phase: Phase::Deleting,
            reason: because(kind, "no hello"),
            ..vm(1, Drivers::EVERYWHERE)
        };
        let plan = reconcile(&vm, &down(&vm));
        let tail = [Action::KeepLogs, Action::ForgetRow, Action::EmptyTrash];
        assert_eq!(plan.ends_with(&tail), kept, "{kind:?}: {plan:?}");
        assert!(plan.ends_with(&tail[1..]), "{kind:?}: {plan:?}");
        // Found again after a crash in between: what is left of it is kept too.
        let mut seen = down(&vm);
        seen.dir = DirSeen::Trash;
        assert_eq!(
            reconcile(&vm, &seen),
            tail[usize::from(!kept)..],
            "{kind:?}"
        );
    }
}

#[test]
fn a_self_description_of_the_loser_is_mended() {
    let vm = Vm {
        goal: Goal::Stopped,
        phase: Phase::Stopped,
        ..vm(1, Drivers::EVERYWHERE)
    };
    let mut seen = down(&vm);
    assert_eq!(reconcile(&vm, &seen), []);
    let said = |generation, goal| Some(SelfSeen { generation, goal });
    for (found, mended) in [
        (None, true),
        (said(vm.generation, Goal::Running), true),
        (said(vm.generation.next(), Goal::Stopped), true),
        (said(Generation(1), Goal::Running), false),
    ] {
        seen.self_description = found;
        let expected = if mended {
            vec![Action::SaveSelf]
        } else {
            vec![]
        };
        assert_eq!(reconcile(&vm, &seen), expected, "{found:?}");
    }
}

#[test]
fn these_tests_see_planted_bugs() {
    let deleting = Vm {
        goal: Goal::Absent,
        phase: Phase::Deleting,
        ..vm(1, EVERYTHING)
    };
    let starting = Vm {
        phase: Phase::Starting,
        ..vm(1, Drivers::EVERYWHERE)
    };
    for (bug, vm) in [
        (Planted::RowDeletedBeforeDm, deleting),
        (Planted::VmmSpawnedTwice, starting),
    ] {
        let seen = up(&vm);
        let caught = std::panic::catch_unwind(|| with_planted(bug, || settled(vm, seen)).1);
        assert!(caught.is_err(), "{bug:?} went unseen: {caught:?}");
    }
}
