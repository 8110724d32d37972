//! The DNS zone: names of VMs that are alive, and nothing else (R-NET-2).

use crate::{Observed, Planted, planted::planted, vm_alive};
use banger_model::Vm;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Name to address, for the VMs that are alive.
pub fn zone<'a>(
    vms: impl IntoIterator<Item = (&'a Vm, &'a Observed)>,
) -> BTreeMap<String, Ipv4Addr> {
    vms.into_iter()
        .filter(|(vm, seen)| vm_alive(vm, seen) || planted(Planted::ZoneListsDeadVm))
        .map(|(vm, _)| (vm.name.dns(), vm.lease.ip))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{any_situation, down, up, vm},
        planted::with_planted,
    };
    use banger_model::{Drivers, Phase, Role};
    use proptest::prelude::*;

    #[test]
    fn alive_vms_only() {
        let (one, two) = (vm(1, Drivers::EVERYWHERE), vm(2, Drivers::EVERYWHERE));
        let starting = Vm {
            phase: Phase::Starting,
            ..vm(3, Drivers::EVERYWHERE)
        };
        let seen = [up(&one), down(&two), up(&starting)];
        let all = || [&one, &two, &starting].into_iter().zip(&seen);
        assert_eq!(
            zone(all()),
            BTreeMap::from([("vm-1.vm".to_owned(), one.lease.ip)])
        );
        let with_bug = with_planted(Planted::ZoneListsDeadVm, || zone(all()));
        assert_eq!(with_bug.len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nobody_is_listed_whose_vmm_is_not_proven((vm, seen) in any_situation()) {
            if !zone([(&vm, &seen)]).is_empty() {
                prop_assert!(seen.lives(Role::Vmm));
                prop_assert!(matches!(vm.phase, Phase::Running | Phase::Stopping));
            }
        }
    }
}
