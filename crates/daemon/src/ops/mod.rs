//! The one registry of long methods (R-SVC-6): id, stage, detail, outcome; cancelled with their connection unless
//! detached; finished ones expire.

mod cancel;
mod made;
mod operation;
mod shared;

pub use cancel::{Cancel, Why};
pub use made::Made;
pub use operation::{Operation, Running};
pub use shared::SharedWork;

use crate::feed::Feed;
use banger_model::OpId;
use banger_wire::api::{ApiError, Code, Event, OperationView, Outcome, What};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, watch};

/// How long a finished operation stays listed, in seconds.
const KEEP_SECONDS: u64 = 600;
/// How many finished operations stay listed.
const KEEP: usize = 100;

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
        ApiError::new(Code::OperationFailed, "the system gives no random numbers").caused_by(&error)
    })?;
    Ok(bytes)
}

/// How an operation is begun.
#[derive(Debug, Default)]
pub struct Begin {
    /// Goes on when its client leaves.
    pub detached: bool,
    /// The key that its client gave it.
    pub key: Option<Key>,
}

/// A key that a client made up for one request.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub text: String,
    /// The request, method and all, in one form.
    pub asked: String,
}

/// An operation that was asked for.
#[derive(Debug)]
pub enum Begun {
    /// It begins.
    New(Running),
    /// The same request was made before: it runs, or ended lately.
    Before(Arc<Operation>),
}

/// Operations that ended, counted by method and outcome.
pub type Totals = BTreeMap<(String, Outcome), u64>;

/// Every operation that runs or ended lately.
#[derive(Debug)]
pub struct Registry {
    operations: Mutex<BTreeMap<OpId, Arc<Operation>>>,
    begun: AtomicU64,
    /// Begins nothing more.
    closed: AtomicBool,
    running: watch::Sender<usize>,
    totals: Mutex<Totals>,
    feed: Feed,
}

impl Default for Registry {
    fn default() -> Self {
        Registry::new(Feed::default())
    }
}

impl Registry {
    /// A registry that tells of its operations.
    pub fn new(feed: Feed) -> Self {
        Registry {
            operations: Mutex::default(),
            begun: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            running: watch::channel(0).0,
            totals: Mutex::default(),
            feed,
        }
    }

    /// Begins an operation. Its events come out of the receiver.
    ///
    /// # Errors
    /// The system gives no random id.
    pub fn begin(
        self: &Arc<Self>,
        method: &str,
    ) -> Result<(Running, mpsc::Receiver<Event>), ApiError> {
        let running = self.add(&mut self.lock(), method, Begin::default())?;
        let events = running.watch();
        Ok((running, events))
    }

    /// Begins an operation, or finds the one that the same request with the same key began.
    ///
    /// # Errors
    /// The key was used for another request; the system gives no random id.
    pub fn begin_once(self: &Arc<Self>, method: &str, how: Begin) -> Result<Begun, ApiError> {
        let mut all = self.lock();
        expire(&mut all);
        if let Some(key) = &how.key
            && let Some(before) = find(&all, key)?
        {
            return Ok(Begun::Before(before));
        }
        self.add(&mut all, method, how).map(Begun::New)
    }

    /// The operation that this request began before.
    ///
    /// # Errors
    /// The key was used for another request.
    pub fn find(&self, key: &Key) -> Result<Option<Arc<Operation>>, ApiError> {
        let mut all = self.lock();
        expire(&mut all);
        find(&all, key)
    }

