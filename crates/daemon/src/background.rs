//! What the daemon does unasked: tries again what did not finish, watches the disk, sweeps.

use crate::daemon::Daemon;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How often the disk is looked at.
const DISK: Duration = Duration::from_secs(5);
/// How often directories that were given up are swept.
const SWEEP: Duration = Duration::from_secs(60);

/// How long clients of a daemon that died have to come back.
const RETURN: Duration = Duration::from_secs(300);
/// The shortest time between two looks for VMs that nobody uses.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs until the daemon ends.
pub async fn run(daemon: Arc<Daemon>) {
    let vms = daemon.vms();
    let mut disk = tokio::time::interval(DISK);
    disk.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stale_after = vms.stale_after();
    let looks = stale_after.map_or(SWEEP, |after| (after / 4).clamp(SHORTEST, SWEEP));
    // Late: whoever was with a VM when the last daemon died comes back to it first, and the row knows nothing of them.
    let begins = stale_after.map_or(SWEEP, |after| after.clamp(SHORTEST, RETURN));
    let mut stale = tokio::time::interval_at(Instant::now() + begins, looks);
    stale.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = None;
    loop {
        let due = async {
            match next {
                Some(at) => sleep_until(Instant::from_std(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = daemon.ending() => return,
            _ = disk.tick() => vms.look_at_disk().await,
            _ = stale.tick() => {
                if let Some(after) = stale_after {
                    vms.stop_stale(after).await;
                }
            }
            _ = sweep.tick() => vms.sweep().await,
            () = due => next = vms.retry_due().await,
            () = vms.work.notified() => next = vms.retry_due().await,
        }
    }
}
