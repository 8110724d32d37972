//! `vm.restart`, `vm.rename`, `vm.wait`.

use super::{Result, VmService, name, request_error};
use crate::ops::Operation;
use banger_converge::{request, request::RequestError, settled};
use banger_model::{Phase, Vm};
use banger_wire::api::{
    ApiError, Code, HealthView, MAX_WAIT_MS, VmRename, VmState, VmView, VmWait, WaitFor, WaitView,
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often a guest that is not well is asked again: nothing tells when that changes.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl VmService {
    /// `vm.restart`: one that is stopped is started. What would keep it from starting is told before it is stopped.
    ///
    /// # Errors
    /// Refused; not down in time, or not up again; another request decided otherwise.
    pub async fn restart(self: &Arc<Self>, op: &Operation, reference: &str) -> Result<VmView> {
        self.core.writable()?;
        let vm = self.find_settled(reference).await?;
        op.about(&vm);
        // Between its halves it is a stopped VM to others: nobody clears it away then.
        let _in_use = self.in_use(vm.id);
        self.check_start(&vm).await?;
        if vm.phase != Phase::Stopped {
            let id = vm.id;
            self.down(op, &vm, true, move |core| {
                request::stop_to_restart(&core.env(), id)
            })
            .await?;
        }
        if let Some(why) = op.cancel.why() {
            return Err(why.error());
        }
        self.up(op, &vm).await
    }

    /// `vm.rename`.
    ///
    /// # Errors
    /// The name is taken, or the VM is on its way somewhere.
    pub async fn rename(self: &Arc<Self>, op: &Operation, request: &VmRename) -> Result<VmView> {
        self.core.writable()?;
        let vm = self.find_settled(&request.vm).await?;
        op.about(&vm);
        let (id, wanted) = (vm.id, request.name.clone());
        // Not between two steps of whoever works on it.
        let entry = self.set.entry(id);
        let _still = entry.lock.lock().await;
        let _names = self.create_lock.lock().await;
        let renamed = self
            .core
            .blocking(move |core| settled::rename(&core.env(), id, &wanted))
            .await?;
        match renamed {
            Ok(_) => self.view(id).await,
            Err(RequestError::AlreadyExists(taken)) => Err(name::taken(&taken)),
            Err(error) => Err(request_error(&error)),
        }
    }

    /// `vm.wait`; at most until the daemon ends.
    ///
    /// # Errors
    /// Too long a wait, no such VM (unless it is to be gone), or the database failed.
    pub async fn wait_for(
        self: &Arc<Self>,
        request: &VmWait,
        ending: impl Future<Output = ()>,
    ) -> Result<WaitView> {
        if request.timeout_ms > MAX_WAIT_MS {
            let message = format!(
                "one wait takes at most {MAX_WAIT_MS} ms, not {}",
                request.timeout_ms
            );
            return Err(ApiError::new(Code::BadRequest, message).hint("ask again"));
        }
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.into());
        let vm = match self.find(&request.vm).await {
            Err(error) if error.code == Code::NotFound && request.wanted == WaitFor::Deleted => {
                return Ok(gone(None, WaitFor::Deleted));
            }
            found => found?,
        };
        let entry = self.set.entry(vm.id);
        let (mut rows, mut link) = (self.core.ledger.changes(), entry.link.subscribe());
        let (mut paused, mut ending) = (entry.paused.subscribe(), pin!(ending));
        loop {
            // Seen before the look, so that what changes during it is not missed.
            rows.borrow_and_update();
            link.borrow_and_update();
            paused.borrow_and_update();
            let seen = self.state_for(&vm, request.wanted).await?;
            // One that is fenced is moved by a person only, and that may be next week.
            let fenced = seen.state == Some(VmState::Error) && request.wanted != WaitFor::Deleted;
            let hopeless = seen.state.is_none() || fenced;
            let asks = seen.state == Some(VmState::Running);
            if seen.reached || hopeless || Instant::now() >= deadline {
                return Ok(seen);
            }
            tokio::select! {
                _ = rows.changed() => {}
                _ = paused.changed() => {}
                _ = link.changed() => {}
                () = tokio::time::sleep(ASK_AGAIN), if asks => {}
                () = tokio::time::sleep_until(deadline) => {}
                // Whoever waits asks the next daemon.
                () = &mut ending => return Ok(seen),
            }
        }
    }

    /// How a VM stands to what is waited for.
    async fn state_for(self: &Arc<Self>, vm: &Vm, wanted: WaitFor) -> Result<WaitView> {
        let view = match self.view(vm.id).await {
            Err(error) if error.code == Code::NotFound => return Ok(gone(Some(vm), wanted)),
            view => view?,
        };
        if wanted == WaitFor::Healthy && view.state == VmState::Running {
            return Ok(of_health(self.health(&vm.id.to_string()).await?));
        }
        let reached = match wanted {
            WaitFor::Running => view.state == VmState::Running,
            WaitFor::Stopped => view.state == VmState::Stopped,
            WaitFor::Deleted | WaitFor::Healthy => false,
        };
        Ok(WaitView {
            id: Some(view.id),
            name: Some(view.name),
            state: Some(view.state),
            reached,
            reason: view.reason.map(|reason| reason.text),
        })
    }
}

fn gone(vm: Option<&Vm>, wanted: WaitFor) -> WaitView {
    WaitView {
        id: vm.map(|vm| vm.id),
        name: vm.map(|vm| vm.name.clone()),
        state: None,
        reached: wanted == WaitFor::Deleted,
        reason: None,
    }
}

fn of_health(health: HealthView) -> WaitView {
    WaitView {
        id: Some(health.id),
        name: Some(health.name),
        state: Some(health.state),
        reached: health.healthy,
        reason: health.reason,
    }
}
