//! Directories without a row. A missing row is never a reason to remove anything (R-STATE-10).

use crate::{Env, Error, Ledger, SelfDescription, sweep};
use banger_host::Host;
use banger_model::{Lease, NetworkDriver, RootDriver, Vm, VmId, VmName};

/// A VM's directory that the database does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its id, from the directory's name.
    pub id: VmId,
    /// Its name, if `vm.json` can be read; without it nobody can adopt the VM.
    pub name: Option<VmName>,
    /// Its `vm.json` says that its network is the bridge.
    pub on_bridge: bool,
    /// Image that its `vm.json` pins, if its disks are of no use without it.
    pub image_id: Option<String>,
    /// Kernel that its `vm.json` names.
    pub kernel: Option<String>,
}

/// Lists the directories without a row.
///
/// # Errors
/// The directory or the database could not be read.
pub fn lost<H: Host, L: Ledger, R>(env: &Env<'_, H, L, R>) -> Result<Vec<Lost>, Error> {
    let rows = sweep::row_ids(env)?;
    let present = sweep::list_dirs(env)?.present;
    let lost = present.difference(&rows).map(|id| {
        let said = SelfDescription::read(env.host, &env.site.vm_dir(*id))?;
        Ok(Lost {
            id: *id,
            on_bridge: said
                .as_ref()
                .is_some_and(|said| said.spec.drivers.network == NetworkDriver::Bridge),
            image_id: said
                .as_ref()
                .filter(|said| said.spec.drivers.root != RootDriver::Reflink)
                .map(|said| said.spec.image_id.clone()),
            kernel: said.as_ref().map(|said| said.spec.kernel.clone()),
            name: said.map(|said| said.name),
        })
    });
    lost.collect()
}

/// Leases that directories without one of these rows hold, as far as they describe themselves.
pub(crate) fn leases<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    rows: &[Vm],
) -> Result<Vec<Lease>, Error> {
    let present = sweep::list_dirs(env)?.present;
    let lost = present
        .into_iter()
        .filter(|id| !rows.iter().any(|vm| vm.id == *id));
    let said = lost.map(|id| SelfDescription::read(env.host, &env.site.vm_dir(id)));
    said.filter_map(|said| Some(said.transpose()?.map(|said| said.lease)))
        .collect()
}
