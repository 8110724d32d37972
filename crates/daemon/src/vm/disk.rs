//! The disk-full watch (R-HOST-10): below 1 GiB or 2 % free, running VMs are held still; they go on by themselves.

use super::{VmService, clock};
use banger_converge::Ledger;
use banger_host::Files;
use banger_model::{Role, VmId};
use banger_plan::{Pressure, pressure};
use banger_wire::api::VmChange;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long a guest that goes on may take to say that it knows the time.
const TOLD_LIMIT: Duration = Duration::from_secs(1);

impl VmService {
    /// Looks at the disk once and holds, or lets go on, what runs.
    pub async fn look_at_disk(self: &Arc<Self>) {
        let looked = self
            .core
            .blocking(|core| core.host.disk_space(&core.site.state_dir))
            .await;
        let now = match looked {
            Ok(Ok((free, total))) => pressure(free, total),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the disk cannot be looked at");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the disk cannot be looked at");
                return;
            }
        };
        match now {
            Pressure::Full => {
                for (id, entry) in self.set.linked() {
                    if !entry.is_paused() {
                        self.hold(id, true).await;
                    }
                }
            }
            Pressure::Enough => {
                for (id, _) in self.set.paused() {
                    self.hold(id, false).await;
                }
            }
        }
    }

    /// Finds out whether an adopted VM is held still from before.
    pub async fn find_held(self: &Arc<Self>, id: VmId) {
        let socket = self.control(id);
        let Ok(network) = self.peers.network() else {
            return;
        };
        let held = self.core.blocking(move |_| network.held(&socket)).await;
        match held {
            Ok(Ok(held)) => drop(self.set.entry(id).paused.send_replace(held)),
            Ok(Err(error)) => {
                tracing::warn!(vm = %id, %error, "its VMM does not say how it stands")
            }
            Err(error) => tracing::error!(vm = %id, %error, "its VMM cannot be asked"),
        }
    }

    async fn hold(self: &Arc<Self>, id: VmId, still: bool) {
        let socket = self.control(id);
        let Ok(network) = self.peers.network() else {
            return;
        };
        let entry = self.set.entry(id);
        // Said before the guest goes on, so that it hears it first. One without a session is told by the next.
        let guest = entry.guest().filter(|_| !still);
        let told = guest.map(|guest| clock::tell(id, &guest));
        let done = self
            .core
            .blocking(move |_| network.hold(&socket, still))
            .await;
        match (told, &done) {
            // What is asked of the VM is refused until then; a guest that is slow to answer is no reason to refuse for
            // ever.
            (Some(told), Ok(Ok(()))) => drop(tokio::time::timeout(TOLD_LIMIT, told).await),
            // Still held: what it was told will be out of date.
            (Some(told), _) => told.abort(),
            (None, _) => {}
        }
        match done {
            Ok(Ok(())) => {
                tracing::warn!(vm = %id, still, "held or let go on: disk pressure changed");
                self.is_held(id, still).await;
            }
            Ok(Err(error)) => tracing::warn!(vm = %id, still, %error, "its VMM does not obey"),
            Err(error) => tracing::error!(vm = %id, still, %error, "its VMM cannot be told"),
        }
    }

    /// Notes how a guest stands, and tells of it once, whoever saw it first.
    pub(super) async fn is_held(&self, id: VmId, still: bool) {
        if self.set.entry(id).paused.send_replace(still) == still {
            return;
        }
        let change = match still {
            true => VmChange::Paused,
            false => VmChange::Resumed,
        };
        let told = self.core.blocking(move |core| {
            if let Ok(Some(vm)) = core.ledger.vm(id) {
                core.ledger.feed().vm(change, &vm);
            }
        });
        if let Err(error) = told.await {
            tracing::error!(vm = %id, %error, "not told");
        }
    }

    /// The spare control socket; on the other one the VM's watch listens.
    pub(super) fn control(&self, id: VmId) -> PathBuf {
        self.core.site.control_socket(id, Role::Vmm)
    }
}
