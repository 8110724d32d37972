//! What a daemon does first: intents of operations that died with the last one are rewritten, and
//! what nobody can own any more is swept. Then every VM converges as ever.

use crate::{Env, Error, Ledger, Lost, Recipes, lost, observe, request, sweep, views};
use banger_host::{ErrorKind, Host};
use banger_model::{
    Goal, Label, NetworkDriver, Phase, Reason, ReasonKind, Role, Vm, VmHandles, VmId,
};
use banger_plan::{HandlesSeen, Observed};

/// What recovery did and found.
#[derive(Debug, Default)]
pub struct Report {
    /// VMs whose interrupted create or start is now to be undone.
    pub rewritten: Vec<VmId>,
    /// VMs found alive and kept; their handles are in the cache.
    pub adopted: Vec<VmId>,
    /// VMs whose `handles.json` is damaged, and how.
    pub corrupt_handles: Vec<(VmId, String)>,
    /// Unfinished and given-up directories without a row, removed.
    pub swept_dirs: Vec<VmId>,
    /// Objects of VMs that have neither row nor directory, removed.
    pub swept_objects: Vec<Label>,
    /// Directories without a row: kept (R-STATE-10).
    pub lost: Vec<Lost>,
    /// Everything that failed; none of it kept the rest from being done.
    pub errors: Vec<Error>,
}

impl Report {
    /// Keeps an error and goes on, unless this process is dead.
    pub(crate) fn survive(&mut self, error: Error) -> Result<(), Error> {
        if error.crashed() {
            return Err(error);
        }
        self.errors.push(error);
        Ok(())
    }
}

/// Recovers one instance at the start of its daemon. Running it twice changes nothing. To be called
/// before any other operation; [`settle_all`](crate::settle_all) follows.
///
/// # Errors
/// The rows could not be read: then nothing was done, because without them nothing is known to be
/// unwanted. Every other failure is in the report.
pub fn recover<H: Host, L: Ledger, R: Recipes>(env: &Env<'_, H, L, R>) -> Result<Report, Error> {
    let mut report = Report::default();
    ensure_dirs(env)?;
    for vm in env.ledger.vms()? {
        if let Err(error) = recover_vm(env, &vm, &mut report) {
            report.survive(error)?;
        }
    }
    if let Err(error) = sweep::dirs(env, &mut report) {
        report.survive(error)?;
    }
    if let Err(error) = sweep::objects(env, &mut report) {
        report.survive(error)?;
    }
    match lost(env) {
        Ok(lost) => report.lost = lost,
        Err(error) => report.survive(error)?,
    }
    if let Err(error) = renew_views(env, &report) {
        report.survive(error)?;
    }
    Ok(report)
}

/// Views may list a VM whose row was lost, and its address may be leased again. Where no VM could
/// ever be in them the firewall is not asked: that takes a program, and rights.
fn renew_views<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    report: &Report,
) -> Result<(), Error> {
    let rows = env.ledger.vms()?;
    let on_bridge = |vm: &Vm| vm.spec.drivers.network == NetworkDriver::Bridge;
    let concerned = rows.iter().any(on_bridge) || report.lost.iter().any(|lost| lost.on_bridge);
    if concerned {
        views::publish(env)?;
    }
    Ok(())
}

/// The directories everything else stands in.
fn ensure_dirs<H: Host, L, R>(env: &Env<'_, H, L, R>) -> Result<(), Error> {
    let vms = env.site.vms_dir();
    match env.host.mkdir(&vms) {
        Ok(()) => env.host.sync_dir(&env.site.state_dir)?,
        Err(error) if error.kind == ErrorKind::Exists => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn recover_vm<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    report: &mut Report,
) -> Result<(), Error> {
    let seen = observe(env, vm)?;
    if let HandlesSeen::Corrupt(why) = &seen.handles {
        report.corrupt_handles.push((vm.id, why.clone()));
    }
    if let Some((goal, phase)) = interrupted(vm, &seen) {
        request::fall_back(env, vm, goal, phase, interruption())?;
        report.rewritten.push(vm.id);
    } else if seen.lives(Role::Vmm) {
        let handles: VmHandles = observe::handles_as_seen(env.site, vm, &seen);
        env.shared.handles.put(vm.id, handles);
        report.adopted.push(vm.id);
    }
    Ok(())
}

/// The goal that an interrupted operation falls back to. A start whose VMM lives is not
/// interrupted: its guest may still say hello.
fn interrupted(vm: &Vm, seen: &Observed) -> Option<(Goal, Phase)> {
    match (vm.goal, vm.phase) {
        (Goal::Running, Phase::Starting) if seen.may_live(Role::Vmm) => None,
        (Goal::Running, Phase::Creating | Phase::Starting) => banger_plan::rollback_goal(vm),
        _ => None,
    }
}

fn interruption() -> Reason {
    Reason {
        kind: ReasonKind::Interrupted,
        text: "the daemon ended while it was starting".to_owned(),
    }
}
