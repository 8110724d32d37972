//! One daemon's view of the world, and the gate every effect passes.

use super::{
    faults::{Fault, Injection, Moment},
    fs::{Answer, Refusal},
    world::{Rows, World},
};
use crate::{Effect, Error, ErrorKind};
use banger_model::Instance;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    rc::Rc,
};

type Interruption = Box<dyn FnOnce(&SimHost)>;

/// A daemon on a simulated machine.
pub struct SimHost {
    world: Rc<RefCell<World>>,
    daemon: u32,
    count: Cell<u64>,
    dead: Cell<bool>,
    faults: RefCell<Vec<Fault>>,
    /// What the fault hit, once it has.
    hit: Cell<Option<Effect>>,
    broken: RefCell<BTreeSet<(Effect, ErrorKind)>>,
    record: RefCell<Option<Vec<Moment>>>,
    trace: RefCell<Option<Vec<String>>>,
    interruption: RefCell<Option<(u64, Interruption)>>,
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SimHost(daemon {}, {} effects)",
            self.daemon,
            self.count.get()
        )
    }
}

impl SimHost {
    /// A new daemon in a world of its own.
    pub fn new(world: World) -> Self {
        Self::on(Rc::new(RefCell::new(world)))
    }

    /// A new daemon in a shared world.
    pub fn on(world: Rc<RefCell<World>>) -> Self {
        let daemon = {
            let mut world = world.borrow_mut();
            world.daemons += 1;
            world.daemons
        };
        Self::resume(world, daemon)
    }

    /// A daemon that is already there, seen again after its world was copied.
    pub fn resume(world: Rc<RefCell<World>>, daemon: u32) -> Self {
        SimHost {
            world,
            daemon,
            count: Cell::new(0),
            dead: Cell::new(false),
            faults: RefCell::default(),
            hit: Cell::new(None),
            broken: RefCell::default(),
            record: RefCell::new(None),
            trace: RefCell::new(None),
            interruption: RefCell::new(None),
        }
    }

    /// Which incarnation it is.
    pub fn daemon(&self) -> u32 {
        self.daemon
    }

