//! Drives one VM to its goal: steps under its lock on a blocking thread, waits outside it (R-SVC-4).

use super::VmService;
use super::ready::{FirstCommand, Within};
use super::set::Entry;
use crate::core::Core;
use crate::host_network::exited;
use crate::ops::{Cancel, Operation, Why};
use crate::recipes::token;
use banger_converge::{Convergence, Ledger, Outcome, Step, Told, Wait};
use banger_model::{ProcessHandle, Reason, Role, VmId};
use banger_plan::{Action, explain};
use banger_vmm::boot::pins::PinnedKernel;
use banger_wire::api::{ApiError, Code};
use banger_wire::guest::GuestClient;
use std::{future::Future, sync::Arc, time::Duration};

/// How a drive ended.
#[derive(Debug)]
pub enum Driven {
    /// The convergence settled.
    Settled(Outcome),
    /// The operation was asked to end while something was waited for.
    Cancelled(Why),
}

/// How a VM is to be driven.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Ends the waits.
    pub cancel: &'a Cancel,
    /// Told of the stages, if there is one.
    pub operation: Option<&'a Operation>,
    /// Whether a live guest is asked to power off before it is killed.
    pub graceful: bool,
    /// Why a VMM ended by itself, as far as its guest or it said.
    pub last_word: Option<&'a Reason>,
    /// Sent with the guest's first word; without one the guest is asked whether it is ready.
    pub first: Option<&'a FirstCommand>,
}

impl<'a> How<'a> {
    /// Gracefully, and nobody's operation.
    pub const fn new(cancel: &'a Cancel) -> Self {
        How {
            cancel,
            operation: None,
            graceful: true,
            last_word: None,
            first: None,
        }
    }
}

/// What one turn under the lock ended with.
enum Turn {
    Wait(Wait),
    Settled(Outcome),
}

/// Keeps the kernel of a VM as it is, if there is such a VM.
fn reads(core: &Core, id: VmId) -> Option<PinnedKernel> {
    let vm = core.ledger.vm(id).ok().flatten()?;
    Some(core.recipes.kernel_names().pin(&vm.spec.kernel))
}

impl VmService {
    /// Drives a VM until its convergence settles or the operation is cancelled in a wait.
    ///
    /// # Errors
    /// A bug of ours.
    pub async fn drive(&self, id: VmId, how: How<'_>) -> Result<Driven, ApiError> {
        let entry = self.set.entry(id);
        // What a VMM is started with is one kernel's: its files are read one after the other, by it and by us.
        let _reads = self.core.blocking(move |core| reads(core, id)).await?;
        let mut convergence = Convergence::new(id);
        if let Some(operation) = how.operation {
            convergence = convergence.of_operation(operation.id);
        }
        if !how.graceful {
            convergence.tell(&self.core.env(), Told::NoGrace);
        }
        if let Some(word) = how.last_word {
            convergence.tell(&self.core.env(), Told::LastWord(word.clone()));
        }
        loop {
            let turn;
            (convergence, turn) = self.turn(&entry, convergence).await?;
            let wait = match turn {
                Turn::Settled(outcome) => return Ok(Driven::Settled(outcome)),
                Turn::Wait(wait) => wait,
            };
            tokio::select! {
                biased;
                why = how.cancel.fired() => return Ok(Driven::Cancelled(why)),
                told = self.wait(id, &entry, &wait, how.first) => convergence.tell(&self.core.env(), told),
            }
        }
    }

    /// Steps under the lock until there is something to wait for.
    async fn turn(
        &self,
        entry: &Entry,
        mut convergence: Convergence,
    ) -> Result<(Convergence, Turn), ApiError> {
        let _held = entry.lock.lock().await;
        let (convergence, turn) = self
            .core
            .blocking(move |core| {
                let env = core.env();
                loop {
                    match convergence.step(&env) {
                        Step::Did(action) => {
                            tracing::debug!(vm = %convergence.id(), "{}", explain(&action));
                            if action == Action::Spawn(Role::Vmm) {
                                tracing::info!(vm = %convergence.id(), "the VMM was started");
                            }
                        }
                        Step::Failed => {}
                        Step::Wait(wait) => return (convergence, Turn::Wait(wait)),
                        Step::Settled(outcome) => return (convergence, Turn::Settled(outcome)),
                    }
                }
            })
            .await?;
        Ok((convergence, turn))
    }

