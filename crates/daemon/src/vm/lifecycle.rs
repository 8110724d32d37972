//! Start, stop, kill, delete: a goal first, then the running operation's token, then the VM's lock (R-SVC-4).

use super::drive::{Driven, How, unasked};
use super::{VmService, request_error, unfinished};
use crate::core::Core;
use crate::ops::{Cancel, Operation, Why};
use banger_converge::request::{self, Accepted, RequestError};
use banger_converge::{Failure, Ledger, Outcome};
use banger_model::{Goal, Phase, ReasonKind, Vm, VmId};
use banger_wire::api::{self, ApiError, Code, Deleted, VmState, VmView};
use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

type Result<T> = std::result::Result<T, ApiError>;

/// Wait before the first background retry; doubles to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait between background retries.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// When a VM whose convergence did not finish is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    at: Instant,
    wait: Duration,
}

/// How a goal that only goes forward ended.
#[derive(Debug)]
pub enum Forward {
    /// Where it was wanted, or at another goal that came meanwhile.
    At,
    /// Gone.
    Gone,
    /// Not there yet; it is tried again.
    Unfinished(Vec<Failure>),
    /// A newer request took over.
    Superseded,
    /// A bug of ours.
    Bug(ApiError),
}

impl VmService {
    /// `vm.start`.
    ///
    /// # Errors
    /// Refused, failed and rolled back, or cancelled.
    pub async fn start(self: &Arc<Self>, op: &Operation, reference: &str) -> Result<VmView> {
        self.core.writable()?;
        let vm = self.find_settled(reference).await?;
        op.about(&vm);
        if vm.phase == Phase::Stopped && vm.goal != Goal::Absent {
            // In any other phase the refusal is about the VM, not about the machine.
            self.check_start(&vm).await?;
        }
        self.up(op, &vm).await
    }

    /// Boots a VM that is stopped.
    pub(super) async fn up(self: &Arc<Self>, op: &Operation, vm: &Vm) -> Result<VmView> {
        let id = vm.id;
        let accepted = {
            let _no_recovery = self.create_lock.lock().await;
            if let Some(why) = op.cancel.why() {
                return Err(why.error());
            }
            let started = self
                .core
                .blocking(move |core| request::start(&core.env(), id));
            started.await?.map_err(|e| request_error(&e))?
        };
        if !accepted.new {
            return Err(ApiError::new(
                Code::Precondition,
                format!("VM '{}' is running, or about to", vm.name),
            )
            .hint(format!("banger vm exec {} -- sh", vm.name)));
        }
        let entry = self.set.entry(id);
        entry.take_over(&op.cancel);
        entry.disturb();
        for warning in self.bind_again(vm) {
            op.tell(warning);
        }
        self.boot(op, id, None)
            .await
            .map_err(|failed| failed.of_start(&vm.name))?;
        self.used(id);
        self.view(id).await
    }

    /// The VM a reference means; one whose VMM ended a moment ago is first brought to *stopped*, as it is shown already.
    pub(super) async fn find_settled(self: &Arc<Self>, reference: &str) -> Result<Vm> {
        let vm = self.find(reference).await?;
        if vm.phase != Phase::Running {
            return Ok(vm);
        }
        let (service, row) = (Arc::clone(self), vm.clone());
        if self.core.blocking(move |_| service.may_live(&row)).await? {
            return Ok(vm);
        }
        if let Forward::Bug(error) = self.background(vm.id, None).await {
            return Err(error);
        }
        self.find(&vm.id.to_string()).await
    }

    /// `vm.stop`.
    ///
    /// # Errors
    /// Refused, or not finished yet.
    pub async fn stop(self: &Arc<Self>, op: &Operation, reference: &str) -> Result<VmView> {
        self.stop_or_kill(op, reference, true).await
    }

    /// `vm.kill`: waits for no other operation; its goal makes them end.
    ///
    /// # Errors
    /// Refused, or not finished yet.
    pub async fn kill(self: &Arc<Self>, op: &Operation, reference: &str) -> Result<VmView> {
        self.stop_or_kill(op, reference, false).await
    }

    async fn stop_or_kill(
        self: &Arc<Self>,
        op: &Operation,
        reference: &str,
        graceful: bool,
    ) -> Result<VmView> {
        self.core.writable()?;
        let vm = self.find(reference).await?;
        op.about(&vm);
        let id = vm.id;
        let ask = move |core: &Core| request::stop(&core.env(), id);
        self.down(op, &vm, graceful, ask).await
    }

