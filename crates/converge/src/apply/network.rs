//! Tap, bridge, firewall.

use super::blocks::made;
use crate::{Convergence, Env, Error, Ledger, Recipes, tree::gone, views};
use banger_host::Host;
use banger_model::{Role, TapName, Vm};
use banger_plan::{Action, ObjectSeen};

pub(super) fn apply<H: Host, L: Ledger, R: Recipes>(
    at: &mut Convergence,
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    action: &Action,
) -> Result<(), Error> {
    let tap = TapName::of_vm(vm.id);
    let label = env.site.label(vm.id, Role::Tap);
    let bridge = &env.site.bridge;
    match action {
        Action::CreateTap => {
            // The VMM opens it, so it belongs to the user the VMM runs as.
            let uid = env.recipes.identity(vm, Role::Vmm).uid;
            env.host.tap_create(&tap, &label, uid)?;
            made(at, env, vm, Role::Tap, &ObjectSeen::Tap(tap, None));
        }
        // Another VM's convergence may have made it since we looked.
        Action::CreateBridge => super::there(env.host.bridge_create(
            &bridge.name,
            &env.site.bridge_label(),
            bridge.pool.host,
            bridge.pool.prefix,
        ))?,
        Action::JoinBridge => env.host.set_master(&tap, &label, &bridge.name)?,
        Action::DeleteTap => gone(env.host.link_delete(&tap, &label))?,
        Action::PublishViews => views::publish(env)?,
        _ => {}
    }
    Ok(())
}
