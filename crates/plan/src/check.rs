//! The oracle: is the whole sound? The crash enumeration asks it after every case, `doctor` prints
//! it, the tests of the real machine call it.

use crate::{DirSeen, DiskSeen, Observed};
use banger_model::{Goal, Label, Phase, Role, Vm, VmId};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Everything of one instance, as found.
#[derive(Debug, Clone, Default)]
pub struct Whole {
    /// Rows with what was seen of each.
    pub vms: Vec<(Vm, Observed)>,
    /// Labels of this instance's VM objects found on the host, rows or not.
    pub objects: Vec<Label>,
    /// Directories `vms/<id>/` without a row.
    pub lost: BTreeSet<VmId>,
    /// Directories `.creating-<id>` and `.trash-<id>` without a row.
    pub leftover_dirs: BTreeSet<VmId>,
    /// What the resolver serves.
    pub zone: BTreeMap<String, Ipv4Addr>,
}

/// What users were told and have not taken back.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// VMs whose create succeeded and for which no delete was asked.
    pub kept: BTreeSet<VmId>,
    /// VMs whose delete succeeded.
    pub deleted: BTreeSet<VmId>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Finding {
    /// A VM a user was promised has no row.
    #[error(
        "VM {0} was created and is not in the database; `banger recover` adopts it if its directory is there"
    )]
    LostVm(VmId),
    /// A VM a user was told is gone is still there.
    #[error("VM {0} was deleted and is still in the database")]
    Undead(VmId),
    /// Data of a VM that nobody deleted is not there.
    #[error("VM {vm} has no whole {role}")]
    LostDisk {
        /// Whose.
        vm: VmId,
        /// Which disk.
        role: Role,
    },
    /// An object on the host that belongs to no VM.
    #[error("{0} belongs to no VM")]
    Orphan(String),
    /// An object of a VM that is down.
    #[error("VM {vm} is {phase} and still has its {role}")]
    LeftOver {
        /// Whose.
        vm: VmId,
        /// Its phase in words.
        phase: &'static str,
        /// What is left.
        role: Role,
    },
    /// A phase that only an operation under way may show.
    #[error("VM {vm} is {phase} though no operation is under way")]
    Unsettled {
        /// Which VM.
        vm: VmId,
        /// Its phase in words.
        phase: &'static str,
    },
    /// Two VMs hold the same address or context id.
    #[error("VMs {0} and {1} hold the same lease")]
    SharedLease(VmId, VmId),
    /// The resolver answers for a VM that is not alive, or with a wrong address.
    #[error("the resolver answers {0} though no such VM is alive")]
    ZoneListsDead(String),
    /// A directory without a row, and nothing to keep in it.
    #[error("the unfinished directory of VM {0} was not swept")]
    UnsweptDir(VmId),
    /// A directory without a row; kept, because only a tombstone removes data.
    #[error("the directory of VM {0} has no row in the database; `banger recover` adopts it")]
    LostDir(VmId),
}

impl Finding {
    /// False for what is only to be told, not a fault of ours.
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Finding::LostDir(_))
    }
}

/// Judges the whole at a moment when no operation is under way.
pub fn check(whole: &Whole, told: &Acknowledged) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    findings.extend(promises(whole, told));
    findings.extend(whole.vms.iter().flat_map(|(vm, seen)| one_vm(vm, seen)));
    findings.extend(orphans(whole));
    findings.extend(shared_leases(whole));
    findings.extend(dead_names(whole));
    findings.extend(
        whole
            .leftover_dirs
            .iter()
            .map(|id| Finding::UnsweptDir(*id)),
    );
    findings.extend(whole.lost.iter().map(|id| Finding::LostDir(*id)));
    findings.into_iter().collect()
}

fn promises(whole: &Whole, told: &Acknowledged) -> Vec<Finding> {
    let rows: BTreeSet<_> = whole.vms.iter().map(|(vm, _)| vm.id).collect();
    let lost = told.kept.difference(&rows).map(|id| Finding::LostVm(*id));
    let undead = told
        .deleted
        .intersection(&rows)
        .map(|id| Finding::Undead(*id));
    lost.chain(undead).collect()
}

fn one_vm(vm: &Vm, seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let phase = crate::explain::phase_name(vm.phase);
    if vm.goal != Goal::Absent && vm.phase != Phase::Creating {
        findings.extend(missing_disks(vm, seen));
    }
    match vm.phase {
        Phase::Stopped => findings.extend(left_over(vm, seen).map(|role| Finding::LeftOver {
            vm: vm.id,
            phase,
            role,
        })),
        Phase::Creating | Phase::Starting | Phase::Stopping | Phase::Deleting => {
            findings.push(Finding::Unsettled { vm: vm.id, phase });
        }
        Phase::Running if !seen.lives(Role::Vmm) => {
            findings.push(Finding::Unsettled { vm: vm.id, phase });
        }
        Phase::Running | Phase::Error => {}
    }
    findings
}

fn missing_disks(vm: &Vm, seen: &Observed) -> Vec<Finding> {
    // A VM that says so itself is fenced: the loss is reported already, and nobody hides it.
    if vm.phase == Phase::Error {
        return Vec::new();
    }
    let whole = |role: &Role| {
        seen.dir == DirSeen::Present && seen.disks.get(role) == Some(&DiskSeen::Whole)
    };
    let roles = vm.spec.drivers.data_roles().into_iter();
    roles
        .filter(|role| !whole(role))
        .map(|role| Finding::LostDisk { vm: vm.id, role })
        .collect()
}

