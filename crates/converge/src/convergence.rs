//! One VM on its way to its goal, one action at a time.

use crate::{
    Change, Env, Error, Failure, Ledger, LedgerError, Recipes, apply, error::chain, observe,
    request,
};
use banger_host::Host;
use banger_model::{
    Generation, OpId, Phase, ProcessHandle, Reason, ReasonKind, Role, Vm, VmHandles, VmId,
};
use banger_plan::{
    Action, AgentSeen, Grace, Observed, Planted, planted::planted, reconcile, rollback_goal,
};
use std::{collections::VecDeque, time::Duration};

/// More looks than any plan needs: create takes four.
const MOST_LOOKS: u32 = 40;

/// A VM on its way to its goal.
///
/// It keeps nothing that the row or the machine could tell: only the queue of the last plan, and
/// what cannot be seen (what the guest said, how far a graceful stop went, what failed).
#[derive(Debug)]
pub struct Convergence {
    pub(crate) id: VmId,
    /// The goal the queue was planned for.
    pub(crate) generation: Option<Generation>,
    queue: VecDeque<Action>,
    /// What the queue was planned from.
    pub(crate) seen: Option<Observed>,
    /// Handles as they are made; what `SaveHandles` writes.
    pub(crate) handles: Option<VmHandles>,
    agent: AgentSeen,
    grace: Grace,
    last_word: Option<Reason>,
    /// Boots that ended without a hello.
    silent_boots: u32,
    /// A failure the driver told of, to be dealt with at the next step.
    told_failure: Option<Error>,
    /// What made the operation fail; from then on it is being undone.
    cause: Option<Failure>,
    /// True while the goal is the one this convergence fell back to.
    undoing: bool,
    /// Failures on the way forward, or of the undoing.
    failures: Vec<Failure>,
    /// The row as last read; after `ForgetRow` all that is left of it.
    row: Option<Vm>,
    row_gone: bool,
    looks: u32,
    /// Names the directory of the logs of a failed create.
    pub(crate) operation: Option<OpId>,
    /// Where the logs of a failed create went.
    pub(crate) kept_logs: Option<std::path::PathBuf>,
}

/// What a step did.
#[derive(Debug)]
pub enum Step {
    /// Applied an action.
    Did(Action),
    /// Tried something that failed; the convergence knows how to go on.
    Failed,
    /// The driver must let go of the VM's lock, wait, and tell.
    Wait(Wait),
    /// Nothing more to do for now.
    Settled(Outcome),
}

/// Something that is waited for without the VM's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The guest's hello on the agent channel, and then its word that it runs commands. Tell
    /// [`Told::Ready`], [`Told::NoHello`] when the time for the hello is over, [`Told::GuestFailed`],
    /// or [`Told::VmmEnded`].
    Ready {
        /// Time limit of the hello.
        hello: Duration,
        /// Time limit from there to the second word.
        ready: Duration,
    },
    /// Ask the guest to sync and power off, and wait for the VMM to end. Tell
    /// [`Told::PowerOffOver`] however it went.
    PowerOff {
        /// Time limit.
        within: Duration,
    },
    /// A process that was asked to end. Tell [`Told::ExitOver`] however it went.
    Exit {
        /// Its role.
        role: Role,
        /// Which process.
        process: ProcessHandle,
        /// Time limit.
        within: Duration,
    },
}

/// What a driver saw while it waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The guest runs commands.
    Ready,
    /// It did not even say hello, in the time given.
    NoHello,
    /// It said hello, and then that it cannot run commands, or nothing more in the time given: a
    /// sentence that says why. It may have written to its disks.
    GuestFailed(String),
    /// The VMM ended before the guest was ready; what is known about why.
    VmmEnded(String),
    /// The guest was asked to power off, or could not be; its time is over.
    PowerOffOver,
    /// The process was given its time to end.
    ExitOver,
    /// No grace is wanted (kill).
    NoGrace,
    /// Why the VMM ended by itself, in its guest's last words.
    LastWord(Reason),
}

