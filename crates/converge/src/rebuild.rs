//! `banger recover`: the database rebuilt from the directories (R-STATE-8).

use crate::{Env, Error, Ledger, LedgerError, Recipes, SelfDescription, observe, sweep};
use banger_host::Host;
use banger_model::{Goal, Phase, Role, Vm, VmId};
use banger_plan::lease;

/// What rebuilding did and could not do.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// VMs whose row was made anew, or was older than the directory.
    pub adopted: Vec<VmId>,
    /// Directories without a readable `vm.json`; kept as they are.
    pub unreadable: Vec<VmId>,
    /// VMs that could not be adopted, and why.
    pub failed: Vec<(VmId, Error)>,
}

/// Makes rows for the directories that have none, and renews rows that are older than the directory
/// says. Nothing is removed; a directory with a tombstone gets a row with one.
///
/// # Errors
/// The directories could not be listed.
pub fn recover_database<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
) -> Result<Rebuilt, Error> {
    let mut rebuilt = Rebuilt::default();
    for id in sweep::list_dirs(env)?.present {
        match adopt(env, id) {
            Ok(Adopted::Row) => rebuilt.adopted.push(id),
            Ok(Adopted::RowIsNewer) => {}
            Ok(Adopted::Unreadable) => rebuilt.unreadable.push(id),
            Err(error) if error.crashed() => return Err(error),
            Err(error) => rebuilt.failed.push((id, error)),
        }
    }
    Ok(rebuilt)
}

enum Adopted {
    Row,
    RowIsNewer,
    Unreadable,
}

fn adopt<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Adopted, Error> {
    let said = SelfDescription::read(env.host, &env.site.vm_dir(id))?;
    let Some(said) = said.filter(|said| said.id == id) else {
        return Ok(Adopted::Unreadable);
    };
    let row = env.ledger.vm(id)?;
    if row.is_some_and(|row| row.generation >= said.generation) {
        return Ok(Adopted::RowIsNewer);
    }
    let deleted = env.host.stat(&env.site.deleted_marker(id))?.is_some();
    let vm = if deleted {
        said.into_row(Goal::Absent, Phase::Deleting)
    } else {
        let goal = said.goal;
        let vm = said.into_row(goal, Phase::Stopping);
        // A VM that is up and was meant to be is left running.
        let alive = observe(env, &vm)?.may_live(Role::Vmm);
        let running = alive && goal == Goal::Running;
        let phase = if running {
            Phase::Running
        } else {
            Phase::Stopping
        };
        Vm { phase, ..vm }
    };
    match env.ledger.adopt(&vm) {
        Ok(true) => Ok(Adopted::Row),
        Ok(false) | Err(LedgerError::Stale { .. }) => Ok(Adopted::RowIsNewer),
        Err(error) => Err(error.into()),
    }
}

/// Writes the tombstone of a directory without a row; a [`Convergence`](crate::Convergence) of the
/// id then deletes it like any VM: what is on the host first, then the directory. To be called under
/// the create lock: where another VM has its name or lease by now, the tombstone gets others.
///
/// # Errors
/// There is no such directory, or it does not describe itself well enough to know what it owns.
pub fn delete_lost<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>, id: VmId) -> Result<(), Error> {
    let dir = env.site.vm_dir(id);
    let said = SelfDescription::read(env.host, &dir)?;
    let said = said
        .filter(|said| said.id == id)
        .ok_or(Error::NotDescribed { dir })?;
    let tombstone = said.into_row(Goal::Absent, Phase::Deleting);
    // A tombstone is a goal of its own: newer than all the directory knows.
    let generation = tombstone.generation.next();
    let mut tombstone = Vm {
        generation,
        ..tombstone
    };
    unlike_others(env, &mut tombstone)?;
    env.ledger.adopt(&tombstone)?;
    Ok(())
}

/// Gives a tombstone another name and lease where its own are taken: what it is for is found by the
/// label, and by neither of them.
fn unlike_others<H, L: Ledger, R>(env: &Env<'_, H, L, R>, tombstone: &mut Vm) -> Result<(), Error> {
    let rows = env.ledger.vms()?;
    let others = || rows.iter().filter(|vm| vm.id != tombstone.id);
    let name_taken = others().any(|vm| vm.name == tombstone.name);
    let lease_taken = others().any(|vm| {
        vm.lease.ip == tombstone.lease.ip
            || vm.lease.cid == tombstone.lease.cid
            || vm.lease.mac == tombstone.lease.mac
    });
    if name_taken && let Ok(name) = format!("lost-{}", tombstone.id).parse() {
        tombstone.name = name;
    }
    if lease_taken {
        let book = env.ledger.leases()?;
        // With none left the ledger's refusal tells.
        if let Ok(free) = lease(&env.site.bridge.pool, tombstone.id, &book) {
            tombstone.lease = free;
        }
    }
    Ok(())
}
