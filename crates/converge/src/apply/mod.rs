//! Applying one action. Every action is resumable: what is made already, or gone already, is no
//! error where looking and acting may have been interrupted between.

mod blocks;
mod dirs;
mod disks;
mod network;
mod processes;
mod rows;

use crate::{Convergence, Env, Error, Ledger, Recipes, Wait};
use banger_host::{Error as HostError, ErrorKind, Host};
use banger_model::{Role, Vm};
use banger_plan::Action;
use std::time::Duration;

/// How an action went.
pub(crate) enum Applied {
    Done,
    /// Begun; the driver waits for its end.
    Wait(Wait),
}

/// Applies one action of the plan for `vm`.
pub(crate) fn apply<H: Host, L: Ledger, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<Applied, Error> {
    let limits = &env.site.limits;
    match action {
        Action::AwaitReady => {
            return Ok(Applied::Wait(Wait::Ready {
                hello: limits.hello,
                ready: limits.ready,
            }));
        }
        Action::AskPowerOff => {
            return Ok(Applied::Wait(Wait::PowerOff {
                within: limits.power_off,
            }));
        }
        Action::Terminate(role) => return processes::terminate(at, env, vm, *role),
        _ => {}
    }
    match action {
        Action::EnterDir
        | Action::MarkDeleted
        | Action::MoveToTrash
        | Action::KeepLogs
        | Action::EmptyTrash
        | Action::MakeRuntimeDir
        | Action::ClearSockets
        | Action::RemoveRuntimeDir => dirs::apply(at, env, vm, action)?,
        Action::MakeDisk(role) => disks::make(env, vm, *role)?,
        Action::GrowDisk(role) => disks::grow(env, vm, *role)?,
        Action::SyncDir => disks::sync(env, vm)?,
        Action::AttachLoop(_)
        | Action::CreateDm
        | Action::LoadDm
        | Action::ResumeDm
        | Action::RemoveDm
        | Action::DetachLoop(_) => blocks::apply(at, env, vm, action)?,
        Action::CreateTap
        | Action::CreateBridge
        | Action::JoinBridge
        | Action::DeleteTap
        | Action::PublishViews => network::apply(at, env, vm, action)?,
        Action::CreateJail | Action::CreateCgroup | Action::RemoveJail | Action::RemoveCgroup => {
            processes::enclose(at, env, vm, action)?
        }
        Action::Spawn(role) => processes::spawn(at, env, vm, *role)?,
        Action::SeekProof(role) => processes::seek_proof(at, env, vm, *role)?,
        Action::Kill(role) => processes::kill(at, env, vm, *role)?,
        Action::SaveHandles
        | Action::ClearHandles
        | Action::SaveMirror
        | Action::SaveSelf
        | Action::ForgetRow
        | Action::SetPhase { .. } => rows::apply(at, env, vm, action)?,
        // Begun above; here for the compiler's count.
        Action::AwaitReady | Action::AskPowerOff | Action::Terminate(_) => {}
    }
    Ok(Applied::Done)
}

/// First pause between two tries on something busy; doubles up to the last (R-HOST-3).
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Tries again while the kernel says busy. Other errors end it at once.
pub(crate) fn while_busy<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    role: Role,
    mut effect: impl FnMut() -> Result<(), HostError>,
) -> Result<(), Error> {
    let within = env.site.limits.busy;
    let mut waited = Duration::ZERO;
    let mut pause = FIRST_PAUSE;
    loop {
        match effect() {
            Err(source) if source.kind == ErrorKind::Busy => {
                if waited >= within {
                    return Err(Error::StillBusy {
                        role,
                        within,
                        source,
                    });
                }
                env.host.sleep(pause);
                waited += pause;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            other => return Ok(crate::tree::gone(other)?),
        }
    }
}

/// The object an action needs, or the error that says which is missing.
fn needed<T>(object: Option<T>, role: Role) -> Result<T, Error> {
    object.ok_or(Error::Vanished(role))
}

/// Takes "it is there" for done.
fn there(result: Result<(), HostError>) -> Result<(), HostError> {
    match result {
        Err(error) if error.kind == ErrorKind::Exists => Ok(()),
        other => other,
    }
}
