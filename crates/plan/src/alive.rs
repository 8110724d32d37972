//! The one predicate for "alive" (R-STATE-5).

use crate::Observed;
use banger_model::{Phase, Role, Vm};

/// Whether a VM is alive: its phase says it should be, and its VMM is proven to be. Every list,
/// query and decision asks here.
pub fn vm_alive(vm: &Vm, seen: &Observed) -> bool {
    matches!(vm.phase, Phase::Running | Phase::Stopping) && seen.lives(Role::Vmm)
}
