//! Requests: each writes a goal, and nothing else of the VM's life. The goal is written first, then
//! the driver fires the running operation's cancel token, then takes the VM's lock (R-SVC-4).

use crate::{
    Change, Env, Error, Ledger, LedgerError, SelfDescription, Site, error::chain, lost,
    self_description, tree,
};
use banger_host::{ErrorKind, Host};
use banger_model::{
    ByteSize, Generation, Goal, Phase, Reason, ReasonKind, Role, Vm, VmId, VmName, VmRuntime,
    VmSpec,
};
use banger_plan::{LeaseBook, LeaseError, Planted, Pressure, lease, planted::planted, pressure};

/// What is asked of a new VM. Validated by its types; the id is the caller's random choice.
#[derive(Debug, Clone)]
pub struct NewVm {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// uid of the user who asks.
    pub owner_uid: u32,
    /// Shape.
    pub spec: VmSpec,
}

/// A goal that was written; a [`Convergence`](crate::Convergence) goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The VM.
    pub id: VmId,
    /// Its goal, counted.
    pub generation: Generation,
    /// False if the VM had this goal already.
    pub new: bool,
}

/// Why a request was refused, or failed before there was anything to converge.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No such VM.
    #[error("no VM has the id {0}")]
    NotFound(VmId),
    /// The name is taken, perhaps by a VM that is being deleted.
    #[error(
        "a VM called '{0}' exists already; enter it with `banger vm exec {0} -- sh`, or choose another name"
    )]
    AlreadyExists(VmName),
    /// No lease is free.
    #[error(transparent)]
    NoLease(#[from] LeaseError),
    /// The disk is (nearly) full (R-HOST-10).
    #[error("{} MiB are free below {dir}; a VM is created only with 1 GiB and 2 % free. Delete VMs or images, or free space", .free >> 20)]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Where.
        dir: String,
    },
    /// What was asked cannot be done from this phase.
    #[error("VM '{name}' {state}; {hint}")]
    Conflict {
        /// The VM.
        name: VmName,
        /// What it is doing.
        state: &'static str,
        /// What to do instead.
        hint: String,
    },
    /// A disk would lose what is at its end.
    #[error(
        "the {what} of VM '{name}' has {is} and cannot shrink to {wanted}; a new VM can have a smaller one"
    )]
    Shrinks {
        /// Which disk.
        what: &'static str,
        /// The VM.
        name: VmName,
        /// What it has.
        is: ByteSize,
        /// What was asked for.
        wanted: ByteSize,
    },
    /// Something failed; nothing of the request is left.
    #[error("the request could not be written")]
    Failed(#[source] Error),
    /// Something failed, and so did cleaning up after it.
    #[error("the request could not be written ({cause}), nor its remains removed")]
    LeftOver {
        /// The first error, whole chain.
        cause: String,
        /// The clean-up's.
        #[source]
        undo: Error,
    },
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        RequestError::Failed(error)
    }
}
impl From<banger_host::Error> for RequestError {
    fn from(error: banger_host::Error) -> Self {
        RequestError::Failed(error.into())
    }
}
impl From<LedgerError> for RequestError {
    fn from(error: LedgerError) -> Self {
        RequestError::Failed(error.into())
    }
}

/// Reserves name, leases and directory of a new VM; its goal is *running*. To be called under the
/// create lock. Refused requests leave nothing behind.
pub fn create<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    new: NewVm,
) -> Result<Accepted, RequestError> {
    room(env)?;
    let rows = env.ledger.vms()?;
    if rows.iter().any(|vm| vm.name == new.name) {
        return Err(RequestError::AlreadyExists(new.name));
    }
    let vm = first_row(env, new, &rows)?;
    let written = write_unborn(env, &vm).and_then(|()| Ok(env.ledger.insert(&vm)?));
    match written {
        Ok(()) => Ok(accepted(&vm, true)),
        Err(error) => Err(abandon(env, &vm, error)),
    }
}

