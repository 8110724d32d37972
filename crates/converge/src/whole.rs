//! Everything of one instance, as found, for the oracle.

use crate::{Env, Error, Ledger, Recipes, observe, sweep};
use banger_host::Host;
use banger_plan::Whole;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Looks at the whole instance. `zone` is what the resolver serves.
///
/// # Errors
/// Reading the rows, or looking.
pub fn whole<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    zone: BTreeMap<String, Ipv4Addr>,
) -> Result<Whole, Error> {
    let rows = sweep::row_ids(env)?;
    let dirs = sweep::list_dirs(env)?;
    let mut vms = Vec::new();
    for vm in env.ledger.vms()? {
        let seen = observe(env, &vm)?;
        vms.push((vm, seen));
    }
    let objects = sweep::labelled(env)?.into_iter().map(|found| found.label);
    Ok(Whole {
        vms,
        objects: objects
            .filter(|label| label.instance == env.site.instance)
            .collect(),
        lost: dirs.present.difference(&rows).copied().collect(),
        leftover_dirs: dirs
            .creating
            .union(&dirs.trash)
            .filter(|id| !rows.contains(id))
            .copied()
            .collect(),
        zone,
    })
}
