//! Turns: of several that want to do the same thing, one does it, and the next finds it done.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

type Waited = Arc<tokio::sync::Mutex<()>>;

/// Turns, by what is to be done.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<BTreeMap<String, Waited>>>);

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

impl Turns {
    /// Waits for the turn with this. Whoever waits may leave at any time.
    pub async fn take(&self, what: &str) -> Turn {
        let waited = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // What only the list has is nobody's.
            all.retain(|_, waited| Arc::strong_count(waited) > 1);
            Arc::clone(all.entry(what.to_owned()).or_default())
        };
        Turn(waited.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_kept() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let blocked = tokio::time::timeout(Duration::from_millis(20), turns.take("a")).await;
        assert!(blocked.is_err(), "two have the same turn");
        drop(first);
        drop(turns.take("a").await);
        drop(other);
        let _last = turns.take("c").await;
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