/// Refuses when there is no room for another VM's disks (R-HOST-10).
pub fn room<H: Host, L, R>(env: &Env<'_, H, L, R>) -> Result<(), RequestError> {
    let dir = env.site.vms_dir();
    let (free, total) = env.host.disk_space(&dir)?;
    match pressure(free, total) {
        Pressure::Enough => Ok(()),
        Pressure::Full => Err(RequestError::DiskFull {
            free,
            dir: dir.display().to_string(),
        }),
    }
}

fn first_row<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    new: NewVm,
    rows: &[Vm],
) -> Result<Vm, RequestError> {
    let mut book = env.ledger.leases()?;
    // A lost VM may be alive, and is to be adopted with the lease it has.
    for lease in lost::leases(env, rows)? {
        book.addresses.insert(lease.ip);
        book.cids.insert(lease.cid);
    }
    if planted(Planted::DyingVmAddressReused) {
        forget_the_dying(&mut book, rows);
    }
    let lease = lease(&env.site.bridge.pool, new.id, &book)?;
    let now = env.host.now();
    Ok(Vm {
        runtime: paths(env.site, new.id, &new.name, &new.spec),
        id: new.id,
        name: new.name,
        owner_uid: new.owner_uid,
        goal: Goal::Running,
        generation: Generation::FIRST,
        phase: Phase::Creating,
        reason: None,
        spec: new.spec,
        lease,
        mirror: None,
        last_error: None,
        created_at: now,
        last_used_at: now,
    })
}

fn forget_the_dying(book: &mut LeaseBook, rows: &[Vm]) {
    for vm in rows.iter().filter(|vm| vm.goal == Goal::Absent) {
        book.addresses.remove(&vm.lease.ip);
        book.cids.remove(&vm.lease.cid);
    }
}

/// The paths of a VM, all deterministic.
fn paths(site: &Site, id: VmId, name: &VmName, spec: &VmSpec) -> VmRuntime {
    let dir = site.vm_dir(id);
    let data = spec.drivers.data_roles();
    let overlay = data.iter().find(|role| **role != Role::WorkDisk);
    let file = |role: Role| dir.join(role.file_name().unwrap_or_default());
    VmRuntime {
        api_socket: site.control_socket(id, Role::Vmm),
        vsock_path: site.agent_socket(id),
        log_path: site.console_log(id),
        metrics_path: None,
        dns_name: name.dns(),
        system_overlay: file(overlay.copied().unwrap_or(Role::OverlayDisk)),
        work_disk: file(Role::WorkDisk),
        vm_dir: dir,
    }
}

/// `vms/.creating-<id>/vm.json`, both durable before the row. Their name in `vms/` is so only when
/// the directory gets its own: a power loss before finds a VM still *creating*, which is rolled back.
fn write_unborn<H: Host, L, R>(env: &Env<'_, H, L, R>, vm: &Vm) -> Result<(), Error> {
    let dir = env.site.creating_dir(vm.id);
    let path = Site::self_description(&dir);
    env.host.mkdir(&dir)?;
    env.host.write(&path, &SelfDescription::of(vm).encode()?)?;
    env.host.sync_file(&path)?;
    env.host.sync_dir(&dir)?;
    Ok(())
}

/// Takes back a directory whose row was not written.
fn abandon<H: Host, L, R>(env: &Env<'_, H, L, R>, vm: &Vm, error: Error) -> RequestError {
    let refused = |error| match error {
        Error::Ledger(LedgerError::AlreadyExists(_)) => {
            RequestError::AlreadyExists(vm.name.clone())
        }
        error => RequestError::Failed(error),
    };
    if error.crashed() {
        return RequestError::Failed(error);
    }
    match tree::remove(env.host, &env.site.creating_dir(vm.id)) {
        Ok(()) => refused(error),
        Err(undo) => RequestError::LeftOver {
            cause: chain(&error),
            undo: undo.into(),
        },
    }
}