/// How a convergence ended.
#[derive(Debug)]
pub enum Outcome {
    /// The VM is where its row says, for the reason the row gives.
    Done(Box<Vm>),
    /// The VM is gone, row and all.
    Gone,
    /// Create or start failed and was undone.
    RolledBack {
        /// Why it failed.
        cause: Failure,
        /// Where the logs of a failed create were kept.
        kept_logs: Option<std::path::PathBuf>,
    },
    /// Create or start failed, and so did undoing it: the VM is in phase *error*.
    Fenced {
        /// Why it failed.
        cause: Failure,
        /// Why it could not be undone.
        undo: Vec<Failure>,
    },
    /// Not there yet; the goal stays, and a later convergence goes on.
    Unfinished {
        /// Everything that failed.
        failures: Vec<Failure>,
    },
}

impl Convergence {
    /// A convergence of this VM, from wherever it is.
    pub const fn new(id: VmId) -> Self {
        Convergence {
            id,
            generation: None,
            queue: VecDeque::new(),
            seen: None,
            handles: None,
            agent: AgentSeen::Silent,
            grace: Grace::Fresh,
            last_word: None,
            silent_boots: 0,
            told_failure: None,
            cause: None,
            undoing: false,
            failures: Vec::new(),
            row: None,
            row_gone: false,
            looks: 0,
            operation: None,
            kept_logs: None,
        }
    }

    /// Names the operation it is part of: logs of a failed create are kept under this id.
    pub const fn of_operation(mut self, operation: OpId) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The VM.
    pub const fn id(&self) -> VmId {
        self.id
    }

    /// The goal it is working for; a driver whose request had another was superseded.
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Takes one step. To be called under the VM's lock, until it settles.
    pub fn step<H: Host, L: Ledger, R: Recipes>(&mut self, env: &Env<'_, H, L, R>) -> Step {
        match self.next(env) {
            Ok(Next::Act(action)) => self.act(env, action),
            Ok(Next::Settled(outcome)) => Step::Settled(outcome),
            Err(error) => {
                let action = error.of_guest().then_some(Action::AwaitReady);
                self.fail(env, Failure { action, error })
            }
        }
    }

    /// Takes what the driver saw while it waited.
    pub fn tell<H, L, R>(&mut self, env: &Env<'_, H, L, R>, told: Told) {
        match told {
            Told::Ready => self.agent = AgentSeen::Ready,
            Told::NoHello => self.boot_again(env),
            Told::GuestFailed(_) if planted(Planted::HelloTakenForReady) => {
                self.agent = AgentSeen::Ready;
            }
            Told::GuestFailed(_) if planted(Planted::FailedGuestBootedAgain) => {
                self.boot_again(env);
            }
            Told::GuestFailed(why) => self.told_failure = Some(Error::GuestFailed(why)),
            Told::VmmEnded(why) => {
                self.told_failure = Some(Error::VmmEnded {
                    why,
                    log: env.site.process_log(self.id, Role::Vmm),
                });
            }
            Told::PowerOffOver => self.grace = self.grace.max(Grace::GuestSpent),
            Told::ExitOver | Told::NoGrace => self.grace = Grace::Spent,
            Told::LastWord(reason) => self.last_word = Some(reason),
        }
    }

    /// A boot without a hello is tried again: nothing can be lost before the first word.
    fn boot_again<H, L, R>(&mut self, env: &Env<'_, H, L, R>) {
        self.silent_boots += 1;
        if self.silent_boots <= env.site.limits.boot_retries {
            self.queue = VecDeque::from([Action::Kill(Role::Vmm)]);
        } else {
            self.told_failure = Some(Error::NoHello {
                within: env.site.limits.hello,
                boots: self.silent_boots,
                console: env.site.console_log(self.id),
            });
        }
    }

    /// The next action, after making sure that the goal is still the one it was planned for.
    fn next<H: Host, L: Ledger, R: Recipes>(
        &mut self,
        env: &Env<'_, H, L, R>,
    ) -> Result<Next, Error> {
        if !self.row_gone {
            match env.ledger.vm(self.id)? {
                Some(vm) => self.follow(vm),
                None => return Ok(Next::Settled(Outcome::Gone)),
            }
        }
        if let Some(error) = self.told_failure.take() {
            return Err(error);
        }
        if self.queue.is_empty() {
            if !self.failures.is_empty() {
                return Ok(Next::Settled(self.give_up(env)?));
            }
            self.look(env)?;
        }
        Ok(match self.queue.pop_front() {
            Some(action) => Next::Act(action),
            None => Next::Settled(self.arrived()),
        })
    }

