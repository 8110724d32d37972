//! Whether a guest reaches beyond the host (R-NET-3), changed while it runs.
//!
//! The row says what is wanted and is written first; then the VMM is told, which has both as states and is told only what
//! it is not in. So a daemon that dies in between leaves work that the next one sees and does.

use super::{Result, VmService, request_error};
use crate::ops::Operation;
use banger_converge::settled;
use banger_model::{NetworkDriver, Phase, Vm, VmId};
use banger_wire::api::{ApiError, Code, Event, VmView};
use std::sync::Arc;

/// What is to be said where a guest is let out.
pub(super) fn exposed(vm: &Vm) -> Event {
    Event::Warning {
        message: exposure(vm),
        hint: Some(format!("banger vm set {} --no-nat closes that", vm.name)),
    }
}

fn exposure(vm: &Vm) -> String {
    match vm.spec.drivers.network {
        NetworkDriver::User => {
            "with --nat the guest also reaches services on this machine's loopback, at 10.0.2.2"
        }
        NetworkDriver::Bridge => "with --nat the guest reaches what this machine reaches",
    }
    .to_owned()
}

impl VmService {
    /// Lets a guest out, or in no more; at once if it runs. Its connections through the network break.
    ///
    /// # Errors
    /// No such VM, it is on its way somewhere, or its VMM does not obey (the row says it all the same, and the next start,
    /// or daemon, does it).
    pub async fn set_nat(
        self: &Arc<Self>,
        op: &Operation,
        reference: &str,
        nat: bool,
    ) -> Result<VmView> {
        self.core.writable()?;
        let vm = self.find_settled(reference).await?;
        op.about(&vm);
        let id = vm.id;
        let entry = self.set.entry(id);
        // Not between two steps of whoever works on it.
        let _still = entry.lock.lock().await;
        {
            let _no_recovery = self.create_lock.lock().await;
            let written = self
                .core
                .blocking(move |core| settled::set_nat(&core.env(), id, nat));
            written.await?.map_err(|e| request_error(&e))?;
        }
        // As it is now: it may have come up while we waited for the lock.
        let vm = self.find(&id.to_string()).await?;
        if vm.phase == Phase::Running && vm.spec.drivers.network == NetworkDriver::User {
            self.plug(&vm, nat).await?;
        }
        self.view(id).await
    }

    /// Brings an adopted VM's network to what its row says: the daemon before may have died in between.
    pub(super) async fn find_nat(self: &Arc<Self>, id: VmId) {
        // Not beside a request that changes it.
        let entry = self.set.entry(id);
        let _still = entry.lock.lock().await;
        let Ok(Some(vm)) = self.row(id).await else {
            return;
        };
        if vm.spec.drivers.network == NetworkDriver::User
            && let Err(error) = self.plug(&vm, vm.spec.nat).await
        {
            tracing::warn!(vm = %id, %error, "its network may not be what was asked for");
        }
    }

    async fn plug(&self, vm: &Vm, nat: bool) -> Result<()> {
        let (network, socket) = (self.peers.network()?, self.control(vm.id));
        let done = self.core.blocking(move |_| network.set_nat(&socket, nat));
        done.await?.map_err(|error| {
            let state = if nat { "let out" } else { "closed in" };
            let message = format!("the guest of VM '{}' could not be {state}", vm.name);
            ApiError::new(Code::OperationFailed, message)
                .caused_by(&error)
                .hint(format!(
                    "banger vm stop {0}; banger vm start {0}: it starts that way",
                    vm.name
                ))
        })
    }
}
