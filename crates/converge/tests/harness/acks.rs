//! What users were told, and may hold us to.

use banger_host::sim::World;
use banger_model::{ProcessHandle, VmId};
use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// A promise per VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Acks {
    /// VMs whose create succeeded and of which no delete was asked: path and serial of each disk.
    pub kept: BTreeMap<VmId, BTreeMap<String, u32>>,
    /// VMs that are to be gone: deleted, or never made.
    pub gone: BTreeSet<VmId>,
    /// VMs that run and of which nothing else was asked: their VMM.
    pub running: BTreeMap<VmId, ProcessHandle>,
    /// VMs that were stopped and not asked to start.
    pub stopped: BTreeSet<VmId>,
    /// VMs of which a delete was asked and not accepted: theirs is all or nothing.
    pub limbo: BTreeMap<VmId, BTreeMap<String, u32>>,
    /// VMs whose rows were lost.
    pub lost_rows: BTreeSet<VmId>,
    /// Disks that were taken away.
    pub lost_disks: BTreeSet<String>,
    /// The host lost power at least once.
    pub rebooted: bool,
}

impl Acks {
    /// A create succeeded.
    pub fn created(&mut self, world: &World, dir: &std::path::Path, vm: VmId) {
        let disks = world.fs.files_below(dir).into_iter();
        let disks = disks.filter_map(|(path, content)| Some((path, content.as_disk()?.serial)));
        self.kept.insert(vm, disks.collect());
        self.started(world, vm);
    }

    /// A start succeeded.
    pub fn started(&mut self, world: &World, vm: VmId) {
        if let Some(process) = world.vmm_of(vm) {
            self.running.insert(vm, process.handle());
        }
    }

    /// Something is asked of a VM: until it is answered, less is promised.
    pub fn asked(&mut self, vm: VmId, wants_it_gone: bool) {
        self.running.remove(&vm);
        self.stopped.remove(&vm);
        if wants_it_gone && let Some(disks) = self.kept.remove(&vm) {
            self.limbo.insert(vm, disks);
        }
    }

    /// A delete was accepted.
    pub fn deleted(&mut self, vm: VmId) {
        self.limbo.remove(&vm);
        self.gone.insert(vm);
    }

    /// The database was lost: nothing is promised but the disks.
    pub fn row_lost(&mut self, vm: VmId) {
        self.lost_rows.insert(vm);
        self.stopped.remove(&vm);
    }

    /// A person or a failing medium took a disk away: nothing is promised of it, but that no empty
    /// one takes its place.
    pub fn disk_lost(&mut self, vm: VmId, path: &std::path::Path) {
        self.running.remove(&vm);
        if let Some(disks) = self.kept.get_mut(&vm) {
            disks.remove(&path.display().to_string());
            self.lost_disks.insert(path.display().to_string());
        }
    }

    /// The host lost power: nothing runs.
    pub fn power_lost(&mut self) {
        self.running.clear();
        self.rebooted = true;
    }

    /// For telling equal promises.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}
