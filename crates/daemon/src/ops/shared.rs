//! Work that several operations need at the same time and that is done once (R-SVC-4, R-IMG-8): who comes second waits
//! for the first one's work and is told its progress, and only the last one that leaves cancels it.

use super::{Operation, Registry};
use banger_wire::api::{ApiError, Code};
use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How often a waiting operation looks whether it is still wanted, and how the work stands.
const LOOK: Duration = Duration::from_millis(100);

/// Shared work under way, by what it is for.
#[derive(Debug, Default)]
pub struct SharedWork {
    under_way: Arc<Mutex<BTreeMap<String, Arc<Work>>>>,
}

/// One piece of work; an operation of its own, so that it is listed and can be cancelled like any.
#[derive(Debug)]
struct Work {
    operation: Arc<Operation>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: usize,
    done: Option<Result<(), ApiError>>,
}

impl SharedWork {
    /// Does the work for `key`, or waits for whoever does it already. `operation` is told the work's stages; cancelled,
    /// it leaves at once, and takes the work with it if nobody else waits.
    ///
    /// # Errors
    /// What the work failed with, each waiting operation alike; cancelled.
    pub fn join(
        &self,
        registry: &Arc<Registry>,
        (key, method): (&str, &str),
        operation: &Operation,
        work: impl FnOnce(&Operation) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<(), ApiError> {
        let mut work = Some(work);
        loop {
            let (joined, welcome) = self.enter(registry, (key, method), &mut work)?;
            let ended = joined.wait(operation, welcome);
            // Work that was being given up when we came has left nothing to use: now it is our turn.
            if welcome || ended.as_ref().is_some_and(Result::is_ok) {
                return ended.unwrap_or_else(|| Err(gone(operation)));
            }
            if ended.is_none() {
                return Err(gone(operation));
            }
        }
    }

    /// The work for this key, begun if there is none; and whether we count as waiting for it. We do not where it is
    /// cancelled already.
    fn enter<W>(
        &self,
        registry: &Arc<Registry>,
        (key, method): (&str, &str),
        work: &mut Option<W>,
    ) -> Result<(Arc<Work>, bool), ApiError>
    where
        W: FnOnce(&Operation) -> Result<(), ApiError> + Send + 'static,
    {
        let mut under_way = lock(&self.under_way);
        if let Some(there) = under_way.get(key) {
            let there = Arc::clone(there);
            let mut state = lock(&there.state);
            let welcome = there.operation.cancel.why().is_none();
            state.waiting += usize::from(welcome);
            drop(state);
            return Ok((there, welcome));
        }
        let (running, _unread) = registry.begin(method)?;
        let begun = Arc::new(Work {
            operation: Arc::clone(&running),
            state: Mutex::new(State {
                waiting: 1,
                done: None,
            }),
            changed: Condvar::new(),
        });
        let Some(work) = work.take() else {
            return Err(ApiError::new(
                Code::Conflict,
                "what this waits for was cancelled again and again",
            ));
        };
        let (key_of, work_of) = (key.to_owned(), Arc::clone(&begun));
        let under_way_of = Arc::clone(&self.under_way);
        // A thread of its own: those for blocking work may all be taken by operations that wait for this.
        let started = thread::Builder::new()
            .name(method.to_owned())
            .spawn(move || {
                let _in = running.span().entered();
                // Made here: where no thread starts, its drop would wait for the lock that is held here.
                let end = End {
                    key: key_of,
                    work: work_of,
                    under_way: under_way_of,
                };
                let done = running.end(work(&running));
                drop(running);
                end.tell(done);
            });
        started.map_err(|error| {
            ApiError::new(Code::Unavailable, "no thread could be started").caused_by(&error)
        })?;
        under_way.insert(key.to_owned(), Arc::clone(&begun));
        Ok((begun, true))
    }
}

impl Work {
    /// Waits for the end of the work; `None` if the operation is cancelled before.
    fn wait(&self, operation: &Operation, counted: bool) -> Option<Result<(), ApiError>> {
        let mut told = (String::new(), String::new());
        let mut state = lock(&self.state);
        loop {
            if let Some(done) = &state.done {
                return Some(done.clone());
            }
            if let Some(why) = operation.cancel.why() {
                if counted {
                    state.waiting -= 1;
                    if state.waiting == 0 {
                        self.operation.cancel.fire(why);
                    }
                }
                return None;
            }
            let view = self.operation.view();
            let now = (view.stage, view.detail);
            if counted && now != told && !now.1.is_empty() {
                operation.stage(&now.0, &now.1);
                told = now;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Tells the end of a piece of work, even if it panicked.
struct End {
    key: String,
    work: Arc<Work>,
    under_way: Arc<Mutex<BTreeMap<String, Arc<Work>>>>,
}

impl End {
    fn tell(self, done: Result<(), ApiError>) {
        lock(&self.work.state).done = Some(done);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.key);
        lock(&self.work.state).done.get_or_insert_with(|| {
            Err(ApiError::new(
                Code::OperationFailed,
                "the daemon has a bug: shared work ended unexpectedly",
            )
            .hint("banger daemon logs"))
        });
        self.work.changed.notify_all();
    }
}

fn gone(operation: &Operation) -> ApiError {
    let why = operation.cancel.why();
    why.map_or_else(
        || ApiError::new(Code::Conflict, "the operation was cancelled"),
        super::Why::error,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Running, Why};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread::{ScopedJoinHandle, scope},
        time::Instant,
    };

    /// Longest a test waits for another thread.
    const SOON: Duration = Duration::from_secs(20);

    struct Scene {
        shared: SharedWork,
        registry: Arc<Registry>,
        begun: Arc<AtomicUsize>,
        ended: Arc<AtomicUsize>,
    }

    impl Scene {
        fn new() -> Self {
            Scene {
                shared: SharedWork::default(),
                registry: Arc::default(),
                begun: Arc::default(),
                ended: Arc::default(),
            }
        }

        fn operation(&self) -> Running {
            self.registry.begin("vm.run").unwrap().0
        }

        /// Joins work that goes on until it is cancelled, or `release` is set.
        fn join(&self, operation: &Operation, release: &Arc<AtomicUsize>) -> Result<(), ApiError> {
            let (begun, ended) = (Arc::clone(&self.begun), Arc::clone(&self.ended));
            let release = Arc::clone(release);
            self.shared.join(
                &self.registry,
                ("image", "image.build"),
                operation,
                move |op| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    op.stage("image", "working");
                    let result = loop {
                        if let Some(why) = op.cancel.why() {
                            // As a program that takes its time to be killed.
                            thread::sleep(Duration::from_millis(300));
                            break Err(why.error());
                        }
                        if release.load(Ordering::SeqCst) > 0 {
                            break Ok(());
                        }
                        thread::sleep(Duration::from_millis(5));
                    };
                    ended.fetch_add(1, Ordering::SeqCst);
                    result
                },
            )
        }

        fn waiting(&self) -> usize {
            let under_way = lock(&self.shared.under_way);
            under_way.values().map(|w| lock(&w.state).waiting).sum()
        }
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < SOON, "waited {SOON:?} until {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ended<T>(thread: ScopedJoinHandle<'_, T>) -> T {
        until("a thread ends", || thread.is_finished());
        thread.join().unwrap()
    }

    /// R-IMG-8: three that want one thing make it once, and each is told how it goes.
    #[test]
    fn three_that_come_together_share_one_work() {
        let (scene, release) = (Scene::new(), Arc::default());
        let operations = [scene.operation(), scene.operation(), scene.operation()];
        scope(|s| {
            let (scene, release) = (&scene, &release);
            let join = |op| s.spawn(move || scene.join(op, release));
            let threads: Vec<_> = operations.iter().map(|op| join(op)).collect();
            until("all wait", || scene.waiting() == 3);
            for operation in &operations {
                until("it is told", || operation.view().detail == "working");
            }
            release.store(1, Ordering::SeqCst);
            for thread in threads {
                assert_eq!(ended(thread), Ok(()));
            }
        });
        assert_eq!(scene.begun.load(Ordering::SeqCst), 1);
        assert!(lock(&scene.shared.under_way).is_empty());
        assert_eq!(
            scene.registry.running(),
            3,
            "the work's own operation is over"
        );
    }

    /// R-SVC-4: one that leaves takes nothing from the others; the last one takes the work with it.
    #[test]
    fn the_last_one_that_leaves_cancels() {
        let (scene, release) = (Scene::new(), Arc::default());
        let (first, second) = (scene.operation(), scene.operation());
        scope(|s| {
            let one = s.spawn(|| scene.join(&first, &release));
            until("the first waits", || scene.waiting() == 1);
            let two = s.spawn(|| scene.join(&second, &release));
            until("both wait", || scene.waiting() == 2);
            first.cancel.fire(Why::ClientGone);
            assert_eq!(ended(one).unwrap_err().code, Code::Conflict);
            assert_eq!(
                scene.ended.load(Ordering::SeqCst),
                0,
                "the second still waits"
            );
            second.cancel.fire(Why::ClientGone);
            assert!(ended(two).is_err());
            until("the work ends", || scene.ended.load(Ordering::SeqCst) == 1);
        });
        assert_eq!(scene.begun.load(Ordering::SeqCst), 1);
    }

    /// Who comes while cancelled work is still ending waits for its end and begins anew; its failure is not theirs.
    #[test]
    fn who_comes_after_the_last_left_begins_anew() {
        let (scene, release) = (Scene::new(), Arc::default());
        let (first, second) = (scene.operation(), scene.operation());
        scope(|s| {
            let one = s.spawn(|| scene.join(&first, &release));
            until("it works", || scene.begun.load(Ordering::SeqCst) == 1);
            first.cancel.fire(Why::ClientGone);
            assert!(ended(one).is_err());
            assert_eq!(scene.ended.load(Ordering::SeqCst), 0, "it takes its time");
            let two = s.spawn(|| scene.join(&second, &release));
            until("it works again", || scene.begun.load(Ordering::SeqCst) == 2);
            assert_eq!(scene.ended.load(Ordering::SeqCst), 1, "one after the other");
            release.store(1, Ordering::SeqCst);
            assert_eq!(ended(two), Ok(()));
        });
    }

    /// A machine that has no thread left refuses the work, and does not stop everybody who wants some.
    #[test]
    fn without_a_thread_it_is_refused_and_the_next_one_begins() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let (scene, release) = (Scene::new(), Arc::default());
        let operation = scene.operation();
        let before = getrlimit(Resource::As);
        let none = Rlimit {
            current: Some(1),
            ..before
        };
        // No room for a stack, for as long as it takes to ask for one.
        let refused = scope(|s| {
            let asking = s.spawn(|| {
                setrlimit(Resource::As, none).unwrap();
                let refused = scene.join(&operation, &release);
                setrlimit(Resource::As, before).unwrap();
                refused
            });
            ended(asking)
        });
        assert_eq!(refused.unwrap_err().code, Code::Unavailable);
        release.store(1, Ordering::SeqCst);
        assert_eq!(scene.join(&operation, &release), Ok(()));
        assert_eq!(scene.begun.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn work_that_panics_leaves_nobody_waiting() {
        let scene = Scene::new();
        let operation = scene.operation();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let error = scene
            .shared
            .join(&scene.registry, ("x", "x"), &operation, |_| {
                panic!("planted")
            })
            .unwrap_err();
        std::panic::set_hook(hook);
        assert_eq!(error.hint.as_deref(), Some("banger daemon logs"));
    }
}
