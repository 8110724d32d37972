//! What the daemon holds in memory for each VM: its lock, the operation that works on it, its agent channel.

use super::publish::Ports;
use crate::ops::{Cancel, Why};
use banger_model::VmId;
use banger_wire::guest::GuestClient;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The VMs the daemon has to do with.
#[derive(Debug, Default)]
pub struct VmSet(Mutex<BTreeMap<VmId, Arc<Entry>>>);

/// One VM in memory.
#[derive(Debug)]
pub struct Entry {
    /// The per-VM lock: first in the lock order, held while actions are applied, never while a guest is waited for.
    pub lock: tokio::sync::Mutex<()>,
    /// The session with the agent, while there is one.
    pub link: watch::Sender<Option<GuestClient>>,
    /// A task keeps the link up and notices the VMM's end.
    watched: AtomicBool,
    /// Held still because the disk is full, or told to go on and not yet up to date (R-GUEST-9).
    pub paused: watch::Sender<bool>,
    /// How many are with it now: commands, copies.
    pub users: AtomicU32,
    /// Who reads its disks while it is down.
    pub readers: Mutex<Vec<Cancel>>,
    /// Its published ports.
    pub ports: Ports,
    /// Token of the operation that works on the VM.
    operation: Mutex<Option<Cancel>>,
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            lock: tokio::sync::Mutex::default(),
            link: watch::channel(None).0,
            watched: AtomicBool::new(false),
            paused: watch::channel(false).0,
            users: AtomicU32::new(0),
            readers: Mutex::default(),
            ports: Ports::default(),
            operation: Mutex::new(None),
        }
    }
}

impl VmSet {
    /// The entry of a VM, made if it is not there.
    pub fn entry(&self, id: VmId) -> Arc<Entry> {
        Arc::clone(self.lock().entry(id).or_default())
    }

    /// Drops the entry of a VM that is gone.
    pub fn forget(&self, id: VmId) {
        self.lock().remove(&id);
    }

    /// VMs with a link.
    pub fn linked(&self) -> Vec<(VmId, Arc<Entry>)> {
        let set = self.lock();
        let linked = set.iter().filter(|(_, e)| e.link.borrow().is_some());
        linked.map(|(id, e)| (*id, Arc::clone(e))).collect()
    }

    /// VMs that are held still.
    pub fn paused(&self) -> Vec<(VmId, Arc<Entry>)> {
        let set = self.lock();
        let paused = set.iter().filter(|(_, e)| e.is_paused());
        paused.map(|(id, e)| (*id, Arc::clone(e))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Makes this operation the one that works on the VM; the one before it is told that it was superseded
    /// (R-SVC-4: goal first, then the token, then the lock).
    pub fn take_over(&self, cancel: &Cancel) {
        let mut operation = self
            .operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = operation.replace(cancel.clone());
        // One operation may take several steps, each of which takes over.
        if let Some(before) = before.filter(|before| !before.is(cancel)) {
            before.fire(Why::Superseded);
        }
    }

    /// Claims the duty to watch the VM; false if someone has it.
    pub fn claim_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    /// Gives the duty back.
    pub fn end_watch(&self) {
        self.watched.store(false, Ordering::Release);
    }

    /// The session with the agent, if there is one.
    pub fn guest(&self) -> Option<GuestClient> {
        self.link.borrow().clone().filter(|g| !g.is_closed())
    }

    /// Whether it is held still.
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// The VM's links are down, its published ports too.
    pub fn unlink(&self) {
        self.link.send_replace(None);
        self.paused.send_replace(false);
        self.ports.clear();
    }
}