    /// Writes the goal that `ask` asks for, which leads down, and brings the VM there.
    pub(super) async fn down(
        self: &Arc<Self>,
        op: &Operation,
        vm: &Vm,
        graceful: bool,
        ask: impl FnOnce(&Core) -> std::result::Result<Accepted, RequestError> + Send + 'static,
    ) -> Result<VmView> {
        op.stage("stop", format!("stopping '{}'", vm.name));
        let id = vm.id;
        self.core
            .blocking(ask)
            .await?
            .map_err(|e| request_error(&e))?;
        // Who stops it had to do with it: `vm prune --older-than` counts from now.
        self.used(id);
        match self.settle(id, graceful, &op.cancel).await {
            Forward::At => self.view(id).await,
            Forward::Gone => Err(conflict(vm, "was deleted meanwhile")),
            Forward::Superseded => Err(conflict(vm, "was given another goal meanwhile")),
            Forward::Unfinished(failures) => Err(unfinished(
                format!("VM '{}' is not down yet", vm.name),
                &failures,
            )),
            Forward::Bug(error) => Err(error),
        }
    }

    /// `vm.delete`.
    ///
    /// # Errors
    /// It runs or comes up and `force` was not given, or not finished yet.
    pub async fn delete(
        self: &Arc<Self>,
        op: &Operation,
        request: &api::VmDelete,
    ) -> Result<Deleted> {
        self.core.writable()?;
        let vm = match self.find(&request.vm).await {
            Err(error) if error.code == Code::NotFound => self.entomb_lost(request, error).await?,
            found => found?,
        };
        let deleted = Deleted {
            id: vm.id,
            name: vm.name.clone(),
        };
        let view = match self.view(vm.id).await {
            // A delete that was under way has just ended: it is what was asked for.
            Err(error) if error.code == Code::NotFound => return Ok(deleted),
            other => other?,
        };
        if !request.force
            && let Some(refusal) = up(&view)
        {
            return Err(refusal);
        }
        op.about(&vm);
        self.remove(op, vm.id).await?;
        Ok(deleted)
    }

