//! Down: the one teardown, for stop, for a VMM that ended by itself, and for the undoing of a start.

use super::because;
use crate::{Action, DirSeen, DiskSeen, Grace, HandlesSeen, Observed, ProcessSeen, RuntimeDirSeen};
use banger_model::{Goal, Phase, Reason, ReasonKind, Role, Vm};

/// The plan for a VM that is to be down, whoever said so.
pub(super) fn plan(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let reason = reason(vm, seen);
    let mut actions = Vec::new();
    if !matches!(vm.phase, Phase::Stopping | Phase::Stopped) {
        // Said first: the views leave the VM out from here on.
        actions.push(Action::SetPhase {
            phase: Phase::Stopping,
            reason: reason.clone(),
        });
    }
    if let Some(pause) = ask_first(seen) {
        actions.push(pause);
        return actions;
    }
    actions.extend(teardown(vm, seen));
    if must_look_again(seen) {
        return actions;
    }
    if seen.handles != HandlesSeen::Missing {
        actions.push(Action::ClearHandles);
    }
    actions.extend(arrive(vm, seen, reason));
    actions
}

/// What has to happen, and be seen, before a live process may be killed.
fn ask_first(seen: &Observed) -> Option<Action> {
    if let Some(role) = unproven(seen) {
        return Some(Action::SeekProof(role));
    }
    match seen.grace {
        _ if !seen.lives(Role::Vmm) => None,
        Grace::Fresh => Some(Action::AskPowerOff),
        Grace::GuestSpent => Some(Action::Terminate(Role::Vmm)),
        Grace::Spent => None,
    }
}

/// A process whose log is locked but that is not proven (yet).
pub(super) fn unproven(seen: &Observed) -> Option<Role> {
    let mut processes = seen.processes.iter();
    processes
        .find(|(_, process)| **process == ProcessSeen::LockHeldUnproven)
        .map(|(role, _)| *role)
}

/// Processes killed, then everything of the VM that is on the host removed, in reverse role order
/// (R-HOST-2, R-HOST-4).
pub(super) fn teardown(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    for role in [Role::Vmm, Role::Helper] {
        if seen.lives(role) {
            actions.push(Action::Kill(role));
        }
    }
    if in_views(vm) || !seen.views_current {
        actions.push(Action::PublishViews);
    }
    actions.extend(
        seen.objects
            .keys()
            .rev()
            .filter_map(|role| removal(*role, seen)),
    );
    if seen.runtime_dir != RuntimeDirSeen::Missing {
        actions.push(Action::RemoveRuntimeDir);
    }
    actions
}

/// Whether the row, as it was when the machine was looked at, had the VM in the views.
fn in_views(vm: &Vm) -> bool {
    !crate::nat_pairs([vm]).is_empty()
}

fn removal(role: Role, seen: &Observed) -> Option<Action> {
    match role {
        Role::Cgroup => Some(Action::RemoveCgroup),
        Role::Jail => Some(Action::RemoveJail),
        Role::Tap => Some(Action::DeleteTap),
        Role::DmSnapshot => Some(Action::RemoveDm),
        // The dm device holds its loops; they clear themselves when it goes.
        Role::CowLoop | Role::BaseLoop if must_look_again(seen) => None,
        Role::CowLoop | Role::BaseLoop => Some(Action::DetachLoop(role)),
        // Files, views and processes are not among the labelled kernel objects.
        Role::CowFile
        | Role::OverlayDisk
        | Role::WorkDisk
        | Role::BridgePort
        | Role::NftView
        | Role::Helper
        | Role::Vmm => None,
    }
}

/// True when only looking after the teardown tells whether all is gone: loop devices under a dm
/// device clear themselves, or do not.
pub(super) fn must_look_again(seen: &Observed) -> bool {
    seen.objects.contains_key(&Role::DmSnapshot)
}

/// The phase a VM that is down ends in, unless it is there already.
fn arrive(vm: &Vm, seen: &Observed, reason: Option<Reason>) -> Option<Action> {
    if misses_data(vm, seen) {
        return Some(Action::SetPhase {
            phase: Phase::Error,
            reason: because(
                ReasonKind::DiskMissing,
                "a data disk is missing from its directory; put it back and stop the VM, or delete the VM",
            ),
        });
    }
    (vm.phase != Phase::Stopped).then_some(Action::SetPhase {
        phase: Phase::Stopped,
        reason,
    })
}

/// Whether data that must be there is not: half made counts as missing, a disk is whole before
/// phase *creating* ends.
pub(super) fn misses_data(vm: &Vm, seen: &Observed) -> bool {
    let mut roles = vm.spec.drivers.data_roles().into_iter();
    seen.dir != DirSeen::Present
        || roles.any(|role| seen.disks.get(&role) != Some(&DiskSeen::Whole))
}

/// Why the VM goes down: as the row says, or, if nobody asked, as it looks.
fn reason(vm: &Vm, seen: &Observed) -> Option<Reason> {
    if vm.goal != Goal::Running || vm.phase != Phase::Running {
        return vm.reason.clone();
    }
    match &seen.last_word {
        Some(reason) => Some(reason.clone()),
        None if of_another_boot(vm, seen) => {
            because(ReasonKind::HostReboot, "the host was rebooted under it")
        }
        None => because(
            ReasonKind::VmmExited,
            "its VMM ended by itself or was killed",
        ),
    }
}

fn of_another_boot(vm: &Vm, seen: &Observed) -> bool {
    match (&seen.handles, &vm.mirror) {
        (HandlesSeen::Present(handles), _) => handles.boot_id != seen.boot,
        (_, Some(mirror)) => mirror.boot_id != seen.boot,
        (_, None) => false,
    }
}
