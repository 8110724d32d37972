//! The one place that waits for children: PID 1 gets all orphans, so nobody else may.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

type Waiting = Arc<Mutex<HashMap<i32, oneshot::Sender<WaitStatus>>>>;

/// Collects ended children and tells whoever started them.
#[derive(Debug, Clone)]
pub struct Reaper {
    waiting: Waiting,
}

impl Reaper {
    /// Starts reaping on every SIGCHLD; must be called within the runtime.
    pub fn start() -> io::Result<Self> {
        let mut children = signal(SignalKind::child())?;
        let waiting = Waiting::default();
        let map = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                reap(&map);
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(Self { waiting })
    }

    /// Runs `spawn`, which starts one child, and gives a receiver for its status.
    ///
    /// The lock is held meanwhile: a child that ends at once is not reaped before it is entered, and a failed
    /// exec is collected by the standard library without a race.
    pub fn spawn(
        &self,
        spawn: impl FnOnce() -> io::Result<Pid>,
    ) -> io::Result<(Pid, oneshot::Receiver<WaitStatus>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = spawn()?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(pid.as_raw_nonzero().get(), sender);
        Ok((pid, receiver))
    }

    /// Runs `act` on a child unless it has been reaped, so that a number used again is never signalled.
    pub fn if_alive(&self, pid: Pid, act: impl FnOnce()) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains_key(&pid.as_raw_nonzero().get()) {
            act();
        }
    }
}

/// Whether any child is left, alive or not yet reaped.
pub fn children_left() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

fn reap(waiting: &Waiting) {
    loop {
        let mut map = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(sender) = map.remove(&pid.as_raw_nonzero().get()) {
                    // Nobody may be interested any more.
                    let _ = sender.send(status);
                }
            }
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}
