//! Views: shared things that are functions of the whole state, rendered whole (design, sentence 5).

use crate::{Env, Error, Ledger, Recipes, observe, tree::gone};
use banger_host::{Host, LinkSeen};
use banger_model::NetworkDriver;
use banger_plan::{Observed, nat_pairs, ruleset};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// The firewall's table as the rows ask for it.
fn rendered<H, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<String, Error> {
    let rows = env.ledger.vms()?;
    let pairs = nat_pairs(&rows);
    Ok(ruleset(&env.site.table(), &env.site.bridge.name, &pairs))
}

/// Whether the firewall's table is what the rows ask for. No table and an empty one are the same.
pub(crate) fn current<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<bool, Error> {
    let there = env.host.ruleset(&env.site.table())?.unwrap_or_default();
    Ok(there == rendered(env)?)
}

/// Swaps the firewall's table for what the rows ask for; no effect if it is that already.
///
/// # Errors
/// Reading the rows or the table, or the swap; the table is then as before.
pub fn publish<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<(), Error> {
    let _order = env.shared.lock_views();
    let table = env.site.table();
    let text = rendered(env)?;
    if env.host.ruleset(&table)?.unwrap_or_default() != text {
        env.host.ruleset_swap(&table, &text)?;
    }
    Ok(())
}

/// The DNS zone as the machine is now: names of the VMs that are alive. Only VMs whose phase lets
/// them be alive are looked at.
///
/// # Errors
/// Reading the rows, or looking at a VM.
pub fn zone<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
) -> Result<BTreeMap<String, Ipv4Addr>, Error> {
    let boot = env.host.boot_id()?;
    let rows = env.ledger.vms()?;
    let mut seen = Vec::new();
    for vm in &rows {
        seen.push(Observed {
            processes: observe::if_it_may_live(env, vm)?,
            ..Observed::nothing(boot.clone())
        });
    }
    Ok(banger_plan::zone(rows.iter().zip(&seen)))
}

/// Removes the instance's bridge if no VM needs one any more, nor has a port on it: a VM whose row
/// was lost may be up. To be called under the create lock; whoever comes next makes it again.
///
/// # Errors
/// Reading the rows or the links, or the removal.
pub fn retire_bridge<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<(), Error> {
    let rows = env.ledger.vms()?;
    if rows
        .iter()
        .any(|vm| vm.spec.drivers.network == NetworkDriver::Bridge)
    {
        return Ok(());
    }
    let label = env.site.bridge_label();
    let ours = label.to_string();
    let links = env.host.links()?;
    let port = |link: &LinkSeen| link.master.as_deref() == Some(env.site.bridge.name.as_str());
    if links.iter().any(|link| link.alias == ours) && !links.iter().any(port) {
        gone(env.host.bridge_delete(&env.site.bridge.name, &label))?;
    }
    Ok(())
}
