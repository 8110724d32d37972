//! When VMs were last used (R-SVC-7): known at once, written at most once a minute, and never while a command waits.

use super::VmService;
use banger_model::VmId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Shortest time between two writes for one VM, in seconds: what a daemon that is killed forgets at most.
const EVERY: u64 = 60;

/// Uses that the database may not know of yet.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<VmId, Use>>);

#[derive(Debug, Default)]
struct Use {
    /// The last one.
    at: u64,
    /// When one was last written.
    written: Option<u64>,
    /// Somebody will write it.
    pending: bool,
}

impl Uses {
    /// Notes a use; whoever is told a time writes it then, nobody else will.
    fn note(&self, id: VmId, now: u64) -> Option<Duration> {
        let mut uses = self.lock();
        let noted = uses.entry(id).or_default();
        noted.at = noted.at.max(now);
        if std::mem::replace(&mut noted.pending, true) {
            return None;
        }
        let due = noted.written.map_or(0, |written| written + EVERY);
        // A clock that was set back does not put it off for longer.
        let wait = due.saturating_sub(now).min(EVERY);
        Some(Duration::from_secs(wait))
    }

    /// What is to be written of a VM, if anything.
    fn take(&self, id: VmId, now: u64) -> Option<u64> {
        let mut uses = self.lock();
        let noted = uses.get_mut(&id).filter(|noted| noted.pending)?;
        noted.pending = false;
        noted.written = Some(now);
        Some(noted.at)
    }

    /// The later of the time that the row has and what was noted since.
    pub fn last(&self, id: VmId, row: u64) -> u64 {
        let noted = self.lock().get(&id).map_or(0, |noted| noted.at);
        noted.max(row)
    }

    /// Forgets a VM that is gone.
    pub fn forget(&self, id: VmId) {
        self.lock().remove(&id);
    }

    fn pending(&self) -> Vec<VmId> {
        let uses = self.lock();
        let pending = uses.iter().filter(|(_, noted)| noted.pending);
        pending.map(|(id, _)| *id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VmService {
    /// Notes that a VM was used; waits for nothing.
    pub fn used(self: &Arc<Self>, id: VmId) {
        let Some(wait) = self.uses.note(id, crate::ops::now()) else {
            return;
        };
        let service = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            service.write_use(id).await;
        });
    }

    /// Writes what is not written yet; to be called when the daemon ends.
    pub async fn write_uses(&self) {
        for id in self.uses.pending() {
            self.write_use(id).await;
        }
    }

    async fn write_use(&self, id: VmId) {
        let Some(at) = self.uses.take(id, crate::ops::now()) else {
            return;
        };
        let noted = self
            .core
            .blocking(move |core| core.ledger.store().map(|s| s.touch(id, at)))
            .await;
        match noted {
            Ok(Ok(Ok(()))) => {}
            // The end of a command comes after the end of its VM.
            Ok(Ok(Err(banger_store::Error::NotFound(_)))) => self.uses.forget(id),
            _ => tracing::debug!(vm = %id, "a use was not noted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first use is written at once, the next ones together a minute later; what is shown is never old.
    #[test]
    fn uses_are_shown_at_once_and_written_once_a_minute() {
        let (uses, id) = (Uses::default(), VmId::from_bytes([1; 6]));
        assert_eq!(uses.last(id, 7), 7);
        assert_eq!(uses.note(id, 100), Some(Duration::ZERO));
        assert_eq!(uses.take(id, 100), Some(100));
        assert_eq!(uses.take(id, 100), None, "nothing new");
        assert_eq!(uses.note(id, 110), Some(Duration::from_secs(50)));
        assert_eq!(uses.note(id, 120), None, "somebody will");
        assert_eq!(uses.last(id, 7), 120);
        assert_eq!(uses.pending(), [id]);
        assert_eq!(uses.take(id, 160), Some(120));
        assert_eq!(uses.note(id, 400), Some(Duration::ZERO));
        // The clock was set back by an hour.
        assert_eq!(uses.take(id, 4000), Some(400));
        assert_eq!(uses.note(id, 390), Some(Duration::from_secs(60)));
        uses.forget(id);
        assert_eq!(uses.last(id, 7), 7);
    }
}
