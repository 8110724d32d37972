//! Programs that are asked to end in a way of their own before the guest does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::reaper::Reaper;

/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(5);

/// Who is to be asked, and with which signal.
#[derive(Debug, Default)]
pub struct Farewells(Mutex<Vec<(Pid, Signal)>>);

impl Farewells {
    /// This program is to be asked with the signal of this number.
    pub fn owe(&self, pid: Pid, signal: u8) {
        // SAFETY: the number of a signal that the C library keeps for itself ends the program like any other: there is
        // none in the guest that shares memory with it.
        let signal = unsafe { Signal::from_raw_unchecked(i32::from(signal.clamp(1, 64))) };
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owed.push((pid, signal));
    }

    /// Asks all that still run, each alone and not its group, and waits for them for at most the limit.
    pub async fn say(&self, reaper: &Reaper, limit: Duration) {
        let owed = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (pid, signal) in &owed {
            reaper.if_alive(*pid, || {
                // It may have ended this instant.
                let _ = kill_process(*pid, *signal);
            });
        }
        let end = Instant::now() + limit;
        while Instant::now() < end && owed.iter().any(|(pid, _)| alive(reaper, *pid)) {
            sleep(LOOK).await;
        }
    }
}

fn alive(reaper: &Reaper, pid: Pid) -> bool {
    let mut alive = false;
    reaper.if_alive(pid, || alive = true);
    alive
}
