//! Making data disks, only ever in phase *creating* (R-STATE-10), and growing them.

use crate::{Env, Error, Recipes};
use banger_host::{DiskRecipe, ErrorKind, Host, state_file::temporary};
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
    let made = match (env.host.make_disk(&part, &recipe), recipe) {
        (Err(error), DiskRecipe::CloneOf { template })
            if planted(Planted::CloneMadeByCopying) && error.kind == ErrorKind::Unsupported =>
        {
            env.host.make_disk(&part, &DiskRecipe::CopyOf { template })
        }
        (made, _) => made,
    };
    match made {
        Err(error)
            if planted(Planted::HalfMadeDiskTakenAsMade) && error.kind != ErrorKind::Crashed => {}
        made => made?,
    }
    env.host.sync_file(&part)?;
    env.host.rename(&part, &path)?;
    Ok(())
}

/// Makes a disk as long as the VM's spec says; what is on it stays. Durable before a guest can know of it.
pub(super) fn grow<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let path = super::needed(env.site.disk(vm.id, role), role)?;
    let size = super::needed(vm.spec.disk_of(role), role)?;
    env.host.grow_disk(&path, size)?;
    Ok(env.host.sync_file(&path)?)
}

/// Makes the names in the VM's directory durable, once for all disks.
pub(super) fn sync<H: Host, L, R>(env: &Env<'_, H, L, R>, vm: &Vm) -> Result<(), Error> {
    if planted(Planted::DirectoryNotSynced) {
        return Ok(());
    }
    Ok(env.host.sync_dir(&env.site.vm_dir(vm.id))?)
}
