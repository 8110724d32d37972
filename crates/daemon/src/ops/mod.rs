//! The one registry of long methods (R-SVC-6): id, stage, detail, outcome; cancelled with their connection unless
//! detached; finished ones expire.

mod cancel;
mod shared;

pub use cancel::{Cancel, Why};
pub use shared::SharedWork;

use banger_model::{OpId, VmId};
use banger_wire::api::{ApiError, Event, OperationView, Outcome};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, watch};

/// How long a finished operation stays listed, in seconds.
const KEEP_SECONDS: u64 = 600;
/// How many finished operations stay listed.
const KEEP: usize = 100;
/// Events that may wait for a client. Progress beyond it is dropped: the next one says more.
const EVENTS: usize = 64;

/// Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes for ids and tokens.
///
/// # Errors
/// The kernel gives none.
pub fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        ApiError::new(
            banger_wire::api::Code::OperationFailed,
            "the system gives no random numbers",
        )
        .caused_by(&error)
    })?;
    Ok(bytes)
}

/// Every operation that runs or ended lately.
#[derive(Debug)]
pub struct Registry {
    operations: Mutex<BTreeMap<OpId, Arc<Operation>>>,
    running: watch::Sender<usize>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            operations: Mutex::default(),
            running: watch::channel(0).0,
        }
    }
}

/// One operation, as the work on it sees it.
#[derive(Debug)]
pub struct Operation {
    /// Identity; every error and log line of it carries it.
    pub id: OpId,
    /// Fired to end it.
    pub cancel: Cancel,
    view: Mutex<OperationView>,
    events: Option<mpsc::Sender<Event>>,
}

/// Marks the operation as ended when dropped, however the work on it ended.
#[derive(Debug)]
pub struct Running {
    operation: Arc<Operation>,
    registry: Arc<Registry>,
}

impl std::ops::Deref for Running {
    type Target = Arc<Operation>;
    fn deref(&self) -> &Arc<Operation> {
        &self.operation
    }
}

impl Registry {
    /// Begins an operation. Its events, if `events`, come out of the receiver.
    ///
    /// # Errors
    /// The system gives no random id.
    pub fn begin(
        self: &Arc<Self>,
        method: &str,
    ) -> Result<(Running, mpsc::Receiver<Event>), ApiError> {
        let id = OpId::from_bytes(random()?);
        let (events, receiver) = mpsc::channel(EVENTS);
        let operation = Arc::new(Operation {
            id,
            cancel: Cancel::default(),
            view: Mutex::new(OperationView {
                id,
                method: method.to_owned(),
                vm: None,
                stage: "accepted".to_owned(),
                detail: String::new(),
                outcome: Outcome::Running,
                error: None,
                started_at: now(),
                ended_at: None,
            }),
            events: Some(events),
        });
        let mut all = self.lock();
        expire(&mut all);
        all.insert(id, Arc::clone(&operation));
        self.running.send_modify(|n| *n += 1);
        Ok((
            Running {
                operation,
                registry: Arc::clone(self),
            },
            receiver,
        ))
    }

    /// Every operation, oldest first.
    pub fn list(&self) -> Vec<OperationView> {
        let mut views: Vec<_> = self.lock().values().map(|op| op.view()).collect();
        views.sort_by_key(|v| v.started_at);
        views
    }

    /// The operation of this id.
    pub fn get(&self, id: OpId) -> Option<Arc<Operation>> {
        self.lock().get(&id).cloned()
    }

    /// Operations under way.
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Waits until none is under way.
    pub async fn idle(&self) {
        let mut running = self.running.subscribe();
        let _ = running.wait_for(|n| *n == 0).await;
    }

    /// Asks every operation to end.
    pub fn cancel_all(&self, why: Why) {
        for operation in self.lock().values() {
            operation.cancel.fire(why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OpId, Arc<Operation>>> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn expire(all: &mut BTreeMap<OpId, Arc<Operation>>) {
    let mut ended: Vec<(u64, OpId)> = all
        .values()
        .filter_map(|op| op.view().ended_at.map(|at| (at, op.id)))
        .collect();
    ended.sort_unstable();
    let old = now().saturating_sub(KEEP_SECONDS);
    let surplus = ended.len().saturating_sub(KEEP);
    for (n, (at, id)) in ended.into_iter().enumerate() {
        if n < surplus || at < old {
            all.remove(&id);
        }
    }
}

impl Operation {
    /// How it stands.
    pub fn view(&self) -> OperationView {
        self.lock().clone()
    }

    /// Says which VM it is about.
    pub fn about(&self, vm: VmId) {
        self.lock().vm = Some(vm);
    }

    /// A new stage has begun, or moved.
    pub fn stage(&self, stage: &str, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::debug!(op = %self.id, stage, detail, "progress");
        {
            let mut view = self.lock();
            view.stage = stage.to_owned();
            view.detail.clone_from(&detail);
        }
        self.tell(Event::Progress {
            stage: stage.to_owned(),
            detail,
            done: None,
            total: None,
        });
    }

    /// The stage has got so far, in its own unit.
    pub fn moved(&self, done: u64, total: Option<u64>) {
        let (stage, detail) = {
            let view = self.lock();
            (view.stage.clone(), view.detail.clone())
        };
        self.tell(Event::Progress {
            stage,
            detail,
            done: Some(done),
            total,
        });
    }

    /// Sends an event to the client, if there is one that reads. Never waits.
    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            let _ = events.try_send(event);
        }
    }

    /// Notes how the operation ended and gives the error its id.
    pub fn end<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        let mut view = self.lock();
        view.ended_at = Some(now());
        match result {
            Ok(value) => {
                view.outcome = Outcome::Succeeded;
                Ok(value)
            }
            Err(mut error) => {
                error.op_id = Some(self.id);
                view.outcome = if self.cancel.why().is_some() {
                    Outcome::Cancelled
                } else {
                    Outcome::Failed
                };
                view.error = Some(error.clone());
                tracing::warn!(op = %self.id, method = view.method, error = %error, "failed");
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, OperationView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut view = self.operation.lock();
        if view.outcome == Outcome::Running {
            view.outcome = Outcome::Cancelled;
            view.ended_at = Some(now());
        }
        drop(view);
        self.registry.running.send_modify(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::api::Code;

    #[tokio::test]
    async fn operations_begin_end_and_are_counted() {
        let registry = Arc::new(Registry::default());
        let (running, mut events) = registry.begin("vm.create").unwrap();
        assert_eq!(registry.running(), 1);
        running.stage("boot", "waiting for the guest");
        assert!(
            matches!(events.recv().await, Some(Event::Progress { stage, .. }) if stage == "boot")
        );
        let failed: Result<(), _> =
            running.end(Err(ApiError::new(Code::OperationFailed, "the guest died")));
        assert_eq!(failed.unwrap_err().op_id, Some(running.id));
        let id = running.id;
        drop(running);
        registry.idle().await;
        assert_eq!(registry.get(id).unwrap().view().outcome, Outcome::Failed);
    }

    #[test]
    fn finished_ones_expire() {
        let registry = Arc::new(Registry::default());
        for _ in 0..KEEP + 20 {
            let (running, _) = registry.begin("vm.start").unwrap();
            running.end(Ok(())).unwrap();
        }
        let (running, _) = registry.begin("vm.start").unwrap();
        assert!(registry.list().len() <= KEEP + 1);
        assert!(registry.get(running.id).is_some());
    }
}
