//! Loop devices and the device-mapper snapshot over them.

use crate::{Convergence, Env, Error, Recipes, observe};
use banger_host::Host;
use banger_model::{DmName, Role, Vm};
use banger_plan::{Action, DmStage, ObjectSeen};

pub(super) fn apply<H: Host, L, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<(), Error> {
    let name = DmName::of_vm(env.site.instance, vm.id);
    let label = env.site.label(vm.id, Role::DmSnapshot);
    match action {
        Action::AttachLoop(role) => attach(at, env, vm, *role)?,
        Action::CreateDm => {
            env.host.dm_create(&name, &label)?;
            made(
                at,
                env,
                vm,
                Role::DmSnapshot,
                &ObjectSeen::Dm(name, DmStage::Created),
            );
        }
        Action::LoadDm => {
            let handles = at.handles.as_ref();
            let base = super::needed(handles.and_then(|h| h.base_loop), Role::BaseLoop)?;
            let cow = super::needed(handles.and_then(|h| h.cow_loop), Role::CowLoop)?;
            let table = env.recipes.dm_table(vm, base, cow)?;
            env.host.dm_load(&name, &label, &table)?;
        }
        Action::ResumeDm => env.host.dm_resume(&name, &label)?,
        Action::RemoveDm => {
            super::while_busy(env, Role::DmSnapshot, || env.host.dm_remove(&name, &label))?
        }
        Action::DetachLoop(role) => detach(at, env, vm, *role)?,
        _ => {}
    }
    Ok(())
}

fn attach<H: Host, L, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    // The image is shared and read-only; what the guest writes goes to the copy-on-write file.
    let read_only = role == Role::BaseLoop;
    let file = if read_only {
        env.recipes.base_image(vm)?
    } else {
        super::needed(env.site.disk(vm.id, Role::CowFile), Role::CowFile)?
    };
    let label = env.site.label(vm.id, role);
    let number = env.host.loop_attach(&file, read_only, &label)?;
    made(at, env, vm, role, &ObjectSeen::Loop(number));
    Ok(())
}

fn detach<H: Host, L, R>(
    at: &Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
) -> Result<(), Error> {
    let seen = at.seen.as_ref().and_then(|seen| seen.objects.get(&role));
    let Some(ObjectSeen::Loop(number)) = seen else {
        return Ok(());
    };
    let label = env.site.label(vm.id, role);
    super::while_busy(env, role, || env.host.loop_detach(*number, &label))
}

/// Notes an object that was just made; `SaveHandles` follows in the plan.
pub(super) fn made<H, L, R>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    role: Role,
    object: &ObjectSeen,
) {
    if let Some(handles) = &mut at.handles {
        observe::note(env.site, vm, handles, role, object);
    }
}
