//! What users were told, and may hold us to.

use super::script::Verb;
use banger_converge::Site;
use banger_host::sim::World;
use banger_model::{Goal, ProcessHandle, ReasonKind, VmId};
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
    /// VMs that were given disks of so many GiB, at least.
    pub sized: BTreeMap<VmId, u8>,
    /// VMs of which a delete was asked and not accepted: theirs is all or nothing.
    pub limbo: BTreeMap<VmId, BTreeMap<String, u32>>,
    /// VMs whose rows were lost.
    pub lost_rows: BTreeSet<VmId>,
    /// Disks that were taken away.
    pub lost_disks: BTreeSet<String>,
    /// Logs of creates that failed, by VM and file name: they outlive the VM (R-HOST-7).
    pub failed_logs: BTreeSet<(VmId, String)>,
    /// Names that VMs were given, and of which no other was asked since.
    pub names: BTreeMap<VmId, &'static str>,
    /// VMs of which it was said whether their guests reach beyond the host, and nothing else since.
    pub nat: BTreeMap<VmId, bool>,
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
    pub fn asked(&mut self, vm: VmId, verb: Verb) {
        if matches!(verb, Verb::Delete | Verb::Rename(_)) {
            self.names.remove(&vm);
        }
        if matches!(verb, Verb::Delete | Verb::Nat(_)) {
            self.nat.remove(&vm);
        }
        if matches!(verb, Verb::Rename(_) | Verb::Nat(_)) {
            // Of its life nothing else is promised than before.
            return;
        }
        self.running.remove(&vm);
        self.stopped.remove(&vm);
        if verb == Verb::Delete
            && let Some(disks) = self.kept.remove(&vm)
        {
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
        self.failed_logs.retain(|(of, _)| *of != vm);
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

    /// Looks for creates that are being undone, and for what their VMMs and guests said until then.
    pub fn creates_failed(&mut self, world: &World, site: &Site) {
        for (id, row) in &world.rows(site.instance).vms {
            let vm = row.vm();
            let failed = vm.reason.as_ref().is_some_and(|reason| {
                matches!(
                    reason.kind,
                    ReasonKind::StartFailed | ReasonKind::Interrupted | ReasonKind::RollbackFailed
                )
            });
            if vm.goal != Goal::Absent || !failed {
                continue;
            }
            for dir in [site.vm_dir(*id), site.trash_dir(*id)] {
                for (path, _) in world.fs.files_below(&dir) {
                    if let Some(name) = path.rsplit('/').next().filter(|n| n.ends_with(".log")) {
                        self.failed_logs.insert((*id, name.to_owned()));
                    }
                }
            }
        }
    }

    /// The host lost power: nothing runs, and of logs nothing is promised.
    pub fn power_lost(&mut self) {
        self.failed_logs.clear();
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
