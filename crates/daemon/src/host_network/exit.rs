//! Waiting for a process that is not ours to wait for.

use super::stat::Stat;
use banger_model::ProcessHandle;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until this process is dead; returns at once if it is not that process now. A zombie is dead.
pub async fn exited(process: ProcessHandle) {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else {
        return;
    };
    // Opened first, looked at then: if it is the right one now, the descriptor means it for ever.
    if !is_there(process) {
        return;
    }
    // SAFETY: the descriptor is owned by the value that is registered and stays the same for as long as it lives.
    match unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) } {
        Ok(watched) => drop(watched.readable().await),
        Err(error) => {
            tracing::error!(%error, pid = process.pid, "a process cannot be watched");
            std::future::pending::<()>().await;
        }
    }
}

/// Whether this process is there, be it as a zombie.
pub fn is_there(process: ProcessHandle) -> bool {
    start_time(process.pid) == Some(process.start_time)
}

fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid)?.start_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_process_of_that_number_is_not_waited_for() {
        let pid = std::process::id();
        let now = start_time(pid).unwrap();
        let me = ProcessHandle {
            pid,
            start_time: now,
        };
        let short = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(short, exited(me)).await.is_err());
        let other = ProcessHandle {
            pid,
            start_time: now + 1,
        };
        exited(other).await;
    }
}