/// Asks a stopped VM to run.
pub fn start<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Accepted, RequestError> {
    decide(env, id, |vm| match (vm.goal, vm.phase) {
        (Goal::Absent, _) => Err(conflict(vm, "is being deleted", "choose another VM")),
        (_, Phase::Stopped) => Ok(Some(aim(Goal::Running, Phase::Starting))),
        (Goal::Running, Phase::Creating | Phase::Starting | Phase::Running) => Ok(None),
        (_, Phase::Error) => Err(conflict(vm, "is in phase error", &way_out(vm))),
        (_, _) => Err(conflict(
            vm,
            "is stopping",
            "start it again when it has stopped",
        )),
    })
}

/// Asks a VM to stop. How gracefully is the convergence's to be told.
pub fn stop<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Accepted, RequestError> {
    stop_because(env, id, |_| requested(Goal::Stopped))
}

/// The first half of a restart: a stop whose reason says so. A daemon that ends before the second half leaves a stopped
/// VM that tells what became of it; nobody has to write that down then.
pub fn stop_to_restart<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Accepted, RequestError> {
    stop_because(env, id, |vm| {
        Some(Reason {
            kind: ReasonKind::Interrupted,
            text: format!(
                "stopped by a restart that has not started it again; banger vm start {}",
                vm.name
            ),
        })
    })
}

fn stop_because<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    reason: impl Fn(&Vm) -> Option<Reason>,
) -> Result<Accepted, RequestError> {
    let to = |vm: &Vm, phase| {
        Some(Change {
            goal: Some(Goal::Stopped),
            phase: Some((phase, reason(vm))),
            ..Change::default()
        })
    };
    decide(env, id, |vm| match (vm.goal, vm.phase) {
        (Goal::Absent, _) => Err(conflict(vm, "is being deleted", "there is nothing to stop")),
        (Goal::Running, Phase::Creating) => Err(unborn(vm)),
        (Goal::Running, Phase::Starting) if vm.generation == Generation::FIRST => Err(unborn(vm)),
        (Goal::Stopped, Phase::Stopped | Phase::Stopping) => Ok(None),
        // Down already; only the goal is out of date, and that is what is asked for now.
        (_, Phase::Stopped) => Ok(to(vm, Phase::Stopped)),
        (_, _) => Ok(to(vm, Phase::Stopping)),
    })
}

/// Stops a VM that nobody uses, if it still runs and is `stale` at the moment of writing.
pub fn stop_unless_used<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    stale: &dyn Fn(&Vm) -> bool,
    reason: &Reason,
) -> Result<Accepted, RequestError> {
    decide(env, id, |vm| {
        let runs = (vm.goal, vm.phase) == (Goal::Running, Phase::Running);
        Ok((runs && stale(vm)).then(|| Change {
            goal: Some(Goal::Stopped),
            phase: Some((Phase::Stopping, Some(reason.clone()))),
            ..Change::default()
        }))
    })
}

/// Asks a VM to be gone, disks and all: writes the tombstone.
pub fn delete<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Accepted, RequestError> {
    if planted(Planted::TombstoneAfterFirstRemoval) {
        remove_a_disk_first(env, id)?;
    }
    decide(env, id, |vm| match vm.goal {
        Goal::Absent => Ok(None),
        Goal::Running | Goal::Stopped => Ok(Some(aim(Goal::Absent, Phase::Deleting))),
    })
}

/// The planted bug: the first removal comes before the tombstone.
fn remove_a_disk_first<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<(), RequestError> {
    match env.site.disk(id, Role::WorkDisk) {
        Some(path) if env.host.stat(&path)?.is_some() => Ok(env.host.unlink(&path)?),
        _ => Ok(()),
    }
}

/// What changes in a VM's present state; `None` if it is so already.
type Decision = Result<Option<Change>, RequestError>;

/// A goal, the phase on the way to it, and that somebody asked for it.
fn aim(goal: Goal, phase: Phase) -> Change {
    Change {
        goal: Some(goal),
        phase: Some((phase, requested(goal))),
        ..Change::default()
    }
}

