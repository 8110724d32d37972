//! Requests about a VM that nothing is being done to: a new name, another network, and the removal of one that is down.

use crate::{
    Change, Env, Error, Ledger, LedgerError,
    request::{Accepted, RequestError, conflict, decide},
};
use banger_host::Host;
use banger_model::{Goal, Phase, Reason, ReasonKind, Vm, VmId, VmName, VmSpec};

/// Gives a VM another name; its goal stays. It has it from now on, its guest from the next start.
///
/// To be called under the create lock: names are reserved there. A VM on its way is refused, for a new generation
/// would make its operation begin anew.
pub fn rename<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    name: &VmName,
) -> Result<Accepted, RequestError> {
    let taken = |vm: &Vm| vm.id != id && vm.name == *name;
    if env.ledger.vms()?.iter().any(taken) {
        return Err(RequestError::AlreadyExists(name.clone()));
    }
    let renamed = decide(env, id, |vm| {
        at_rest(vm)?;
        Ok((vm.name != *name).then(|| Change {
            name: Some(name.clone()),
            ..Change::default()
        }))
    });
    match renamed {
        Err(RequestError::Failed(Error::Ledger(LedgerError::AlreadyExists(_)))) => {
            Err(RequestError::AlreadyExists(name.clone()))
        }
        other => other,
    }
}

/// Says whether a guest is to reach beyond the host; its goal stays. What runs is brought to that by whoever asked.
///
/// A VM on its way is refused, as for a name.
pub fn set_nat<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    nat: bool,
) -> Result<Accepted, RequestError> {
    decide(env, id, |vm| {
        at_rest(vm)?;
        Ok((vm.spec.nat != nat).then(|| Change {
            goal: Some(vm.goal),
            spec: Some(VmSpec {
                nat,
                ..vm.spec.clone()
            }),
            ..Change::default()
        }))
    })
}

/// Asks a VM that is stopped, and `free` at the moment of writing, to be gone, disks and all. One that was started meanwhile, or is fenced, is refused: it is
/// for who clears up, and nobody looked at it since.
pub fn delete_stopped<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    free: &dyn Fn() -> bool,
) -> Result<Accepted, RequestError> {
    decide(env, id, |vm| match (vm.goal, vm.phase) {
        (Goal::Absent, _) => Ok(None),
        (_, Phase::Stopped) if !free() => Err(conflict(
            vm,
            "is being restarted, or files are copied from it",
            "it stays; when that has ended: banger vm prune",
        )),
        (_, Phase::Stopped) => Ok(Some(Change {
            goal: Some(Goal::Absent),
            phase: Some((
                Phase::Deleting,
                Some(Reason {
                    kind: ReasonKind::Requested,
                    text: "cleared away while it was stopped".to_owned(),
                }),
            )),
            ..Change::default()
        })),
        (_, _) => Err(conflict(vm, "is not stopped", "it stays")),
    })
}

/// Whether a VM is on its way nowhere.
///
/// # Errors
/// It is, with what it does.
pub(crate) fn at_rest(vm: &Vm) -> Result<(), RequestError> {
    let doing = match (vm.goal, vm.phase) {
        (Goal::Absent, _) | (_, Phase::Deleting) => "is being deleted",
        (_, Phase::Creating) => "is being created",
        (_, Phase::Starting) => "is starting",
        (_, Phase::Stopping) => "is stopping",
        (_, Phase::Running | Phase::Stopped | Phase::Error) => return Ok(()),
    };
    Err(conflict(vm, doing, "try again when it has settled"))
}
