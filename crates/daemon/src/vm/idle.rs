//! VMs that nobody uses are stopped (R-SVC-7), where the configuration says after how long.

use super::VmService;
use banger_config::builtin;
use banger_converge::request;
use banger_model::{Reason, ReasonKind, Vm, VmId};
use banger_plan::stale;
use std::{
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
    time::Duration,
};

/// Somebody is with a VM, for as long as this lives. Its beginning and its end are uses.
#[derive(Debug)]
pub struct InUse {
    service: Arc<VmService>,
    id: VmId,
    entry: Arc<super::set::Entry>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.entry.users.fetch_sub(1, Ordering::Relaxed);
        self.service.used(self.id);
    }
}

/// Whether somebody is there.
pub(super) fn anybody(users: &AtomicU32) -> bool {
    users.load(Ordering::Relaxed) > 0
}

impl VmService {
    /// Says that somebody is with a VM: a command, a copy, a forwarded connection, a restart.
    pub fn in_use(self: &Arc<Self>, id: VmId) -> InUse {
        let entry = self.set.entry(id);
        entry.users.fetch_add(1, Ordering::Relaxed);
        self.used(id);
        InUse {
            service: Arc::clone(self),
            id,
            entry,
        }
    }

    /// After how long a VM that nobody uses is stopped; never if `None`.
    pub fn stale_after(&self) -> Option<Duration> {
        let after = self.config.auto_stop_stale_after;
        let after = after.unwrap_or(builtin::AUTO_STOP_STALE_AFTER);
        (!after.is_zero()).then(|| after.duration())
    }

    /// Stops what nobody has used for `after`.
    pub async fn stop_stale(self: &Arc<Self>, after: Duration) {
        if self.core.writable().is_err() {
            return;
        }
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "whether VMs are idle cannot be seen");
                return;
            }
        };
        let now = crate::ops::now();
        for vm in rows {
            if self.is_stale(&vm, now, after) {
                self.stop_one(&vm, now, after).await;
            }
        }
    }

    /// Whether nobody is with a VM, nor was for `after`.
    fn is_stale(&self, row: &Vm, now: u64, after: Duration) -> bool {
        // The row may be a minute behind.
        let last_used_at = self.uses.last(row.id, row.last_used_at);
        let vm = Vm {
            last_used_at,
            ..row.clone()
        };
        stale(&vm, anybody(&self.set.entry(row.id).users), now, after)
    }

    /// Writes the goal; the background loop does the rest, tries again what fails, and holds up no other VM.
    async fn stop_one(self: &Arc<Self>, vm: &Vm, now: u64, after: Duration) {
        let unused = banger_model::Span::seconds(after.as_secs());
        let reason = Reason {
            kind: ReasonKind::Idle,
            text: format!("nobody used it for {unused} (auto_stop_stale_after)"),
        };
        let (id, service) = (vm.id, Arc::clone(self));
        let stopped = self.core.blocking(move |core| {
            // Somebody may have come since the look, or come and gone.
            let stale = |row: &Vm| service.is_stale(row, now, after);
            request::stop_unless_used(&core.env(), id, &stale, &reason)
        });
        match stopped.await {
            Ok(Ok(accepted)) if accepted.new => {
                tracing::info!(vm = %id, name = %vm.name, %unused, "stopped: nobody used it");
                self.settle_later(id);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(vm = %id, %error, "idle, and cannot be stopped"),
            Err(error) => tracing::error!(vm = %id, %error, "idle, and cannot be stopped"),
        }
    }
}
