//! Driving convergences to their end where there is a thread to block: recovery, the background
//! loop, tests. The daemon's operations drive their own, to let go of the lock while they wait.

use crate::{Convergence, Env, Error, Ledger, Outcome, Recipes, Step, Told, Wait};
use banger_host::Host;
use banger_model::{Generation, VmId};
use banger_plan::{Planted, planted::planted};

/// Waits in the driver's stead.
pub trait Waiter {
    /// Waits for it, at most as long as it says, and tells how it went.
    fn wait(&self, id: VmId, wait: &Wait) -> Told;
}

/// Steps one convergence until it settles.
pub fn settle<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    convergence: &mut Convergence,
    waiter: &dyn Waiter,
) -> Outcome {
    loop {
        match convergence.step(env) {
            Step::Did(_) | Step::Failed => {}
            Step::Wait(wait) => {
                let told = waiter.wait(convergence.id(), &wait);
                convergence.tell(env, told);
            }
            Step::Settled(outcome) => return outcome,
        }
    }
}

/// Brings every VM to its goal, one after the other; the trouble of one is its own (R-HOST-9).
///
/// # Errors
/// The rows could not be listed.
pub fn settle_all<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    waiter: &dyn Waiter,
) -> Result<Vec<(VmId, Option<Generation>, Outcome)>, Error> {
    let mut outcomes = Vec::new();
    for vm in env.ledger.vms()? {
        let mut convergence = Convergence::new(vm.id);
        let outcome = settle(env, &mut convergence, waiter);
        let stuck = matches!(outcome, Outcome::Unfinished { .. } | Outcome::Fenced { .. });
        outcomes.push((vm.id, convergence.generation(), outcome));
        if stuck && planted(Planted::StuckVmBlocksAnother) {
            break;
        }
    }
    Ok(outcomes)
}
