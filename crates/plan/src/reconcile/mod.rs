//! What is to be done about one VM.

mod delete;
mod down;
mod up;

#[cfg(test)]
mod tests;

use crate::{Action, Observed, Planted, planted::planted};
use banger_model::{Generation, Goal, Phase, Reason, ReasonKind, Role, Vm};

/// The actions that bring one VM from what was seen to what its row asks for; empty when it is
/// there. Pure and total: every combination of row and observation has an answer.
///
/// The plan may end before the goal, at something that must be seen before more can be decided (a
/// guest that is ready, a death, a loop device that clears itself); the executor then looks again.
pub fn reconcile(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let actions = match (vm.goal, vm.phase) {
        (Goal::Absent, _) => return delete::plan(vm, seen),
        // Fenced: a person decides, by asking for stop or delete.
        (_, Phase::Error) => Vec::new(),
        (Goal::Running, Phase::Creating | Phase::Starting) => up::plan(vm, seen),
        (Goal::Running, Phase::Running) if seen.may_live(Role::Vmm) => keep(vm, seen),
        (Goal::Running | Goal::Stopped, _) => down::plan(vm, seen),
    };
    if actions.is_empty() {
        describe_itself(vm, seen)
    } else {
        actions
    }
}

/// A VM that runs as asked: only the record of it may want mending.
fn keep(vm: &Vm, seen: &Observed) -> Vec<Action> {
    if !seen.lives(Role::Vmm) {
        return vec![Action::SeekProof(Role::Vmm)];
    }
    let mut actions = Vec::new();
    if !up::handles_tell_processes(vm, seen) {
        actions.push(Action::SaveHandles);
    }
    if !seen.views_current {
        actions.push(Action::PublishViews);
    }
    actions
}

/// `vm.json` is written before the row; when another request won, or a crash came between, it says
/// what never came to be, and that is mended. That it is older than the row is no harm: a fall-back
/// and a stop on a full disk are in the row alone, and the newer of the two decides.
fn describe_itself(vm: &Vm, seen: &Observed) -> Vec<Action> {
    let sound = |said: &crate::SelfSeen| {
        said.generation < vm.generation
            || (said.generation == vm.generation && said.goal == vm.goal)
    };
    let here = seen.dir == crate::DirSeen::Present;
    if here && !seen.self_description.as_ref().is_some_and(sound) {
        vec![Action::SaveSelf]
    } else {
        Vec::new()
    }
}

/// The goal a failed operation falls back to, with the phase that goes with it. Only create and
/// start roll back; stop and delete go forward only (R-STATE-11).
pub fn rollback_goal(vm: &Vm) -> Option<(Goal, Phase)> {
    match (vm.goal, vm.phase) {
        (Goal::Running, Phase::Creating) => Some((Goal::Absent, Phase::Deleting)),
        // The first goal is the create's: its first boot is part of it, never acknowledged either.
        (Goal::Running, Phase::Starting) if vm.generation == Generation::FIRST => {
            Some((Goal::Absent, Phase::Deleting))
        }
        (Goal::Running, Phase::Starting) => Some((Goal::Stopped, Phase::Stopping)),
        (Goal::Stopped, _) if planted(Planted::StopRollsBack) => {
            Some((Goal::Running, Phase::Starting))
        }
        _ => None,
    }
}

/// A reason with its sentence.
pub(crate) fn because(kind: ReasonKind, text: &str) -> Option<Reason> {
    Some(Reason {
        kind,
        text: text.to_owned(),
    })
}
