//! Making data disks. Only ever done in phase *creating* (R-STATE-10).

use crate::{Env, Error, Recipes};
use banger_host::{Host, state_file::temporary};
use banger_model::{Role, Vm};
use banger_plan::{Planted, planted::planted};

/// Makes a disk under a temporary name; it has its own only when all of it is on the disk.
pub(super) fn make<H: Host, L, R: Recipes>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let path = super::needed(env.site.disk(vm.id, role), role)?;
    let part = temporary(&path);
    let recipe = env.recipes.disk(vm, role)?;
    match env.host.make_disk(&part, &recipe) {
        Err(error)
            if planted(Planted::HalfMadeDiskTakenAsMade)
                && error.kind != banger_host::ErrorKind::Crashed => {}
        made => made?,
    }
    env.host.sync_file(&part)?;
    env.host.rename(&part, &path)?;
    Ok(())
}

/// Makes the names in the VM's directory durable, once for all disks.
pub(super) fn sync<H: Host, L, R>(env: &Env<'_, H, L, R>, vm: &Vm) -> Result<(), Error> {
    if planted(Planted::DirectoryNotSynced) {
        return Ok(());
    }
    Ok(env.host.sync_dir(&env.site.vm_dir(vm.id))?)
}