    /// Makes one more effect go wrong.
    pub fn inject(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Counts effects from here: a daemon that goes on where another one ended.
    pub fn count_from(&self, at: u64) {
        self.count.set(at);
    }

    /// Writes down every effect and its answer in words from now on.
    pub fn trace(&self) {
        *self.trace.borrow_mut() = Some(Vec::new());
    }

    /// What was written down.
    pub fn take_trace(&self) -> Vec<String> {
        self.trace
            .borrow_mut()
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn note(&self, effect: Effect, target: &impl fmt::Display, refused: Option<Refusal>) {
        if let Some(trace) = self.trace.borrow_mut().as_mut() {
            let at = self.count.get().saturating_sub(1);
            trace.push(match refused {
                Some(Refusal(kind, why)) => format!("{at} {effect:?} {target}: {kind:?}, {why}"),
                None => format!("{at} {effect:?} {target}"),
            });
        }
    }

    /// The effect that the fault hit.
    pub fn hit(&self) -> Option<Effect> {
        self.hit.get()
    }

    /// Effects that are refused for ever ([`Injection::ErrorForEver`]); carried over when a run is
    /// continued with another `SimHost`.
    pub fn broken(&self) -> BTreeSet<(Effect, ErrorKind)> {
        self.broken.borrow().clone()
    }

    /// Refuses these effects from now on.
    pub fn set_broken(&self, broken: BTreeSet<(Effect, ErrorKind)>) {
        *self.broken.borrow_mut() = broken;
    }

    /// Records the world around every effect from now on.
    pub fn record(&self) {
        *self.record.borrow_mut() = Some(Vec::new());
    }

    /// What was recorded.
    pub fn take_record(&self) -> Vec<Moment> {
        self.record.borrow_mut().take().unwrap_or_default()
    }

    /// Just before effect `at`, something else happens (another thread's request).
    pub fn interrupt(&self, at: u64, what: impl FnOnce(&SimHost) + 'static) {
        *self.interruption.borrow_mut() = Some((at, Box::new(what)));
    }

    /// Effects so far.
    pub fn effects(&self) -> u64 {
        self.count.get()
    }

    /// Whether it died.
    pub fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// kill -9.
    pub fn kill(&self) {
        if !self.dead.replace(true) {
            self.world.borrow_mut().daemon_dies(self.daemon);
        }
    }

    /// The world, shared.
    pub fn world(&self) -> Rc<RefCell<World>> {
        self.world.clone()
    }

    /// A copy of the world as it is now.
    pub fn snapshot(&self) -> World {
        self.world.borrow().clone()
    }

    /// One transaction of the instance's database: atomic, durable, counted as an effect. An answer
    /// of `Err` rolls it back.
    ///
    /// # Errors
    /// The outer error is the injected or the machine's, the inner one the transaction's own.
    pub fn transaction<T, E>(
        &self,
        instance: Instance,
        target: &str,
        act: impl FnOnce(&mut Rows) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        self.effect(Effect::Ledger, "commit", target, |world| {
            let mut rows = (*world.rows(instance)).clone();
            let answer = act(&mut rows);
            if answer.is_ok() {
                world.space()?;
                *world.rows_mut(instance) = rows;
            }
            Ok(answer)
        })
    }

    /// Reads the database: no effect, but nothing a dead daemon can do.
    ///
    /// # Errors
    /// `Crashed`.
    pub fn rows(&self, instance: Instance) -> Result<Rc<Rows>, Error> {
        if self.dead.get() {
            return Err(crashed(Effect::Ledger, "read", "the database"));
        }
        Ok(self.world.borrow().rows(instance))
    }

    /// An effect without prefixes.
    pub(super) fn effect<T>(
        &self,
        effect: Effect,
        what: &'static str,
        target: impl fmt::Display,
        act: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Result<T, Error> {
        self.effect_with_prefixes(effect, what, target, |_, _| Vec::new(), act)
    }

    /// An effect; `prefixes` are the worlds that a crash in its middle may leave.
    pub(super) fn effect_with_prefixes<T>(
        &self,
        effect: Effect,
        what: &'static str,
        target: impl fmt::Display,
        prefixes: impl Fn(&World, u32) -> Vec<World>,
        act: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Result<T, Error> {
        if self.dead.get() {
            return Err(crashed(effect, what, &target));
        }
        let at = self.count.get();
        self.run_interruption(at);
        if self.dead.get() {
            return Err(crashed(effect, what, &target));
        }
        self.count.set(at + 1);
        let fail = |Refusal(kind, why)| {
            self.note(effect, &target, Some(Refusal(kind, why)));
            Error::new(effect, what, target.to_string(), kind, why)
        };
        if let Some((_, kind)) = self.broken.borrow().iter().find(|(e, _)| *e == effect) {
            return Err(fail(Refusal(*kind, "injected, for ever")));
        }
        let injection = self
            .faults
            .borrow()
            .iter()
            .find(|f| f.at == at)
            .map(|f| f.injection);
        if injection.is_some() {
            self.hit.set(Some(effect));
        }
        match injection {
            Some(Injection::CrashBefore) => self.kill(),
            Some(Injection::CrashMid(n)) => {
                let middle = prefixes(&self.world.borrow(), self.daemon);
                if let Some(world) = middle.into_iter().nth(n.into()) {
                    *self.world.borrow_mut() = world;
                }
                self.kill();
            }
            Some(Injection::Error(kind)) => {
                self.leave_half(effect, &prefixes);
                return Err(fail(Refusal(kind, "injected")));
            }
            Some(Injection::ErrorForEver(kind)) => {
                self.leave_half(effect, &prefixes);
                self.broken.borrow_mut().insert((effect, kind));
                return Err(fail(Refusal(kind, "injected, for ever")));
            }
            Some(Injection::CrashAfter | Injection::ErrorAfter(_)) | None => {}
        }
        if self.dead.get() {
            return Err(crashed(effect, what, &target));
        }
        let answer = self.act(effect, &prefixes, act);
        match injection {
            Some(Injection::CrashAfter) => {
                self.kill();
                Err(crashed(effect, what, &target))
            }
            Some(Injection::ErrorAfter(kind)) => {
                Err(fail(Refusal(kind, "injected, after it was done")))
            }
            _ => {
                if answer.is_ok() {
                    self.note(effect, &target, None);
                }
                answer.map_err(fail)
            }
        }
    }

    /// A write that fails leaves what it had written by then.
    fn leave_half(&self, effect: Effect, prefixes: &impl Fn(&World, u32) -> Vec<World>) {
        if matches!(effect, Effect::WriteFile | Effect::MakeDisk) {
            let middle = prefixes(&self.world.borrow(), self.daemon);
            if let Some(world) = middle.into_iter().last() {
                *self.world.borrow_mut() = world;
            }
        }
    }

    fn act<T>(
        &self,
        effect: Effect,
        prefixes: &impl Fn(&World, u32) -> Vec<World>,
        act: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Answer<T> {
        let mut record = self.record.borrow_mut();
        let mut world = self.world.borrow_mut();
        let Some(record) = record.as_mut() else {
            return act(&mut world);
        };
        let before = world.clone();
        let middle = prefixes(&before, self.daemon);
        let answer = act(&mut world);
        record.push(Moment {
            effect,
            before,
            middle,
            after: world.clone(),
        });
        answer
    }

    fn run_interruption(&self, at: u64) {
        let due = self
            .interruption
            .borrow()
            .as_ref()
            .is_some_and(|(n, _)| *n == at);
        if due {
            let what = self.interruption.borrow_mut().take();
            if let Some((_, what)) = what {
                what(self);
            }
        }
    }
}

fn crashed(effect: Effect, what: &'static str, target: impl fmt::Display) -> Error {
    Error::new(
        effect,
        what,
        target.to_string(),
        ErrorKind::Crashed,
        "the daemon is dead",
    )
}
