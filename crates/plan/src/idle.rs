//! Which VMs nobody uses (R-SVC-7).

use banger_model::{Goal, Phase, Vm};
use std::time::Duration;

/// Whether a VM is to be stopped because nobody used it for `after`. `in_use` says whether somebody is with it now: a
/// command or a copy under way. `now` is Unix time in seconds; a clock that was set back makes nothing stale.
pub fn stale(vm: &Vm, in_use: bool, now: u64, after: Duration) -> bool {
    let runs = vm.goal == Goal::Running && vm.phase == Phase::Running;
    // One that goes with its command is used as long as it is there.
    let kept = !vm.spec.remove_on_exit;
    runs && kept
        && !in_use
        && !after.is_zero()
        && now.saturating_sub(vm.last_used_at) >= after.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn only_what_runs_and_nobody_used() {
        let hour = Duration::from_secs(3600);
        let mut vm = fixtures::vm(1, banger_model::Drivers::EVERYWHERE);
        (vm.goal, vm.phase) = (Goal::Running, Phase::Running);
        vm.last_used_at = 10_000;
        assert!(!stale(&vm, false, 13_599, hour));
        assert!(stale(&vm, false, 13_600, hour));
        assert!(!stale(&vm, true, 13_600, hour), "somebody is with it");
        assert!(!stale(&vm, false, 13_600, Duration::ZERO), "0 is never");
        assert!(!stale(&vm, false, 5, hour), "the clock was set back");
        vm.spec.remove_on_exit = true;
        assert!(!stale(&vm, false, 13_600, hour), "it has a command");
        vm.spec.remove_on_exit = false;
        for (goal, phase) in [
            (Goal::Stopped, Phase::Running),
            (Goal::Running, Phase::Starting),
            (Goal::Stopped, Phase::Stopped),
            (Goal::Absent, Phase::Running),
        ] {
            (vm.goal, vm.phase) = (goal, phase);
            assert!(!stale(&vm, false, 13_600, hour), "{goal:?} {phase:?}");
        }
    }
}
