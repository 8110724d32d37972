//! Sweeping what nobody can own: never a live object, never a foreign one, and never anything of a
//! VM that still has a directory (R-HOST-6, R-STATE-10).

use crate::{Env, Error, Ledger, apply::while_busy, recover::Report, site, tree};
use banger_host::Host;
use banger_model::{DmName, Label, Role, TapName, VmId};
use banger_plan::{Planted, planted::planted};
use std::collections::BTreeSet;

/// Directories of an instance's VMs by what their name says.
#[derive(Debug, Default)]
pub(crate) struct Dirs {
    /// `<id>`.
    pub present: BTreeSet<VmId>,
    /// `.creating-<id>`: no data yet.
    pub creating: BTreeSet<VmId>,
    /// `.trash-<id>`: given up.
    pub trash: BTreeSet<VmId>,
}

pub(crate) fn list_dirs<H: Host, L, R>(env: &Env<'_, H, L, R>) -> Result<Dirs, Error> {
    let mut dirs = Dirs::default();
    for name in env.host.list(&env.site.vms_dir())? {
        let (set, id) = if let Some(id) = name.strip_prefix(site::CREATING) {
            (&mut dirs.creating, id)
        } else if let Some(id) = name.strip_prefix(site::TRASH) {
            (&mut dirs.trash, id)
        } else {
            (&mut dirs.present, name.as_str())
        };
        set.extend(id.parse::<VmId>().ok());
    }
    Ok(dirs)
}

/// Ids of the rows.
pub(crate) fn row_ids<H, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<BTreeSet<VmId>, Error> {
    Ok(env.ledger.vms()?.iter().map(|vm| vm.id).collect())
}

/// Removes unfinished and given-up directories without a row, for the background loop; what failed
/// is returned and tried again the next time. To be called under the create lock: a directory comes
/// before its row.
///
/// # Errors
/// Listing failed, or this process is dead.
pub fn sweep_dirs<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<Vec<Error>, Error> {
    let mut report = Report::default();
    dirs(env, &mut report)?;
    Ok(report.errors)
}

pub(crate) fn dirs<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    report: &mut Report,
) -> Result<(), Error> {
    let found = list_dirs(env)?;
    let rows = row_ids(env)?;
    let unfinished = found
        .creating
        .iter()
        .map(|id| (id, env.site.creating_dir(*id)));
    let given_up = found.trash.iter().map(|id| (id, env.site.trash_dir(*id)));
    let planted_bug = found
        .present
        .iter()
        .filter(|_| planted(Planted::MissingRowDeletesDisk))
        .map(|id| (id, env.site.vm_dir(*id)));
    for (id, path) in unfinished.chain(given_up).chain(planted_bug) {
        if rows.contains(id) {
            continue;
        }
        match tree::remove(env.host, &path) {
            Ok(()) => report.swept_dirs.push(*id),
            Err(error) => report.survive(error.into())?,
        }
    }
    Ok(())
}

/// Removes kernel objects whose VM has neither row nor directory, in reverse role order.
pub(crate) fn objects<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    report: &mut Report,
) -> Result<(), Error> {
    let kept: BTreeSet<_> = list_dirs(env)?
        .present
        .into_iter()
        .chain(row_ids(env)?)
        .collect();
    let mut orphans: Vec<_> = labelled(env)?
        .into_iter()
        .filter(|found| ours(env, &found.label))
        .filter(|found| found.label.vm_id().is_some_and(|id| !kept.contains(&id)))
        .collect();
    orphans.sort_by_key(|found| (found.label.vm_id(), std::cmp::Reverse(found.label.role)));
    for found in orphans {
        match while_busy(env, found.label.role, || remove(env, &found)) {
            Ok(()) => report.swept_objects.push(found.label),
            Err(error) => report.survive(error)?,
        }
    }
    Ok(())
}

fn ours<H, L, R>(env: &Env<'_, H, L, R>, label: &Label) -> bool {
    label.instance == env.site.instance || planted(Planted::SweepOfAnotherInstance)
}

/// A labelled object of any instance.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its label.
    pub label: Label,
    /// Its number, if it is a loop device.
    number: Option<u32>,
}

/// Every labelled kernel object on the host.
pub(crate) fn labelled<H: Host, L, R>(env: &Env<'_, H, L, R>) -> Result<Vec<Found>, Error> {
    let host = env.host;
    let mut found = Vec::new();
    let mut add = |text: &str, number| {
        // What does not parse is foreign.
        found.extend(text.parse().ok().map(|label| Found { label, number }));
    };
    for device in host.loops()? {
        add(&device.label, Some(device.number));
    }
    for device in host.dms()? {
        add(&device.uuid, None);
    }
    for link in host.links()? {
        add(&link.alias, None);
    }
    for label in host.jails()?.into_iter().chain(host.cgroups()?) {
        found.push(Found {
            label,
            number: None,
        });
    }
    Ok(found)
}

fn remove<H: Host, L, R>(env: &Env<'_, H, L, R>, found: &Found) -> Result<(), banger_host::Error> {
    let label = &found.label;
    let Some(id) = label.vm_id() else {
        return Ok(());
    };
    match (label.role, found.number) {
        (_, Some(number)) => env.host.loop_detach(number, label),
        (Role::DmSnapshot, _) => env
            .host
            .dm_remove(&DmName::of_vm(label.instance, id), label),
        (Role::Tap, _) => env.host.link_delete(&TapName::of_vm(id), label),
        (Role::Jail, _) => env.host.jail_remove(label),
        (Role::Cgroup, _) => env.host.cgroup_remove(label),
        _ => Ok(()),
    }
}
