//! One operation, as the work on it sees it, and as those who watch it do.

use super::{Cancel, Made, Registry, now};
use banger_model::{OpId, Vm};
use banger_wire::api::{ApiError, Code, Event, OperationNotice, OperationView, Outcome, Part};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Events that may wait for a watcher. Progress beyond it is dropped: the next one says more.
const EVENTS: usize = 64;

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// Identity; every error and log line of it carries it.
    pub id: OpId,
    /// Fired to end it.
    pub cancel: Cancel,
    /// Which one it is since the daemon's start: times are too coarse to order them.
    pub(super) number: u64,
    span: tracing::Span,
    /// What its client asked for, for another request with its key.
    asked: Option<String>,
    state: Mutex<State>,
    watchers: Mutex<Vec<mpsc::Sender<Event>>>,
}

#[derive(Debug)]
struct State {
    view: OperationView,
    made: Option<Made>,
}

/// Marks the operation as ended when dropped, however the work on it ended.
#[derive(Debug)]
pub struct Running {
    pub(super) operation: Arc<Operation>,
    pub(super) registry: Arc<Registry>,
}

impl std::ops::Deref for Running {
    type Target = Arc<Operation>;
    fn deref(&self) -> &Arc<Operation> {
        &self.operation
    }
}

impl Operation {
    pub(super) fn new((id, number): (OpId, u64), method: &str, how: super::Begin) -> Self {
        let (key, asked) = how.key.map(|key| (key.text, key.asked)).unzip();
        Operation {
            id,
            cancel: Cancel::default(),
            number,
            // An error's span is there at every level of the log.
            span: tracing::error_span!("operation", op = %id, method),
            asked,
            state: Mutex::new(State {
                made: None,
                view: OperationView {
                    id,
                    method: method.to_owned(),
                    vm: None,
                    name: None,
                    stage: "accepted".to_owned(),
                    detail: String::new(),
                    done: None,
                    total: None,
                    outcome: Outcome::Running,
                    error: None,
                    result: None,
                    detached: how.detached,
                    key,
                    started_at: now(),
                    ended_at: None,
                },
            }),
            watchers: Mutex::default(),
        }
    }

    /// What the log lines of its work are written in.
    pub fn span(&self) -> tracing::Span {
        self.span.clone()
    }

    /// How it stands, without what came of it.
    pub fn view(&self) -> OperationView {
        self.lock().view.clone()
    }

    /// How it stands, with what came of it.
    pub fn full_view(&self) -> OperationView {
        let state = self.lock();
        OperationView {
            result: state.made.as_ref().and_then(Made::value),
            ..state.view.clone()
        }
    }

    /// What it was asked for, if that was with this key.
    pub(super) fn asked_with(&self, key: &str) -> Option<&str> {
        let same = self.lock().view.key.as_deref() == Some(key);
        self.asked.as_deref().filter(|_| same)
    }

    /// Says which VM it is about.
    pub fn about(&self, vm: &Vm) {
        let view = &mut self.lock().view;
        view.vm = Some(vm.id);
        view.name = Some(vm.name.clone());
    }

    /// A new stage has begun, or moved.
    pub fn stage(&self, stage: &str, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::debug!(parent: &self.span, stage, detail, "progress");
        {
            let view = &mut self.lock().view;
            view.stage = stage.to_owned();
            view.detail.clone_from(&detail);
            (view.done, view.total) = (None, None);
        }
        self.tell(Event::Progress {
            stage: stage.to_owned(),
            detail,
            done: None,
            total: None,
            parts: Vec::new(),
        });
    }

    /// The stage has got so far, in its own unit.
    pub fn moved(&self, done: u64, total: Option<u64>) {
        self.moved_parts(done, total, Vec::new());
    }

    /// The stage has got so far with these of its parts.
    pub fn moved_parts(&self, done: u64, total: Option<u64>, parts: Vec<Part>) {
        let moved = {
            let view = &mut self.lock().view;
            (view.done, view.total) = (Some(done), total);
            progress(view, parts)
        };
        self.tell(moved);
    }

    /// Sends an event to everyone who watches and reads. Never waits.
    pub fn tell(&self, event: Event) {
        let mut watchers = self.watchers();
        watchers.retain(|w| !w.is_closed());
        for watcher in &*watchers {
            let _ = watcher.try_send(event.clone());
        }
    }

    /// Its events from now on; they end when it does, and its outcome is in the view then.
    pub fn watch(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        // The list is emptied after the outcome is set, so who is in it hears of the end.
        let mut watchers = self.watchers();
        if self.lock().view.outcome == Outcome::Running {
            watchers.push(sender);
        }
        receiver
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        let mut events = self.watch();
        while events.recv().await.is_some() {}
    }

    /// Where it stands, as an event.
    pub fn standing(&self) -> Event {
        progress(&self.lock().view, Vec::new())
    }

    /// What a stream of its events ends with, once it has ended.
    pub fn last_events(&self) -> Vec<Event> {
        let state = self.lock();
        match (&state.view.error, &state.made) {
            (Some(error), _) => vec![Event::Failed {
                error: error.clone(),
            }],
            (None, Some(made)) => made.last_events(),
            (None, None) => vec![Event::Done { vm: None }],
        }
    }

    /// The answer of a method that answers with one object, once it has ended.
    ///
    /// # Errors
    /// What it failed with.
    pub fn answer(&self) -> Result<serde_json::Value, ApiError> {
        let state = self.lock();
        match &state.view.error {
            Some(error) => Err(error.clone()),
            None => Ok(state
                .made
                .as_ref()
                .and_then(Made::value)
                .unwrap_or_default()),
        }
    }

    /// Notes what came of it, which its end tells.
    pub fn made(&self, made: Made) {
        self.lock().made = Some(made);
    }

    /// Notes how the operation ended and gives the error its id.
    pub fn end<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        let result = result.map_err(|mut error| {
            error.op_id = Some(self.id);
            error
        });
        let mut state = self.lock();
        let view = &mut state.view;
        view.ended_at = Some(now());
        match &result {
            Ok(_) => view.outcome = Outcome::Succeeded,
            Err(error) => {
                view.outcome = if self.cancel.why().is_some() {
                    Outcome::Cancelled
                } else {
                    Outcome::Failed
                };
                view.error = Some(error.clone());
                tracing::warn!(parent: &self.span, error = %error, "failed");
            }
        }
        if result.is_ok() {
            tracing::info!(parent: &self.span, "done");
        }
        drop(state);
        self.watchers().clear();
        result
    }

    /// As the feed tells of it.
    pub(super) fn notice(&self) -> OperationNotice {
        let view = &self.lock().view;
        OperationNotice {
            op_id: view.id,
            method: view.method.clone(),
            vm: view.vm,
            outcome: view.outcome,
            error: view.error.as_ref().map(ToString::to_string),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Event>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn progress(view: &OperationView, parts: Vec<Part>) -> Event {
    Event::Progress {
        stage: view.stage.clone(),
        detail: view.detail.clone(),
        done: view.done,
        total: view.total,
        parts,
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.view().outcome == Outcome::Running {
            // Its client left, or its task ended in a way that nobody foresaw.
            let error = self.cancel.why().map_or_else(unforeseen, super::Why::error);
            let _ = self.end::<()>(Err(error));
        }
        self.registry.ended(&self.operation);
    }
}

fn unforeseen() -> ApiError {
    ApiError::new(
        Code::OperationFailed,
        "the daemon has a bug: a task ended unexpectedly",
    )
    .hint("banger daemon logs")
}
