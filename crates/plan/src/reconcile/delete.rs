//! Delete: data dies here and only here, behind a tombstone in the row and one on disk.

use super::down;
use crate::{Action, DirSeen, Observed, Planted, planted::planted};
use banger_model::{ReasonKind, Role, Vm};

/// The plan for goal *absent*: marker → teardown → trash → row → unlink. There is no grace: what
/// the guest still wants to write is going to be deleted.
pub(super) fn plan(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    if seen.dir == DirSeen::Present && !seen.deleted_marker {
        actions.push(Action::MarkDeleted);
    }
    if let Some(role) = down::unproven(seen) {
        actions.push(Action::SeekProof(role));
        return actions;
    }
    if planted(Planted::RowDeletedBeforeDm) && seen.objects.contains_key(&Role::DmSnapshot) {
        actions.push(Action::ForgetRow);
    }
    actions.extend(down::teardown(vm, seen));
    if down::must_look_again(seen) {
        return actions;
    }
    actions.extend(bury(vm, seen));
    actions
}

/// The directory out of sight, then row and leases, then the files: from here on nothing can be
/// found half deleted. Logs that are to be kept leave the directory while there is a row to say so: what
/// has none is swept.
fn bury(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    if matches!(seen.dir, DirSeen::Present | DirSeen::Creating) {
        // Handles would only be unlinked with the rest; the directory goes as it is.
        actions.push(Action::MoveToTrash);
    }
    let keep = seen.dir != DirSeen::Missing && failed_to_come_up(vm);
    if keep && !planted(Planted::RowForgottenBeforeLogs) {
        actions.push(Action::KeepLogs);
    }
    actions.push(Action::ForgetRow);
    if keep && planted(Planted::RowForgottenBeforeLogs) {
        actions.push(Action::KeepLogs);
    }
    if seen.dir != DirSeen::Missing {
        actions.push(Action::EmptyTrash);
    }
    actions
}

/// A create that was undone, perhaps not at the first try; whoever wanted the VM wants to know why (R-HOST-7).
fn failed_to_come_up(vm: &Vm) -> bool {
    let kind = vm.reason.as_ref().map(|reason| reason.kind);
    matches!(
        kind,
        Some(ReasonKind::StartFailed | ReasonKind::Interrupted | ReasonKind::RollbackFailed)
    )
}
