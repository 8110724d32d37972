//! Directories without a row, as far as a delete is concerned (R-STATE-10).

use super::VmService;
use banger_converge::{delete_lost, lost};
use banger_host::Processes;
use banger_model::{Role, Vm, VmId};
use banger_wire::api::{ApiError, Code, VmDelete};
use std::sync::Arc;

impl VmService {
    /// Writes the tombstone of a directory that has no row, if the reference is its exact id: what
    /// nobody lists by name is not to be met by a prefix either. Yields the row.
    ///
    /// # Errors
    /// `unknown` if there is no such directory; it is up and `force` was not given; it does not
    /// describe itself; the database failed.
    pub(super) async fn entomb_lost(
        self: &Arc<Self>,
        request: &VmDelete,
        unknown: ApiError,
    ) -> Result<Vm, ApiError> {
        let Ok(id) = request.vm.parse::<VmId>() else {
            return Err(unknown);
        };
        let force = request.force;
        // Name and lease of the tombstone must not be taken by a create meanwhile.
        let _creating = self.create_lock.lock().await;
        let failed = |e: banger_converge::Error| ApiError::of(Code::OperationFailed, &e);
        let there = self
            .core
            .blocking(move |core| {
                let there = lost(&core.env()).map_err(failed)?;
                let there = there.iter().any(|lost| lost.id == id);
                // Without a row only its lock tells whether it lives (R-HOST-8).
                let log = core.site.process_log(id, Role::Vmm);
                if there && !force && core.host.log_locked(&log).map_err(|e| failed(e.into()))? {
                    return Err(still_up(id));
                }
                if there {
                    delete_lost(&core.env(), id).map_err(failed)?;
                }
                Ok(there)
            })
            .await??;
        match self.row(id).await? {
            Some(row) if there => Ok(row),
            _ => Err(unknown),
        }
    }
}

fn still_up(id: VmId) -> ApiError {
    ApiError::new(Code::Precondition, format!("the lost VM {id} is running")).hint(format!(
        "banger recover adopts it; banger vm delete --force {id}"
    ))
}
