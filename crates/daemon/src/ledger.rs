//! The state database as the executor's ledger.
//!
//! The database can be absent (missing, damaged, newer: R-STATE-10); every request then fails with the reason, and
//! `recover` puts a new one in place.

use crate::feed::Feed;
use banger_converge::{Change, Ledger, LedgerError};
use banger_host::Effect;
use banger_host::crash::CrashPoints;
use banger_model::{Generation, Vm, VmId};
use banger_plan::LeaseBook;
use banger_store::{Error as StoreError, Recovered, Store, Unique};
use banger_wire::api::VmChange;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// The database, or why there is none.
#[derive(Debug)]
pub struct StoreLedger {
    held: RwLock<Result<Arc<Store>, String>>,
    points: CrashPoints,
    /// Counts what was written.
    changed: watch::Sender<u64>,
    feed: Feed,
}

/// Why nothing can be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoStore(pub String);

impl StoreLedger {
    /// A ledger on this database, or on none for this reason.
    pub fn new(store: Result<Store, String>, points: CrashPoints) -> Self {
        StoreLedger {
            held: RwLock::new(store.map(Arc::new)),
            points,
            changed: watch::channel(0).0,
            feed: Feed::default(),
        }
    }

    /// Tells of every transaction that changed something.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Where what happens is told: every change of a row, and what others add.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// A transaction that changes something: an effect like those of the machine.
    fn effect<T>(
        &self,
        act: impl FnOnce(&Store) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let store = self.store()?;
        let done = self.points.around(Effect::Ledger, || act(&store));
        self.changed.send_modify(|count| *count += 1);
        done
    }

    /// The database.
    ///
    /// # Errors
    /// There is none; the reason.
    pub fn store(&self) -> Result<Arc<Store>, LedgerError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
            .map_err(|why| LedgerError::Failed(NoStore(why).into()))
    }

    /// Why there is no database, if there is none.
    pub fn absent(&self) -> Option<String> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().err().cloned()
    }

    /// Puts a database in the place of none.
    pub fn put(&self, store: Store) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Ok(Arc::new(store));
        self.changed.send_modify(|count| *count += 1);
    }
}

fn translate(vm: &str, error: StoreError) -> LedgerError {
    match error {
        StoreError::AlreadyExists {
            what: Unique::Id | Unique::Name,
            ..
        } => LedgerError::AlreadyExists(vm.to_owned()),
        StoreError::AlreadyExists { .. } => LedgerError::LeaseTaken,
        StoreError::NotFound(id) => LedgerError::NotFound(id),
        StoreError::Stale {
            id,
            expected,
            found,
        } => LedgerError::Stale {
            id,
            expected,
            actual: found,
        },
        other => LedgerError::Failed(other.into()),
    }
}

fn failed(error: StoreError) -> LedgerError {
    translate("", error)
}

impl Ledger for StoreLedger {
    fn vm(&self, id: VmId) -> Result<Option<Vm>, LedgerError> {
        self.store()?.get(id).map_err(failed)
    }

    fn vms(&self) -> Result<Vec<Vm>, LedgerError> {
        self.store()?.list().map_err(failed)
    }

    fn leases(&self) -> Result<LeaseBook, LedgerError> {
        let leases = self.store()?.leases().map_err(failed)?;
        Ok(LeaseBook {
            addresses: leases.held.iter().map(|lease| lease.ip).collect(),
            cids: leases.held.iter().map(|lease| lease.cid).collect(),
            released: leases.released,
        })
    }

    fn insert(&self, vm: &Vm) -> Result<(), LedgerError> {
        self.effect(|store| {
            store
                .insert_vm(vm)
                .map_err(|e| translate(vm.name.as_str(), e))
        })?;
        self.feed.row(None, vm);
        Ok(())
    }

    fn update(&self, id: VmId, expected: Generation, change: &Change) -> Result<(), LedgerError> {
        let mut before = None;
        let now = self.effect(|store| {
            let apply = |vm: &Vm| {
                before = Some(vm.clone());
                change.apply(vm)
            };
            store.modify(id, expected, apply).map_err(failed)
        })?;
        self.feed.row(before.as_ref(), &now);
        Ok(())
    }

    fn remove(&self, id: VmId, expected: Generation) -> Result<(), LedgerError> {
        let before = self.vm(id)?;
        self.effect(|store| store.remove(id, expected).map_err(failed))?;
        if let Some(vm) = before {
            self.feed.vm(VmChange::Deleted, &vm);
        }
        Ok(())
    }

    fn adopt(&self, vm: &Vm) -> Result<bool, LedgerError> {
        let adopted = self.effect(|store| match store.recover_insert(vm) {
            Ok(done) => Ok(done != Recovered::Kept),
            Err(error) => Err(translate(vm.name.as_str(), error)),
        })?;
        if adopted {
            self.feed.vm(VmChange::Adopted, vm);
        }
        Ok(adopted)
    }
}
