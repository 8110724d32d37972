//! The VMM, its helper, and what encloses them.

use super::{Applied, blocks::made};
use crate::{Convergence, Env, Error, Recipes, Wait, observe, tree::gone};
use banger_host::{ErrorKind, Host, ProcessIdentity, Signal};
use banger_model::{ProcessHandle, Role, Vm};
use banger_plan::{Action, ObjectSeen, ProcessSeen};
use std::time::Duration;

pub(super) fn enclose<H: Host, L, R>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<(), Error> {
    let (host, jail, cgroup) = (
        env.host,
        env.site.label(vm.id, Role::Jail),
        env.site.label(vm.id, Role::Cgroup),
    );
    match action {
        Action::CreateJail => {
            host.jail_create(&jail)?;
            made(at, env, vm, Role::Jail, &ObjectSeen::Labelled);
        }
        Action::CreateCgroup => {
            host.cgroup_create(&cgroup)?;
            made(at, env, vm, Role::Cgroup, &ObjectSeen::Labelled);
        }
        Action::RemoveJail => gone(host.jail_remove(&jail))?,
        // A killed process leaves its cgroup a moment after it is dead.
        Action::RemoveCgroup => {
            super::while_busy(env, Role::Cgroup, || host.cgroup_remove(&cgroup))?;
        }
        _ => {}
    }
    Ok(())
}

/// Starts a process. The host refuses while the log's lock is held: one VMM per disk (R-HOST-8).
pub(super) fn spawn<H: Host, L, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let launch = env.recipes.launch(vm, role)?;
    for file in &launch.files {
        env.host.write(&file.path, &file.bytes)?;
    }
    let process = env.host.spawn(&launch.spec)?;
    if let Some(handles) = &mut at.handles {
        handles.processes.insert(role, process);
    }
    Ok(())
}

/// Waits until a process whose log is locked is proven, or is gone; the next look tells which. A
/// process just forked is neither for a moment.
pub(super) fn seek_proof<H: Host, L, R: Recipes>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let identity = identity(at, env, vm, role);
    let mut waited = Duration::ZERO;
    let mut pause = super::FIRST_PAUSE;
    while observe::process(env.host, &identity)? == Some(ProcessSeen::LockHeldUnproven) {
        if waited >= env.site.limits.proof {
            let log = identity.log;
            return Err(Error::Unproven { role, log });
        }
        env.host.sleep(pause);
        waited += pause;
        pause = (pause * 2).min(super::LAST_PAUSE);
    }
    Ok(())
}

/// Asks a process to end; the driver waits for it.
pub(super) fn terminate<H: Host, L, R: Recipes>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<Applied, Error> {
    let Some(process) = process(at, role) else {
        return Ok(Applied::Done);
    };
    let identity = identity(at, env, vm, role);
    gone(env.host.signal(&identity, process, Signal::Term))?;
    Ok(Applied::Wait(Wait::Exit {
        role,
        process,
        within: env.site.limits.terminate,
    }))
}

/// Kills a process and awaits its end; nothing under it is touched before.
pub(super) fn kill<H: Host, L, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let Some(process) = process(at, role) else {
        return Ok(());
    };
    let identity = identity(at, env, vm, role);
    match env.host.signal(&identity, process, Signal::Kill) {
        // Not that process now: it is dead already.
        Err(error) if error.kind == ErrorKind::NotFound => {}
        signalled => signalled?,
    }
    gone(
        env.host
            .await_exit(&identity, process, env.site.limits.kill),
    )?;
    if let Some(handles) = &mut at.handles {
        handles.processes.remove(&role);
    }
    Ok(())
}

/// The process as it was last seen or started.
fn process(at: &Convergence, role: Role) -> Option<ProcessHandle> {
    let handles = at.handles.as_ref()?;
    handles.processes.get(&role).copied()
}

fn identity<H, L, R: Recipes>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> ProcessIdentity {
    observe::identity(env.recipes, vm, role, at.handles.as_ref())
}
