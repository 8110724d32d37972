//! What a convergence works with.

use crate::Site;
use banger_model::{VmHandles, VmId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The machine, the database, the drivers' recipes, the place, and what is shared in memory.
pub struct Env<'a, H, L, R> {
    /// The machine.
    pub host: &'a H,
    /// The database.
    pub ledger: &'a L,
    /// The drivers.
    pub recipes: &'a R,
    /// The instance.
    pub site: &'a Site,
    /// Shared by the convergences of one process.
    pub shared: &'a Shared,
}

// By hand: a derive would ask the parameters to be `Copy`.
impl<H, L, R> Clone for Env<'_, H, L, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H, L, R> Copy for Env<'_, H, L, R> {}

/// What the convergences of one process share, each behind a lock of its own. Only `views` is held
/// across effects, those of one swap.
#[derive(Debug, Default)]
pub struct Shared {
    /// Handles of running VMs.
    pub handles: HandleCache,
    /// Held from reading the rows to the swap, so that an older view never replaces a newer one.
    views: Mutex<()>,
    /// Temporary names of `vm.json` that are being written, by VM.
    drafts: Mutex<BTreeSet<(VmId, u32)>>,
}

impl Shared {
    pub(crate) fn lock_views(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so there is nothing a panic could have left half changed.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a writer of this VM's `vm.json`, the lowest that no other has: requests write it
    /// without the VM's lock (R-SVC-4), and each needs a temporary name of its own.
    pub(crate) fn draft(&self, id: VmId) -> Draft<'_> {
        let mut taken = self.lock_drafts();
        let number = (0..).find(|n| !taken.contains(&(id, *n))).unwrap_or(0);
        taken.insert((id, number));
        Draft {
            shared: self,
            id,
            number,
        }
    }

    fn lock_drafts(&self) -> MutexGuard<'_, BTreeSet<(VmId, u32)>> {
        // Every change is one insert or remove: whole even after a panic.
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that is one writer's until it is dropped.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    shared: &'a Shared,
    id: VmId,
    /// Which one; 0 unless several write at once.
    pub number: u32,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        self.shared.lock_drafts().remove(&(self.id, self.number));
    }
}

/// Handles of running VMs in memory (R-STATE-3): rebuilt by looking, written after the disk.
#[derive(Debug, Default)]
pub struct HandleCache(Mutex<BTreeMap<VmId, VmHandles>>);

impl HandleCache {
    /// Handles of a VM, if it has any.
    pub fn get(&self, id: VmId) -> Option<VmHandles> {
        self.lock().get(&id).cloned()
    }

    pub(crate) fn put(&self, id: VmId, handles: VmHandles) {
        self.lock().insert(id, handles);
    }

    pub(crate) fn forget(&self, id: VmId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, VmHandles>> {
        // Every change is one insert or remove: whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
