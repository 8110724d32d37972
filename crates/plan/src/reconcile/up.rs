//! Up: from nothing, or from wherever a dead daemon left it, to a guest that is ready.

use super::{because, down};
use crate::{
    Action, AgentSeen, DirSeen, DiskSeen, DmStage, ObjectSeen, Observed, Planted, ProcessSeen,
    RuntimeDirSeen, planted::planted,
};
use banger_model::{Phase, ReasonKind, Role, Vm};

/// Roles whose identity goes into the mirror (R-STATE-4).
const MIRRORED: [Role; 4] = [Role::BaseLoop, Role::CowLoop, Role::DmSnapshot, Role::Tap];

/// The plan for goal *running* in phase *creating* or *starting*.
pub(super) fn plan(vm: &Vm, seen: &Observed) -> Vec<Action> {
    if vm.phase == Phase::Starting && down::misses_data(vm, seen) {
        // Never a new disk for one that is gone: back down, and then the phase says why.
        return down::plan(vm, seen);
    }
    if let Some(role) = down::unproven(seen) {
        return vec![Action::SeekProof(role)];
    }
    if seen.lives(Role::Vmm) && !planted(Planted::VmmSpawnedTwice) {
        return greet(vm, seen);
    }
    if seen.lives(Role::Vmm) && seen.agent == AgentSeen::Ready {
        return greet(vm, seen);
    }
    let mut actions = Vec::new();
    data(vm, seen, &mut actions);
    // Before anything holds them, and never under a VMM.
    let grown = seen.short.iter().map(|role| Action::GrowDisk(*role));
    actions.extend(grown.filter(|_| !planted(Planted::DiskNotGrown)));
    root_device(vm, seen, &mut actions);
    network(vm, seen, &mut actions);
    enclosure(vm, seen, &mut actions);
    processes(vm, seen, &mut actions);
    actions.push(Action::AwaitReady);
    actions
}

/// A live VMM: all that is missing is the guest's word that it is ready.
fn greet(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    if !handles_tell_processes(vm, seen) {
        actions.push(Action::SaveHandles);
    }
    if !seen.views_current {
        actions.push(Action::PublishViews);
    }
    actions.push(match seen.agent {
        AgentSeen::Silent => Action::AwaitReady,
        AgentSeen::Ready => Action::SetPhase {
            phase: Phase::Running,
            reason: because(ReasonKind::Requested, "the guest is up"),
        },
    });
    actions
}

/// The directory under its name and the data disks in it: only in phase *creating*.
fn data(vm: &Vm, seen: &Observed, actions: &mut Vec<Action>) {
    if vm.phase != Phase::Creating {
        return;
    }
    if seen.dir == DirSeen::Creating {
        actions.push(Action::EnterDir);
    }
    for role in vm.spec.drivers.data_roles() {
        // Half made is not made: the disk is begun anew.
        if seen.disks.get(&role) != Some(&DiskSeen::Whole) {
            actions.push(Action::MakeDisk(role));
        }
    }
    actions.push(Action::SyncDir);
    actions.push(Action::SetPhase {
        phase: Phase::Starting,
        reason: None,
    });
}

fn root_device(vm: &Vm, seen: &Observed, actions: &mut Vec<Action>) {
    if !vm.spec.drivers.roles().contains(&Role::DmSnapshot) {
        return;
    }
    let stage = match seen.objects.get(&Role::DmSnapshot) {
        Some(ObjectSeen::Dm(_, stage)) => Some(*stage),
        _ => None,
    };
    if stage < Some(DmStage::Loaded) {
        // A loaded table holds its loop devices; before, they have to be there.
        for role in [Role::BaseLoop, Role::CowLoop] {
            if !seen.objects.contains_key(&role) {
                recorded(Action::AttachLoop(role), actions);
            }
        }
    }
    if stage.is_none() {
        recorded(Action::CreateDm, actions);
    }
    if stage < Some(DmStage::Loaded) {
        actions.push(Action::LoadDm);
    }
    if stage < Some(DmStage::Live) {
        actions.push(Action::ResumeDm);
    }
}

fn network(vm: &Vm, seen: &Observed, actions: &mut Vec<Action>) {
    let roles = vm.spec.drivers.roles();
    if !roles.contains(&Role::Tap) {
        return;
    }
    let tap = seen.objects.get(&Role::Tap);
    if tap.is_none() {
        recorded(Action::CreateTap, actions);
    }
    if !seen.bridge {
        actions.push(Action::CreateBridge);
    }
    if !matches!(tap, Some(ObjectSeen::Tap(_, Some(_)))) {
        actions.push(Action::JoinBridge);
    }
    // The row asks for it only since *starting*, so what was seen before says nothing about it.
    actions.push(Action::PublishViews);
}

/// What surrounds the VMM: jail, cgroup, the directory of its sockets.
fn enclosure(vm: &Vm, seen: &Observed, actions: &mut Vec<Action>) {
    let roles = vm.spec.drivers.roles();
    for (role, action) in [
        (Role::Jail, Action::CreateJail),
        (Role::Cgroup, Action::CreateCgroup),
    ] {
        if roles.contains(&role) && !seen.objects.contains_key(&role) {
            actions.push(action);
        }
    }
    match seen.runtime_dir {
        RuntimeDirSeen::Missing => actions.push(Action::MakeRuntimeDir),
        RuntimeDirSeen::Occupied => actions.push(Action::ClearSockets),
        RuntimeDirSeen::Empty => {}
    }
}

fn processes(vm: &Vm, seen: &Observed, actions: &mut Vec<Action>) {
    let roles = vm.spec.drivers.roles();
    if MIRRORED.iter().any(|role| roles.contains(role)) {
        actions.push(Action::SaveMirror);
    }
    for role in roles.into_iter().filter(|role| role.is_process()) {
        if !seen.lives(role) || planted(Planted::VmmSpawnedTwice) {
            recorded(Action::Spawn(role), actions);
        }
    }
}

/// An action whose result is written down at once (R-HOST-1).
fn recorded(action: Action, actions: &mut Vec<Action>) {
    actions.extend([action, Action::SaveHandles]);
}

/// Whether `handles.json` tells the very processes that live.
pub(super) fn handles_tell_processes(vm: &Vm, seen: &Observed) -> bool {
    let Some(handles) = seen.valid_handles() else {
        return false;
    };
    let roles = vm.spec.drivers.roles().into_iter();
    roles
        .filter(|role| role.is_process())
        .all(|role| match seen.processes.get(&role) {
            Some(ProcessSeen::Alive(alive)) => handles.processes.get(&role) == Some(alive),
            _ => true,
        })
}
