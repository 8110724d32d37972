//! What happens, told to whoever listens (`events`). Telling never waits: who reads slowly loses notices, and is told
//! how many.

use crate::ops::now_ms;
use banger_model::{Phase, Reason, ReasonKind, Vm};
use banger_wire::api::{Notice, VmChange, VmNotice, VmState, What};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::broadcast;

/// Notices that wait for the slowest listener; each is kept once, however many listen.
const KEPT: usize = 256;

/// The one feed of a daemon; clones share it.
#[derive(Debug, Clone)]
pub struct Feed(Arc<RwLock<Option<broadcast::Sender<Arc<Notice>>>>>);

impl Default for Feed {
    fn default() -> Self {
        let sender = broadcast::channel(KEPT).0;
        Feed(Arc::new(RwLock::new(Some(sender))))
    }
}

impl Feed {
    /// Tells what happened.
    pub fn tell(&self, what: What) {
        let sender = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref().filter(|s| s.receiver_count() > 0) {
            // Who has left meanwhile does not miss it.
            let _ = sender.send(Arc::new(notice(what)));
        }
    }

    /// What is told from now on; nothing if the feed is closed.
    pub fn listen(&self) -> Option<broadcast::Receiver<Arc<Notice>>> {
        let sender = self.0.read().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().map(broadcast::Sender::subscribe)
    }

    /// Ends the feed: listeners hear what was told, then its end.
    pub fn close(&self) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Tells of a VM's row that was written: `before` is what it was, `None` if it is new.
    pub fn row(&self, before: Option<&Vm>, now: &Vm) {
        match before {
            None => self.vm(VmChange::Created, now),
            Some(before) => {
                if before.name != now.name {
                    self.vm(VmChange::Renamed, now);
                }
                if before.phase != now.phase {
                    self.vm(reached(now.phase), now);
                }
            }
        }
    }

    /// Tells of a VM.
    pub fn vm(&self, change: VmChange, vm: &Vm) {
        let state = match change {
            VmChange::Deleted => None,
            VmChange::Paused => Some(VmState::Paused),
            _ => Some(vm.phase.into()),
        };
        self.tell(What::Vm(VmNotice {
            change,
            id: vm.id,
            name: vm.name.clone(),
            state,
            reason: match change {
                VmChange::Paused => Some(disk_full()),
                _ => vm.reason.clone(),
            },
        }));
    }
}

/// Why a VM is held still.
pub fn disk_full() -> Reason {
    Reason {
        kind: ReasonKind::DiskFull,
        text: "paused: disk full".to_owned(),
    }
}

/// A notice of now.
pub fn notice(what: What) -> Notice {
    Notice {
        at_ms: now_ms(),
        what,
    }
}

const fn reached(phase: Phase) -> VmChange {
    match phase {
        Phase::Creating => VmChange::Created,
        Phase::Starting => VmChange::Starting,
        Phase::Running => VmChange::Running,
        Phase::Stopping => VmChange::Stopping,
        Phase::Stopped => VmChange::Stopped,
        Phase::Deleting => VmChange::Deleting,
        Phase::Error => VmChange::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};

    fn stopping(operations: u32) -> What {
        What::DaemonStopping { operations }
    }

    /// Bounded, never waiting, and truthful about what was dropped.
    #[tokio::test]
    async fn who_reads_slowly_is_told_how_much_was_lost() {
        let feed = Feed::default();
        feed.tell(stopping(0));
        let mut slow = feed.listen().unwrap();
        let count = u32::try_from(KEPT).unwrap() + 10;
        for n in 1..=count {
            feed.tell(stopping(n));
        }
        assert_eq!(slow.recv().await, Err(RecvError::Lagged(10)));
        assert_eq!(slow.recv().await.unwrap().what, stopping(11));
        let mut quick = feed.listen().unwrap();
        assert_eq!(quick.try_recv(), Err(TryRecvError::Empty));
        feed.tell(stopping(7));
        feed.close();
        feed.tell(stopping(8));
        assert_eq!(quick.recv().await.unwrap().what, stopping(7));
        assert_eq!(quick.recv().await, Err(RecvError::Closed));
        assert!(feed.listen().is_none());
    }
}
