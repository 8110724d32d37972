//! What is written down: the row, `handles.json`, `vm.json`.

use crate::{Change, Convergence, Env, Error, Ledger, LedgerError, self_description, tree::gone};
use banger_host::{Host, state_file::temporary};
use banger_model::{Phase, Reason, Vm, VmHandles};
use banger_plan::Action;

pub(super) fn apply<H: Host, L: Ledger, R>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<(), Error> {
    match action {
        Action::SaveHandles => save_handles(at, env, vm),
        Action::ClearHandles => {
            gone(env.host.unlink(&env.site.handles(vm.id)))?;
            env.shared.handles.forget(vm.id);
            Ok(())
        }
        Action::SaveMirror => {
            let mirror = at.handles.as_ref().map(VmHandles::mirror);
            let change = Change {
                mirror: Some(mirror),
                ..Change::default()
            };
            update(env, vm, &change)
        }
        Action::SaveSelf => self_description::rewrite(env, vm),
        Action::ForgetRow => {
            match env.ledger.remove(vm.id, vm.generation) {
                Ok(()) | Err(LedgerError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            env.shared.handles.forget(vm.id);
            Ok(())
        }
        Action::SetPhase { phase, reason } => update(env, vm, &enter(*phase, reason.as_ref())),
        _ => Ok(()),
    }
}

fn update<H, L: Ledger, R>(env: &Env<'_, H, L, R>, vm: &Vm, change: &Change) -> Result<(), Error> {
    Ok(env.ledger.update(vm.id, vm.generation, change)?)
}

/// The change of phase, with what goes along with it.
fn enter(phase: Phase, reason: Option<&Reason>) -> Change {
    Change {
        phase: Some((phase, reason.cloned())),
        // Nothing is on the host that it could lead to (R-STATE-4).
        mirror: matches!(phase, Phase::Stopped | Phase::Error).then_some(None),
        last_error: (phase == Phase::Running).then_some(None),
        ..Change::default()
    }
}

/// Replaces `handles.json`, and then what is in memory (R-STATE-2). Its directory is not fsynced: a
/// power loss that undoes the rename ends the boot that the handles belong to.
fn save_handles<H: Host, L, R>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
) -> Result<(), Error> {
    let Some(handles) = &at.handles else {
        return Ok(());
    };
    let bytes = serde_json::to_vec_pretty(handles).map_err(|source| Error::Encode {
        what: "handles.json",
        source,
    })?;
    let path = env.site.handles(vm.id);
    let part = temporary(&path);
    env.host.write(&part, &bytes)?;
    env.host.sync_file(&part)?;
    env.host.rename(&part, &path)?;
    env.shared.handles.put(vm.id, handles.clone());
    Ok(())
}
