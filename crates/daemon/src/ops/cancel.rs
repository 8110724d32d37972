//! A wish that something end, shared by who wishes and who works.

use banger_wire::api::{ApiError, Code};
use std::sync::Arc;
use tokio::sync::watch;

/// Why an operation is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its client left.
    ClientGone,
    /// `operation.cancel`.
    Asked,
    /// A newer request for the same VM was accepted (R-SVC-4).
    Superseded,
    /// The daemon ends.
    Shutdown,
}

impl Why {
    /// As what an operation that was ended so fails with.
    pub fn error(self) -> ApiError {
        match self {
            Why::Shutdown => ApiError::new(Code::Unavailable, "the daemon is shutting down"),
            _ => ApiError::new(Code::Conflict, "the operation was cancelled"),
        }
    }
}

/// A cancel token; clones share it. The first wish wins.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<watch::Sender<Option<Why>>>);

impl Default for Cancel {
    fn default() -> Self {
        Cancel(Arc::new(watch::channel(None).0))
    }
}

impl Cancel {
    /// Wishes the end.
    pub fn fire(&self, why: Why) {
        self.0.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(why);
            first
        });
    }

    /// Whether both are one token.
    pub fn is(&self, other: &Cancel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Why the end was wished for, if it was.
    pub fn why(&self) -> Option<Why> {
        *self.0.borrow()
    }

    /// Waits for the wish.
    pub async fn fired(&self) -> Why {
        let mut wish = self.0.subscribe();
        loop {
            if let Some(why) = *wish.borrow_and_update() {
                return why;
            }
            if wish.changed().await.is_err() {
                // We hold a sender ourselves, so this cannot be; never ending is the safe answer.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_wish_wins_and_wakes_everyone() {
        let cancel = Cancel::default();
        assert_eq!(cancel.why(), None);
        let other = tokio::spawn({
            let cancel = cancel.clone();
            async move { cancel.fired().await }
        });
        tokio::task::yield_now().await;
        cancel.fire(Why::Asked);
        cancel.fire(Why::Shutdown);
        assert_eq!(other.await.unwrap(), Why::Asked);
        assert_eq!(cancel.fired().await, Why::Asked);
    }
}