    async fn wait(
        &self,
        id: VmId,
        entry: &Entry,
        wait: &Wait,
        first: Option<&FirstCommand>,
    ) -> Told {
        match wait {
            Wait::Ready { hello, ready } => {
                let within = Within {
                    hello: *hello,
                    ready: *ready,
                };
                self.await_ready(id, entry, within, first).await
            }
            Wait::PowerOff { within } => {
                self.power_off(id, entry, *within).await;
                Told::PowerOffOver
            }
            Wait::Exit {
                process, within, ..
            } => {
                let _ = tokio::time::timeout(*within, exited(*process)).await;
                Told::ExitOver
            }
        }
    }

    /// Connects to a VM's agent.
    ///
    /// # Errors
    /// No answer in time, or the handshake failed.
    pub async fn connect(&self, id: VmId, within: Duration) -> Result<GuestClient, ApiError> {
        let failed = |why: &str| ApiError::new(Code::OperationFailed, why);
        let vm = self
            .row(id)
            .await?
            .ok_or_else(|| failed("the VM is gone"))?;
        let token =
            token(&vm.spec.channel_token).ok_or_else(|| failed("its channel token is damaged"))?;
        let network = self.peers.network()?;
        let linked = network.link(&vm.runtime.vsock_path, &token, within);
        linked
            .await
            .map_err(|error| ApiError::of(Code::OperationFailed, &error))
    }

    /// Asks the guest to power off and waits for its VMM's end, for at most `within`. A guest that cannot be asked is
    /// not waited for.
    async fn power_off(&self, id: VmId, entry: &Entry, within: Duration) {
        let Some(guest) = entry.guest() else {
            return;
        };
        let asked = async {
            if let Err(error) = guest.poweroff().await {
                tracing::info!(vm = %id, %error, "the guest was asked to power off and did not answer");
            }
            self.vmm_exited(id).await;
        };
        if tokio::time::timeout(within, asked).await.is_err() {
            tracing::warn!(vm = %id, ?within, "the guest did not power off in time");
        }
    }

    /// Waits for the end of the VMM as recorded; returns at once if none is.
    pub fn vmm_exited(&self, id: VmId) -> impl Future<Output = ()> + use<> {
        let process = self.vmm(id);
        async move {
            if let Some(process) = process {
                exited(process).await;
            }
        }
    }

    /// The VMM's process as recorded.
    pub fn vmm(&self, id: VmId) -> Option<ProcessHandle> {
        let handles = self.core.shared.handles.get(id)?;
        handles.processes.get(&Role::Vmm).copied()
    }

    /// The end of the VMM's log, for the reason of its end.
    pub(super) async fn last_words(&self, id: VmId) -> String {
        let log = self.core.site.process_log(id, Role::Vmm);
        let said = self
            .core
            .blocking(move |_| super::logs::tail(&log, 3))
            .await;
        match said {
            Ok(Ok((text, _))) if !text.trim().is_empty() => text.trim().replace('\n', "; "),
            _ => "it said nothing".to_owned(),
        }
    }
}

/// A token nobody fires, for work that no request began.
pub fn unasked() -> Cancel {
    Cancel::default()
}

/// Keeps the compiler's promise that drives may run in tasks.
#[allow(dead_code, reason = "checked by the compiler, never called")]
fn drives_are_send(service: &Arc<VmService>, id: VmId, cancel: &Cancel) {
    fn send<T: Send>(_: T) {}
    send(service.drive(id, How::new(cancel)));
}