    /// Deletes a VM whatever it does: tombstone, SIGKILL, teardown.
    ///
    /// # Errors
    /// Not finished yet; it is tried again.
    pub async fn remove(self: &Arc<Self>, op: &Operation, id: VmId) -> Result<()> {
        op.stage("delete", format!("deleting {id}"));
        let written = self
            .core
            .blocking(move |core| request::delete(&core.env(), id))
            .await?;
        match written {
            Ok(_) => {}
            Err(RequestError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(request_error(&error)),
        }
        self.set.entry(id).disturb();
        match self.settle(id, false, &unasked()).await {
            Forward::Gone => Ok(()),
            Forward::At | Forward::Superseded => Ok(()),
            Forward::Unfinished(failures) => {
                Err(unfinished(format!("VM {id} is not gone yet"), &failures))
            }
            Forward::Bug(error) => Err(error),
        }
    }

    /// Drives a VM to the goal its row has, forward only: what fails is tried again in the background.
    pub async fn settle(self: &Arc<Self>, id: VmId, graceful: bool, cancel: &Cancel) -> Forward {
        self.set.entry(id).take_over(cancel);
        let how = How {
            graceful,
            ..How::new(cancel)
        };
        self.follow(id, how).await
    }

    /// Brings a VM to what its row says, as nobody's operation: it supersedes none. `word` is what its VMM said of its
    /// guest before it ended, if it ended and was heard.
    pub async fn background(self: &Arc<Self>, id: VmId, word: Option<ReasonKind>) -> Forward {
        let cancel = unasked();
        let service = Arc::clone(self);
        let said = self.core.blocking(move |core| {
            let vm = core.ledger.vm(id).ok().flatten()?;
            // What ended in any other phase did so on request, or is told by its operation.
            let up = vm.phase == Phase::Running;
            up.then(|| service.said_at_the_end(&vm, word)).flatten()
        });
        let said = match said.await {
            Ok(said) => said,
            Err(error) => return Forward::Bug(error),
        };
        let how = How {
            last_word: said.as_ref(),
            ..How::new(&cancel)
        };
        self.follow(id, how).await
    }

    async fn follow(self: &Arc<Self>, id: VmId, how: How<'_>) -> Forward {
        let entry = self.set.entry(id);
        let driven = match self.drive(id, how).await {
            Ok(driven) => driven,
            Err(error) => return Forward::Bug(error),
        };
        match driven {
            Driven::Settled(Outcome::Done(vm)) => {
                if vm.phase == Phase::Running {
                    self.watch(id);
                } else {
                    entry.unlink();
                }
                Forward::At
            }
            Driven::Settled(Outcome::Gone) => {
                entry.unlink();
                self.set.forget(id);
                self.uses.forget(id);
                self.unpin().await;
                Forward::Gone
            }
            Driven::Settled(Outcome::Unfinished { failures }) => {
                self.retry_later(id);
                Forward::Unfinished(failures)
            }
            Driven::Settled(Outcome::RolledBack { cause, .. } | Outcome::Fenced { cause, .. }) => {
                entry.unlink();
                self.retry_no_more(id);
                Forward::Unfinished(vec![cause])
            }
            Driven::Cancelled(Why::Superseded) => Forward::Superseded,
            Driven::Cancelled(_) => {
                // Forward only: whoever stopped waiting, the goal stays.
                self.retry_later(id);
                Forward::Unfinished(Vec::new())
            }
        }
    }

    /// Puts a VM on the background loop's list, with back-off.
    pub fn retry_later(&self, id: VmId) {
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let wait = unfinished
            .get(&id)
            .map_or(FIRST_RETRY, |r| (r.wait * 2).min(LAST_RETRY));
        let at = Instant::now() + wait;
        unfinished.insert(id, Retry { at, wait });
        self.work.notify_one();
    }

    /// Takes a VM from the list: a time that has passed and stays there would make the loop spin.
    fn retry_no_more(&self, id: VmId) {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Tries again what is due; returns when the next is.
    pub async fn retry_due(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let due: Vec<VmId> = {
            let list = self
                .unfinished
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            list.iter()
                .filter(|(_, r)| r.at <= now)
                .map(|(id, _)| *id)
                .collect()
        };
        // Side by side: one that is stuck until its time limits keeps no other waiting (R-HOST-9).
        let mut tries = tokio::task::JoinSet::new();
        for id in due {
            let service = Arc::clone(self);
            tries.spawn(async move { service.retry(id).await });
        }
        while tries.join_next().await.is_some() {}
        let list = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        list.values().map(|r| r.at).min()
    }

    /// Tries one VM again; takes it from the list if nothing is left to try.
    async fn retry(self: &Arc<Self>, id: VmId) {
        match self.background(id, None).await {
            Forward::Unfinished(failures) => {
                for failure in &failures {
                    tracing::warn!(vm = %id, error = %ApiError::of(Code::OperationFailed, failure), "still not at its goal");
                }
            }
            Forward::Bug(error) => {
                tracing::error!(vm = %id, %error, "still not at its goal");
                self.retry_later(id);
            }
            _ => self.retry_no_more(id),
        }
    }
}

/// Why a VM is not deleted unless that is insisted on: something of it runs, or is about to.
fn up(view: &VmView) -> Option<ApiError> {
    let first = match view.state {
        VmState::Running | VmState::Paused | VmState::Stopping => {
            format!("banger vm stop {}", view.name)
        }
        VmState::Creating | VmState::Starting => "wait until it runs (banger vm list)".to_owned(),
        VmState::Stopped | VmState::Deleting | VmState::Error => return None,
    };
    let refusal = ApiError::new(
        Code::Precondition,
        format!("VM '{}' is {}", view.name, view.state),
    );
    Some(refusal.hint(format!(
        "{first}, or insist with banger vm delete --force {}",
        view.name
    )))
}

fn conflict(vm: &Vm, what: &str) -> ApiError {
    ApiError::new(Code::Conflict, format!("VM '{}' {what}", vm.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs, or is about to, is deleted only by force; what is down, or goes already, is not kept.
    #[test]
    fn only_what_is_down_is_deleted_without_force() {
        let view = |state| {
            let text = format!(
                r#"{{"id":"00ab12cd34ef","name":"dev","state":"{state}","reason":null,"goal":"running",
                "image":"debian","kernel":"k","vcpus":1,"memory":1,"overlay_size":1,"disk_size":1,"nat":false,
                "remove_on_exit":false,"drivers":{{"vmm":"qemu","root":"overlay","network":"user","jail":false,
                "cgroup":false,"helper":false}},"created_at":1,"last_used_at":1}}"#
            );
            serde_json::from_str::<VmView>(&text).unwrap()
        };
        for (state, way_out) in [
            ("running", "banger vm stop dev"),
            ("paused", "banger vm stop dev"),
            ("stopping", "banger vm stop dev"),
            ("starting", "banger vm list"),
            ("creating", "banger vm list"),
        ] {
            let refusal = up(&view(state)).unwrap();
            assert_eq!(refusal.message, format!("VM 'dev' is {state}"));
            let hint = refusal.hint.unwrap();
            assert!(
                hint.contains(way_out) && hint.contains("--force dev"),
                "{hint}"
            );
        }
        for state in ["stopped", "deleting", "error"] {
            assert_eq!(up(&view(state)), None, "{state}");
        }
    }
}