    fn add(
        self: &Arc<Self>,
        all: &mut BTreeMap<OpId, Arc<Operation>>,
        method: &str,
        how: Begin,
    ) -> Result<Running, ApiError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(ApiError::new(
                banger_wire::api::Code::Unavailable,
                "the daemon ends, and begins nothing more",
            )
            .hint("type it again: the next daemon does it"));
        }
        let id = OpId::from_bytes(random()?);
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let operation = Arc::new(Operation::new((id, number), method, how));
        expire(all);
        all.insert(id, Arc::clone(&operation));
        self.running.send_modify(|n| *n += 1);
        self.feed.tell(What::OperationBegan(operation.notice()));
        tracing::info!(parent: operation.span(), "began");
        Ok(Running {
            operation,
            registry: Arc::clone(self),
        })
    }

    fn ended(&self, operation: &Operation) {
        let notice = operation.notice();
        let key = (notice.method.clone(), notice.outcome);
        *self.totals_mut().entry(key).or_default() += 1;
        self.feed.tell(What::OperationEnded(notice));
        self.running.send_modify(|n| *n -= 1);
    }

    /// How many operations have ended, by method and outcome.
    pub fn totals(&self) -> Totals {
        self.totals_mut().clone()
    }

    fn totals_mut(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every operation, oldest first.
    pub fn list(&self) -> Vec<OperationView> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by_key(|op| op.number);
        all.iter().map(|op| op.view()).collect()
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

    /// Begins nothing more from now on: it would be lost with us.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
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

fn find(
    all: &BTreeMap<OpId, Arc<Operation>>,
    key: &Key,
) -> Result<Option<Arc<Operation>>, ApiError> {
    let with_key =
        |op: &Arc<Operation>| Some((Arc::clone(op), op.asked_with(&key.text)? == key.asked));
    match all.values().find_map(with_key) {
        Some((operation, true)) => Ok(Some(operation)),
        Some((operation, false)) => Err(other_request(key, operation.id)),
        None => Ok(None),
    }
}

fn other_request(key: &Key, before: OpId) -> ApiError {
    ApiError::new(
        Code::Conflict,
        format!("the key '{}' was used for another request", key.text),
    )
    .hint(format!("banger operation show {before}"))
}

fn expire(all: &mut BTreeMap<OpId, Arc<Operation>>) {
    let mut ended: Vec<(u64, u64, OpId)> = all
        .values()
        .filter_map(|op| op.view().ended_at.map(|at| (at, op.number, op.id)))
        .collect();
    ended.sort_unstable();
    let old = now().saturating_sub(KEEP_SECONDS);
    let surplus = ended.len().saturating_sub(KEEP);
    for (n, (at, _, id)) in ended.into_iter().enumerate() {
        if n < surplus || at < old {
            all.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Bounded, never waiting; what does not fit is progress, and the outcome is told however slow the watcher.
    #[tokio::test]
    async fn a_watcher_that_does_not_read_misses_progress_and_no_outcome() {
        let registry = Arc::new(Registry::default());
        let (running, owner) = registry.begin("vm.create").unwrap();
        let operation = Arc::clone(&running);
        let (mut slow, mut quick) = (operation.watch(), operation.watch());
        drop(owner);
        for n in 0..1000 {
            running.moved(n, Some(1000));
            assert!(quick.try_recv().is_ok(), "{n}");
        }
        running.made(Made::Answer(7.into()));
        running.end(Ok(())).unwrap();
        let mut waited = 0;
        while slow.recv().await.is_some() {
            waited += 1;
        }
        assert!((1..1000).contains(&waited), "{waited}");
        assert_eq!(quick.recv().await, None);
        assert_eq!(operation.last_events(), [Event::Done { vm: None }]);
        assert_eq!(operation.full_view().result, Some(7.into()));
        // Who comes after the end waits for nothing.
        assert_eq!(operation.watch().recv().await, None);
        operation.ended().await;
    }

    #[test]
    fn a_key_means_one_request_for_as_long_as_its_operation_is_listed() {
        let registry = Arc::new(Registry::default());
        let begin = |text: &str, asked: &str| {
            let (text, asked) = (text.to_owned(), asked.to_owned());
            let key = Some(Key { text, asked });
            let how = Begin {
                detached: true,
                key,
            };
            registry.begin_once("vm.start", how)
        };
        let Ok(Begun::New(first)) = begin("k", "a") else {
            panic!("the first one begins");
        };
        let Ok(Begun::Before(same)) = begin("k", "a") else {
            panic!("the second one is the first");
        };
        assert_eq!(same.id, first.id);
        assert_eq!(begin("k", "b").unwrap_err().code, Code::Conflict);
        assert!(matches!(begin("l", "b"), Ok(Begun::New(_))));
        first.end(Ok(())).unwrap();
        drop(first);
        assert!(matches!(begin("k", "a"), Ok(Begun::Before(_))));
        for _ in 0..KEEP + 1 {
            let (running, _) = registry.begin("vm.start").unwrap();
            running.end(Ok(())).unwrap();
        }
        assert!(matches!(begin("k", "a"), Ok(Begun::New(_))), "forgotten");
        let totals = registry.totals();
        let count = |outcome| totals.get(&("vm.start".to_owned(), outcome)).copied();
        assert_eq!(count(Outcome::Succeeded), Some(KEEP as u64 + 2));
        // Given up by whoever began it without a word.
        assert_eq!(count(Outcome::Failed), Some(2));
    }
}