/// Decides on the row as it is and writes what changes; decides again if another request came first.
pub(crate) fn decide<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    decision: impl Fn(&Vm) -> Decision,
) -> Result<Accepted, RequestError> {
    loop {
        let vm = env.ledger.vm(id)?.ok_or(RequestError::NotFound(id))?;
        let Some(change) = decision(&vm)? else {
            return Ok(accepted(&vm, false));
        };
        match write_goal(env, &vm, &change) {
            Ok(generation) => {
                return Ok(Accepted {
                    id,
                    generation,
                    new: true,
                });
            }
            // Each turn means that another request was accepted: this ends.
            Err(Error::Ledger(LedgerError::Stale { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a goal or a name: into `vm.json` first, then the row. A tombstone is the row alone: the file
/// `deleted` follows it, and `vm.json` never says *absent* of a VM whose row does not.
pub(crate) fn write_goal<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    change: &Change,
) -> Result<Generation, Error> {
    let next = change.apply(vm);
    let written = describe_next(env, &next, change.name.is_some())
        .and_then(|()| Ok(env.ledger.update(vm.id, vm.generation, change)?));
    match written {
        Ok(()) => Ok(next.generation),
        Err(error) => {
            if !error.superseded() && next.goal != Goal::Absent {
                // A refused request leaves the VM's words as they were. If this fails as well, any
                // later convergence mends them, so the first error is the one to tell.
                let _ = self_description::rewrite(env, vm);
            }
            Err(error)
        }
    }
}

/// Writes what is to come into `vm.json`.
fn describe_next<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    next: &Vm,
    renamed: bool,
) -> Result<(), Error> {
    match next.goal {
        Goal::Running => self_description::rewrite(env, next),
        Goal::Stopped if renamed => self_description::rewrite(env, next),
        Goal::Stopped => match self_description::rewrite(env, next) {
            // A full disk must not keep a VM from being stopped; an older `vm.json` is no harm.
            Err(Error::Host(error)) if error.kind == ErrorKind::NoSpace => Ok(()),
            written => written,
        },
        Goal::Absent => Ok(()),
    }
}

/// Gives a failed create or start the goal it falls back to, by compare-and-set: if a user's
/// request came first, theirs wins. The row alone: undoing must not depend on room for `vm.json`;
/// an older one is no harm.
pub(crate) fn fall_back<H, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    goal: Goal,
    phase: Phase,
    reason: Reason,
) -> Result<Generation, Error> {
    let change = Change {
        goal: Some(goal),
        last_error: Some(Some(reason.text.clone())),
        phase: Some((phase, Some(reason))),
        ..Change::default()
    };
    env.ledger.update(vm.id, vm.generation, &change)?;
    Ok(vm.generation.next())
}

fn requested(goal: Goal) -> Option<Reason> {
    let text = match goal {
        Goal::Running => return None,
        Goal::Stopped => "asked to stop",
        Goal::Absent => "asked to be deleted",
    };
    Some(Reason {
        kind: ReasonKind::Requested,
        text: text.to_owned(),
    })
}

pub(crate) const fn accepted(vm: &Vm, new: bool) -> Accepted {
    Accepted {
        id: vm.id,
        generation: vm.generation,
        new,
    }
}

pub(crate) fn conflict(vm: &Vm, state: &'static str, hint: &str) -> RequestError {
    RequestError::Conflict {
        name: vm.name.clone(),
        state,
        hint: hint.to_owned(),
    }
}

fn unborn(vm: &Vm) -> RequestError {
    let hint = format!("`banger vm delete {}` cancels that", vm.name);
    conflict(vm, "is being created", &hint)
}

/// What a person can do about a fenced VM: its reason says so.
pub(crate) fn way_out(vm: &Vm) -> String {
    match &vm.reason {
        Some(reason) => reason.text.clone(),
        None => format!("`banger vm stop {}` first", vm.name),
    }
}