fn left_over<'a>(vm: &'a Vm, seen: &'a Observed) -> impl Iterator<Item = Role> + 'a {
    let roles = vm.spec.drivers.roles().into_iter();
    roles.filter(|role| seen.objects.contains_key(role) || seen.may_live(*role))
}

fn orphans(whole: &Whole) -> impl Iterator<Item = Finding> + '_ {
    let known: BTreeSet<_> = whole.vms.iter().map(|(vm, _)| vm.id).collect();
    whole
        .objects
        .iter()
        .filter(move |label| label.vm_id().is_some_and(|id| !known.contains(&id)))
        // What a lost directory may still need is kept with it.
        .filter(|label| label.vm_id().is_none_or(|id| !whole.lost.contains(&id)))
        .map(|label| Finding::Orphan(label.to_string()))
}

fn shared_leases(whole: &Whole) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, (one, _)) in whole.vms.iter().enumerate() {
        for (other, _) in &whole.vms[i + 1..] {
            if one.lease.ip == other.lease.ip || one.lease.cid == other.lease.cid {
                findings.push(Finding::SharedLease(one.id, other.id));
            }
        }
    }
    findings
}

fn dead_names(whole: &Whole) -> impl Iterator<Item = Finding> + '_ {
    let alive: BTreeMap<_, _> = whole
        .vms
        .iter()
        .filter(|(vm, seen)| crate::vm_alive(vm, seen))
        .map(|(vm, _)| (vm.name.dns(), vm.lease.ip))
        .collect();
    whole
        .zone
        .iter()
        .filter(move |(name, ip)| alive.get(*name) != Some(ip))
        .map(|(name, _)| Finding::ZoneListsDead(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ProcessSeen,
        fixtures::{EVERYTHING, INSTANCE, down, up, vm},
    };
    use banger_model::Drivers;

    fn stopped(n: u8) -> Vm {
        Vm {
            phase: Phase::Stopped,
            ..vm(n, EVERYTHING)
        }
    }

    /// One VM up, one down, all told truly.
    fn sound() -> (Whole, Acknowledged) {
        let (running, stopped) = (vm(1, Drivers::EVERYWHERE), stopped(2));
        let told = Acknowledged {
            kept: [running.id, stopped.id].into(),
            deleted: [vm(9, EVERYTHING).id].into(),
        };
        let whole = Whole {
            zone: [("vm-1.vm".to_owned(), running.lease.ip)].into(),
            vms: vec![
                (running.clone(), up(&running)),
                (stopped.clone(), down(&stopped)),
            ],
            ..Whole::default()
        };
        (whole, told)
    }

    fn findings(spoil: impl FnOnce(&mut Whole, &mut Acknowledged)) -> Vec<Finding> {
        let (mut whole, mut told) = sound();
        spoil(&mut whole, &mut told);
        check(&whole, &told)
    }

    #[test]
    fn the_sound_is_sound() {
        assert_eq!(findings(|_, _| {}), []);
    }

    #[test]
    fn every_kind_of_trouble_is_seen() {
        let (one, two, gone) = (
            vm(1, EVERYTHING).id,
            vm(2, EVERYTHING).id,
            vm(9, EVERYTHING).id,
        );
        let label = Label::vm(INSTANCE, gone, Role::Tap);
        type Spoil = fn(&mut Whole, &mut Acknowledged);
        let cases: Vec<(Spoil, Finding)> = vec![
            (|w, _| drop(w.vms.remove(1)), Finding::LostVm(two)),
            (
                |_, told| told.deleted.extend([vm(2, EVERYTHING).id]),
                Finding::Undead(two),
            ),
            (
                |w, _| w.vms[1].1.disks.extend([(Role::WorkDisk, DiskSeen::Part)]),
                Finding::LostDisk {
                    vm: two,
                    role: Role::WorkDisk,
                },
            ),
            (
                |w, _| {
                    w.objects
                        .push(Label::vm(INSTANCE, vm(9, EVERYTHING).id, Role::Tap))
                },
                Finding::Orphan(label.to_string()),
            ),
            (
                |w, _| {
                    let unproven = ProcessSeen::LockHeldUnproven;
                    w.vms[1].1.processes.insert(Role::Helper, unproven);
                },
                Finding::LeftOver {
                    vm: two,
                    phase: "stopped",
                    role: Role::Helper,
                },
            ),
            (
                |w, _| w.vms[1].0.phase = Phase::Deleting,
                Finding::Unsettled {
                    vm: two,
                    phase: "deleting",
                },
            ),
            (
                |w, _| w.vms[1].0.lease.cid = w.vms[0].0.lease.cid,
                Finding::SharedLease(one, two),
            ),
            (
                |w, _| w.zone.extend([("vm-2.vm".to_owned(), w.vms[1].0.lease.ip)]),
                Finding::ZoneListsDead("vm-2.vm".to_owned()),
            ),
            (
                |w, _| w.leftover_dirs.extend([vm(9, EVERYTHING).id]),
                Finding::UnsweptDir(gone),
            ),
            (
                |w, _| w.lost.extend([vm(9, EVERYTHING).id]),
                Finding::LostDir(gone),
            ),
        ];
        for (spoil, expected) in cases {
            let found = findings(spoil);
            assert_eq!(found, [expected]);
            assert!(!found[0].to_string().is_empty());
        }
    }

    #[test]
    fn what_a_lost_directory_may_need_is_no_orphan() {
        let found = findings(|w, _| {
            let id = vm(9, EVERYTHING).id;
            w.objects.push(Label::vm(INSTANCE, id, Role::Tap));
            w.lost.insert(id);
        });
        assert_eq!(found, [Finding::LostDir(vm(9, EVERYTHING).id)]);
        assert!(!found[0].is_fault());
    }
}