    /// Takes over the row as it is now; a newer goal voids the plan and what was told for the old.
    fn follow(&mut self, vm: Vm) {
        let newer = self.generation != Some(vm.generation);
        let ignored = self.generation.is_some() && planted(Planted::StaleGenerationActs);
        if newer && !ignored {
            if self.generation.is_some() {
                // What was told before the first look is about this goal.
                self.grace = Grace::Fresh;
                self.last_word = None;
                self.told_failure = None;
            }
            self.generation = Some(vm.generation);
            self.queue.clear();
            self.failures.clear();
            self.undoing = false;
            self.looks = 0;
            self.agent = AgentSeen::Silent;
            self.silent_boots = 0;
        }
        self.row = Some(vm);
    }

    /// Looks at the machine and plans.
    fn look<H: Host, L: Ledger, R: Recipes>(
        &mut self,
        env: &Env<'_, H, L, R>,
    ) -> Result<(), Error> {
        let Some(vm) = self.row.as_ref().filter(|_| !self.row_gone) else {
            return Ok(());
        };
        self.looks += 1;
        if self.looks > MOST_LOOKS {
            return Err(Error::Endless(MOST_LOOKS));
        }
        let mut seen = observe(env, vm)?;
        seen.agent = self.agent;
        seen.grace = self.grace;
        seen.last_word.clone_from(&self.last_word);
        self.handles = Some(observe::handles_as_seen(env.site, vm, &seen));
        self.queue = reconcile(vm, &seen).into();
        self.seen = Some(seen);
        Ok(())
    }

    fn act<H: Host, L: Ledger, R: Recipes>(
        &mut self,
        env: &Env<'_, H, L, R>,
        action: Action,
    ) -> Step {
        let Some(vm) = self.row.clone() else {
            // `next` has read the row, or settled.
            return Step::Settled(Outcome::Gone);
        };
        match apply::apply(self, env, &vm, &action) {
            Ok(apply::Applied::Done) => {
                self.row_gone |= action == Action::ForgetRow;
                Step::Did(action)
            }
            Ok(apply::Applied::Wait(wait)) => Step::Wait(wait),
            Err(error) => self.fail(
                env,
                Failure {
                    action: Some(action),
                    error,
                },
            ),
        }
    }

    fn fail<H: Host, L: Ledger, R: Recipes>(
        &mut self,
        env: &Env<'_, H, L, R>,
        failure: Failure,
    ) -> Step {
        if failure.error.crashed() {
            // Dead: neither undo nor write down.
            return Step::Settled(Outcome::Unfinished {
                failures: vec![failure],
            });
        }
        if failure.error.superseded() && !self.row_gone {
            // Another request came first; the next step follows it.
            self.queue.clear();
            return Step::Failed;
        }
        let row = self.row.clone().filter(|_| !self.row_gone);
        match row.as_ref().and_then(|vm| Some((vm, rollback_goal(vm)?))) {
            Some((vm, (goal, phase))) => {
                let reason = failed_to_start(&failure);
                let fallen = request::fall_back(env, vm, goal, phase, reason);
                self.undo(failure, fallen)
            }
            None => self.stumble(failure),
        }
    }

    /// From here on the operation is being undone, unless a newer request decides otherwise.
    fn undo(&mut self, failure: Failure, fallen: Result<Generation, Error>) -> Step {
        self.queue.clear();
        self.looks = 0;
        match fallen {
            Ok(generation) => {
                self.generation = Some(generation);
                self.undoing = true;
                // The guest was never ready, or its start is void: there is nothing to save.
                self.grace = Grace::Spent;
            }
            Err(error) if error.superseded() => {}
            Err(error) => {
                // Not even the new goal could be written. Crash recovery will find an interrupted
                // operation; nothing more is tried on a machine in this state.
                let undo = vec![Failure {
                    action: None,
                    error,
                }];
                return Step::Settled(Outcome::Fenced {
                    cause: failure,
                    undo,
                });
            }
        }
        self.cause = Some(failure);
        Step::Failed
    }

