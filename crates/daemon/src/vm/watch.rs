//! One task per running VM: keeps the session with its agent, notices the end of its VMM, and then brings the row to
//! what is (R-STATE-11: a VMM that ends by itself means stopped).

use super::lifecycle::Forward;
use super::{VmService, clock};
use crate::host_network::last_word;
use crate::recipes::control_socket;
use banger_model::{Phase, ReasonKind, VmId};
use banger_wire::guest::{ClientError, ExecId};
use std::{pin::pin, sync::Arc, time::Duration};
use tracing::Instrument;

/// How long one attempt to reach an agent may take.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long a VMM that is gone may still be heard.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How long the VMM of a guest whose session was lost may take to be seen dead.
const SEEN_DEAD: Duration = Duration::from_millis(500);
/// Wait between attempts.
const PAUSE: Duration = Duration::from_secs(1);

impl VmService {
    /// Watches a running VM until its VMM ends or it is not meant to run. One task per VM, however often asked.
    pub fn watch(self: &Arc<Self>, id: VmId) {
        let entry = self.set.entry(id);
        if !entry.claim_watch() {
            return;
        }
        let service = Arc::clone(self);
        tokio::spawn(async move {
            if service.vmm(id).is_none() {
                // Its process is not recorded (yet): looked at again, and not at once.
                tokio::time::sleep(PAUSE).await;
            }
            let word = service.until_end(id).await;
            entry.unlink();
            entry.end_watch();
            service.ended(id, word).await;
        });
    }

    /// Waits for the end of the VMM, and hears what it says before.
    async fn until_end(self: &Arc<Self>, id: VmId) -> Option<ReasonKind> {
        let socket = control_socket(&self.core.site, id);
        // It holds its guest still by itself when a write finds no room; the disk-full watch lets it go on.
        let held = || {
            let service = Arc::clone(self);
            tokio::spawn(async move { service.is_held(id, true).await });
        };
        let mut listening = pin!(last_word(&socket, held));
        let mut ended = pin!(self.vmm_exited(id));
        let mut linked = pin!(self.keep_linked(id));
        let mut timed = pin!(self.keep_time(id));
        let mut published = pin!(self.keep_published(id));
        let mut heard = None;
        loop {
            tokio::select! {
                word = &mut listening, if heard.is_none() => heard = Some(word),
                () = &mut linked => {}
                () = &mut timed => {}
                () = &mut published => {}
                () = &mut ended => break,
            }
        }
        match heard {
            Some(word) => word,
            // What it said last may still lie in the socket.
            None => tokio::time::timeout(LAST_WORD, listening)
                .await
                .ok()
                .flatten(),
        }
    }

    /// Keeps the session with the agent; never ends by itself.
    async fn keep_linked(&self, id: VmId) {
        let entry = self.set.entry(id);
        loop {
            if let Some(guest) = entry.guest() {
                guest.closed().await;
                entry.link.send_replace(None);
                tracing::info!(vm = %id, "the session with the agent ended");
            }
            match self.connect(id, ATTEMPT).await {
                Ok(guest) => {
                    tracing::info!(vm = %id, "linked to the agent");
                    clock::tell(id, &guest);
                    entry.link.send_replace(Some(guest));
                }
                Err(error) => {
                    tracing::warn!(vm = %id, %error, "the agent cannot be reached");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether a VM runs on although the session with its agent was lost: the channel of a VMM that dies closes first.
    pub async fn outlives_session(&self, id: VmId) -> bool {
        let ended = tokio::time::timeout(SEEN_DEAD, self.vmm_exited(id)).await;
        ended.is_err()
    }

    /// The VMM ended: by a request, whose operation does the rest, or by itself.
    async fn ended(self: &Arc<Self>, id: VmId, word: Option<ReasonKind>) {
        let row = self.row(id).await;
        let Ok(Some(vm)) = row else {
            return;
        };
        if vm.phase != Phase::Running {
            return;
        }
        tracing::info!(vm = %id, name = %vm.name, "its VMM ended by itself");
        match self.background(id, word).await {
            Forward::Unfinished(failures) => {
                tracing::warn!(vm = %id, ?failures, "teardown is not finished");
            }
            Forward::Bug(error) => tracing::error!(vm = %id, %error, "teardown failed"),
            Forward::At | Forward::Gone | Forward::Superseded => {}
        }
    }
}

/// What recovery hands over.
impl VmService {
    /// Takes over a VM that a predecessor started and that lives.
    pub fn adopt(self: &Arc<Self>, id: VmId) {
        self.watch(id);
        // Its starter may have died before it was there.
        self.enclose(id);
        let service = Arc::clone(self);
        tokio::spawn(async move {
            service.find_held(id).await;
            service.find_nat(id).await;
        });
    }

    /// Deletes a VM when the command it was made for has ended and somebody has got its end, or nobody came for that
    /// (R-CLI-1: `--rm` is durable).
    pub fn remove_when_collected(self: &Arc<Self>, id: VmId) {
        let service = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = service.main_collected(id) => {}
                () = service.vmm_exited(id) => {}
            }
            service.remove_later(id);
        });
    }

    /// Waits until the agent does not keep a VM's main command any more, over as many sessions as it takes.
    async fn main_collected(&self, id: VmId) {
        let entry = self.set.entry(id);
        loop {
            let mut link = entry.link.subscribe();
            let linked = link.wait_for(|l| l.as_ref().is_some_and(|g| !g.is_closed()));
            // The entry keeps the sender.
            let guest = linked.await.ok().and_then(|guest| guest.clone());
            let Some(guest) = guest else {
                return;
            };
            match guest.collected(ExecId::MAIN).await {
                Err(ClientError::ConnectionLost) => tokio::time::sleep(PAUSE).await,
                Ok(()) => return,
                Err(error) => {
                    // An older agent ends a command with its session.
                    tracing::info!(vm = %id, %error, "the agent cannot say whether the command was collected");
                    return;
                }
            }
        }
    }

    /// Brings a VM to its goal in a task of its own.
    pub fn settle_later(self: &Arc<Self>, id: VmId) {
        let service = Arc::clone(self);
        tokio::spawn(async move {
            if let Forward::Bug(error) = service.background(id, None).await {
                tracing::error!(vm = %id, %error, "not brought to its goal");
            }
        });
    }

    /// Deletes a VM in a task of its own.
    pub fn remove_later(self: &Arc<Self>, id: VmId) {
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let removed = match service.registry.begin("vm.delete") {
                Ok((running, _events)) => {
                    let removing = service.remove(&running, id).instrument(running.span());
                    running.end(removing.await)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::error!(vm = %id, %error, "not deleted");
                service.retry_later(id);
            }
        });
    }
}
