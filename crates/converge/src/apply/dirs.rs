//! Birth and death of directories.

use crate::{Convergence, Env, Error, tree};
use banger_host::{ErrorKind, Host};
use banger_model::{Vm, VmId};
use banger_plan::{Action, DirSeen, Planted, planted::planted};
use std::path::Path;

pub(super) fn apply<H: Host, L, R>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<(), Error> {
    let (host, site) = (env.host, env.site);
    match action {
        Action::EnterDir => {
            host.rename(&site.creating_dir(vm.id), &site.vm_dir(vm.id))?;
            sync_entries(env)?;
        }
        Action::MarkDeleted => {
            let marker = site.deleted_marker(vm.id);
            match host.write(&marker, b"") {
                // A delete is how a full disk gets room. Nothing of the data goes before the
                // directory is renamed to the trash, and that name is a tombstone as well.
                Err(error) if error.kind == ErrorKind::NoSpace => return Ok(()),
                written => written?,
            }
            host.sync_file(&marker)?;
            host.sync_dir(&site.vm_dir(vm.id))?;
        }
        Action::MoveToTrash => {
            host.rename(&living_place(at, env, vm.id), &site.trash_dir(vm.id))?;
            sync_entries(env)?;
        }
        Action::KeepLogs => match keep_logs(at, env, vm.id) {
            // A delete is how a full disk gets room: then the room is worth more than the logs.
            Err(Error::Host(error)) if error.kind == ErrorKind::NoSpace => {}
            kept => at.kept_logs = kept?,
        },
        Action::EmptyTrash => tree::remove(host, &site.trash_dir(vm.id))?,
        Action::MakeRuntimeDir => super::there(host.mkdir(&site.sockets_dir(vm.id)))?,
        Action::ClearSockets => tree::clear(host, &site.sockets_dir(vm.id))?,
        Action::RemoveRuntimeDir => tree::remove(host, &site.sockets_dir(vm.id))?,
        _ => {}
    }
    Ok(())
}

/// Makes the names in `vms/` durable.
fn sync_entries<H: Host, L, R>(env: &Env<'_, H, L, R>) -> Result<(), Error> {
    if planted(Planted::DirectoryNotSynced) {
        return Ok(());
    }
    Ok(env.host.sync_dir(&env.site.vms_dir())?)
}

/// Where the directory was seen: under its name, or not yet.
fn living_place<H, L, R>(at: &Convergence, env: &Env<'_, H, L, R>, id: VmId) -> std::path::PathBuf {
    match at.seen.as_ref().map(|seen| seen.dir) {
        Some(DirSeen::Creating) => env.site.creating_dir(id),
        _ => env.site.vm_dir(id),
    }
}

/// Moves the logs out of the trash: whoever wanted the VM wants to know why it failed (R-HOST-7). Resumable:
/// what was moved before a crash stays where it is.
fn keep_logs<H: Host, L, R>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    id: VmId,
) -> Result<Option<std::path::PathBuf>, Error> {
    let trash = env.site.trash_dir(id);
    let names = env.host.list(&trash)?;
    let logs: Vec<_> = names
        .iter()
        .filter(|name| Path::new(name).extension().is_some_and(|ext| ext == "log"))
        .collect();
    if logs.is_empty() {
        return Ok(None);
    }
    // A create that a crash interrupted is no operation of this daemon: the VM's id names it.
    let name = at
        .operation
        .map_or_else(|| id.to_string(), |op| op.to_string());
    let kept = env.site.failed_dir().join(name);
    super::there(env.host.mkdir(&env.site.failed_dir()))?;
    super::there(env.host.mkdir(&kept))?;
    for name in logs {
        env.host.rename(&trash.join(name), &kept.join(name))?;
    }
    Ok(Some(kept))
}