    /// Forward only: the failure is kept, and what does not depend on it goes on (R-HOST-2).
    fn stumble(&mut self, failure: Failure) -> Step {
        let independent = failure.action.as_ref().is_some_and(Action::is_teardown);
        self.queue
            .retain(|action| independent && action.is_teardown());
        self.failures.push(failure);
        Step::Failed
    }

    /// Ends with failures: written down in the row, and, if something was being undone, fenced.
    fn give_up<H: Host, L: Ledger, R: Recipes>(
        &mut self,
        env: &Env<'_, H, L, R>,
    ) -> Result<Outcome, Error> {
        let failures = std::mem::take(&mut self.failures);
        let cause = self.cause.take().filter(|_| self.undoing);
        if let (Some(vm), false) = (&self.row, self.row_gone) {
            let change = epitaph(vm, cause.as_ref(), &failures);
            match env.ledger.update(vm.id, vm.generation, &change) {
                // A newer goal speaks for itself; a failing database has nowhere to be written.
                Ok(()) | Err(LedgerError::Stale { .. } | LedgerError::NotFound(_)) => {}
                Err(error) => {
                    let mut failures = failures;
                    failures.push(Failure {
                        action: None,
                        error: error.into(),
                    });
                    return Ok(ended(cause, failures));
                }
            }
        }
        Ok(ended(cause, failures))
    }

    /// The plan is empty: where the row says.
    fn arrived(&mut self) -> Outcome {
        if let Some(cause) = self.cause.take() {
            let kept_logs = self.kept_logs.take();
            return Outcome::RolledBack { cause, kept_logs };
        }
        match self.row.take().filter(|_| !self.row_gone) {
            Some(vm) => Outcome::Done(Box::new(vm)),
            None => Outcome::Gone,
        }
    }
}

/// What a step does.
enum Next {
    Act(Action),
    Settled(Outcome),
}

fn ended(cause: Option<Failure>, failures: Vec<Failure>) -> Outcome {
    match cause {
        Some(cause) => Outcome::Fenced {
            cause,
            undo: failures,
        },
        None => Outcome::Unfinished { failures },
    }
}

fn failed_to_start(failure: &Failure) -> Reason {
    Reason {
        kind: ReasonKind::StartFailed,
        text: chain(failure),
    }
}

/// What the row says after failures: all of them, the one that began it first.
fn epitaph(vm: &Vm, cause: Option<&Failure>, failures: &[Failure]) -> Change {
    let told = cause.filter(|_| !planted(Planted::RollbackHidesCause));
    let texts: Vec<_> = told.into_iter().chain(failures).map(|f| chain(f)).collect();
    let fence = cause.map(|_| {
        let reason = Reason {
            kind: ReasonKind::RollbackFailed,
            text: format!(
                "it failed to start, and undoing that failed too; `banger vm stop {0}` or `banger vm delete {0}` tries again",
                vm.name
            ),
        };
        (Phase::Error, Some(reason))
    });
    Change {
        // Every way into phase *error* clears it (R-STATE-4).
        mirror: fence.is_some().then_some(None),
        phase: fence,
        last_error: Some(Some(texts.join("; then "))),
        ..Change::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-STATE-4: the mirror goes with every way into phase *error*, and stays on the way to a retry.
    #[test]
    fn a_fence_clears_the_mirror() {
        let failure = || Failure {
            action: None,
            error: Error::Endless(1),
        };
        let row: Result<Vm, _> = serde_json::from_str(include_str!("../tests/row.json"));
        let Ok(vm) = row else { panic!("{row:?}") };
        let fenced = epitaph(&vm, Some(&failure()), &[failure()]).apply(&vm);
        assert_eq!((fenced.phase, fenced.mirror), (Phase::Error, None));
        let retried = epitaph(&vm, None, &[failure()]).apply(&vm);
        assert_eq!((retried.phase, retried.mirror.is_some()), (vm.phase, true));
    }
}
