//! Unlinking what a failed delete left: directories that were given up and have no row.

use super::VmService;
use banger_converge::sweep_dirs;
use std::sync::Arc;

impl VmService {
    /// Sweeps once. Under the create lock, because a directory comes before its row.
    pub async fn sweep(self: &Arc<Self>) {
        if self.core.writable().is_err() {
            return;
        }
        let _creating = self.create_lock.lock().await;
        match self.core.blocking(|core| sweep_dirs(&core.env())).await {
            Ok(Ok(left)) => {
                for error in left {
                    tracing::warn!(%error, "a directory that was given up is not gone yet");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the VM directories cannot be swept"),
            Err(error) => tracing::error!(%error, "the VM directories cannot be swept"),
        }
    }
}
