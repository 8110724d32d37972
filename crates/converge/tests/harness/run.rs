//! One run of a script, or of a recovery, on a simulated machine: requests, convergences that take
//! turns, waits, answers. Deterministic: the same start and the same faults give the same run.

use super::{
    acks::Acks,
    drive::{Waits, ask, builds, chain, wait_for, with_env},
    oracle,
    script::{Deed, Script, Verb, When},
    site,
};
use banger_converge::{
    Convergence, Outcome, Site, Step, Told, Wait, recover,
    request::{self, Accepted, RequestError},
    settle_all, sweep_dirs,
};
use banger_host::ErrorKind;
use banger_host::sim::{Fault, Injection, Moment, SimHost, World};
use banger_model::{Generation, Goal, Phase, Role, VmId};
use banger_plan::Action;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Where a run begins.
#[derive(Debug, Clone)]
pub struct Start {
    pub world: World,
    pub acks: Acks,
    /// `None`: a recovery, and nothing else.
    pub script: Option<Rc<Script>>,
}

/// A moment in a run, with what users had been told by then.
#[derive(Debug)]
pub struct Mark {
    pub at: u64,
    pub moment: Moment,
    pub acks: Rc<Acks>,
}

/// How a run went.
#[derive(Debug)]
pub struct Ended {
    pub world: World,
    pub acks: Acks,
    /// Effects of the first instance's daemons.
    pub effects: u64,
    pub marks: Vec<Mark>,
    /// What went wrong in the run itself.
    pub findings: Vec<String>,
    pub trace: Vec<String>,
}

/// What is wanted of a run besides its end.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub faults: Vec<Fault>,
    pub record: bool,
    pub trace: bool,
}

/// More steps than any run needs that ends.
const MOST_UNITS: u32 = 2000;

/// Runs to the end, or to the death of the daemon.
pub fn run(start: &Start, wish: &Wish) -> Ended {
    let mut run = Run::new(start, wish);
    run.play();
    run.end()
}

struct Operation {
    instance: usize,
    vm: VmId,
    verb: Option<Verb>,
    /// Which request of this VM it was.
    turn: u32,
    convergence: Convergence,
    waiting: Option<Wait>,
    /// The goal for which its guest was booted and failed.
    guest_failed: Option<Generation>,
}

type Answers = Rc<RefCell<Vec<Result<Accepted, RequestError>>>>;

struct Run {
    world: Rc<RefCell<World>>,
    sites: [Site; 2],
    hosts: Vec<SimHost>,
    wish: Wish,
    script: Option<Rc<Script>>,
    next: usize,
    since: u32,
    turn: usize,
    units: u32,
    operations: Vec<Operation>,
    requests: BTreeMap<VmId, u32>,
    recoveries: Vec<usize>,
    acks: Acks,
    /// The promises that hold if the daemon dies in this unit.
    promised: Rc<Acks>,
    marks: Vec<Mark>,
    unfinished: BTreeSet<(usize, VmId)>,
    patience: u32,
    findings: Vec<String>,
    trace: Vec<String>,
    raced: Answers,
}

impl Run {
    fn new(start: &Start, wish: &Wish) -> Self {
        let mut run = Run {
            world: Rc::new(RefCell::new(start.world.clone())),
            sites: [site::site(0), site::site(1)],
            hosts: Vec::new(),
            wish: wish.clone(),
            script: start.script.clone(),
            next: 0,
            since: 0,
            turn: 0,
            units: 0,
            operations: Vec::new(),
            requests: BTreeMap::new(),
            recoveries: Vec::new(),
            promised: Rc::default(),
            acks: start.acks.clone(),
            marks: Vec::new(),
            unfinished: BTreeSet::new(),
            patience: 4,
            findings: Vec::new(),
            trace: Vec::new(),
            raced: Answers::default(),
        };
        run.start_daemons(0);
        if start.script.is_none() {
            run.recoveries = run.inhabited();
        }
        run.arm_race();
        run
    }

    /// Instances that have anything to recover.
    fn inhabited(&self) -> Vec<usize> {
        let world = self.world.borrow();
        let has_vms = |i: &usize| {
            world
                .fs
                .list(&self.sites[*i].vms_dir())
                .is_some_and(|l| !l.is_empty())
        };
        let has_rows = |i: &usize| !world.rows(self.sites[*i].instance).vms.is_empty();
        (0..2)
            .filter(|i| *i == 0 || has_rows(i) || has_vms(i))
            .collect()
    }

    /// New daemons of both instances; the first one's effects are the ones that are counted.
    fn start_daemons(&mut self, count: u64) {
        self.operations.clear();
        for site in &self.sites {
            self.world.borrow_mut().given_dir(&site.runtime_dir);
        }
        self.hosts = (0..2).map(|_| SimHost::on(self.world.clone())).collect();
        let host = &self.hosts[0];
        host.count_from(count);
        self.wish
            .faults
            .iter()
            .for_each(|fault| host.inject(*fault));
        if self.wish.trace {
            self.hosts.iter().for_each(SimHost::trace);
        }
    }

    fn arm_race(&self) {
        if let Some((at, Deed::Ask(instance, n, verb))) = self.script.as_ref().and_then(|s| s.race)
        {
            let (answers, site) = (self.raced.clone(), self.sites[instance].clone());
            self.hosts[0].interrupt(at, move |host| {
                let answer = with_env(host, &site, |env| ask(env, instance, n, verb));
                answers.borrow_mut().push(answer);
            });
        }
    }

    fn play(&mut self) {
        while !self.hosts[0].is_dead() {
            self.units += 1;
            if self.units > MOST_UNITS {
                self.findings
                    .push(format!("no end after {MOST_UNITS} steps"));
                return;
            }
            if !self.recoveries.is_empty() {
                let instance = self.recoveries.remove(0);
                self.unit(|run| run.recover(instance));
            } else if let Some(deed) = self.due() {
                (self.next, self.since) = (self.next + 1, 0);
                self.unit(|run| run.commit(deed));
            } else if !self.operations.is_empty() {
                self.since += 1;
                self.unit(Run::step);
            } else if !self.retry() {
                return;
            }
        }
    }

    /// The next deed of the script, if its time has come.
    fn due(&self) -> Option<Deed> {
        let (when, deed) = *self.script.as_ref()?.deeds.get(self.next)?;
        let due = match when {
            When::Quiet => self.operations.is_empty(),
            When::After(units) => self.since >= units || self.operations.is_empty(),
        };
        due.then_some(deed)
    }

    /// One unit: recorded, with the promises as they are while it runs.
    fn unit(&mut self, act: impl FnOnce(&mut Self)) {
        if self.wish.record {
            self.hosts[0].record();
        }
        let at = self.hosts[0].effects();
        self.note_failed_creates();
        self.promised = Rc::new(self.acks.clone());
        act(self);
        self.note(at);
        self.settle_race();
        if self.findings.is_empty() {
            self.findings
                .extend(oracle::shared_addresses(&self.world.borrow()));
        }
    }

    /// Logs are worth less than room on a full disk, so with one nothing is promised of them.
    fn note_failed_creates(&mut self) {
        let full = |fault: &Fault| {
            use Injection::{Error, ErrorAfter, ErrorForEver};
            matches!(
                fault.injection,
                Error(ErrorKind::NoSpace)
                    | ErrorForEver(ErrorKind::NoSpace)
                    | ErrorAfter(ErrorKind::NoSpace)
            )
        };
        if self.wish.faults.iter().any(full) {
            self.acks.failed_logs.clear();
            return;
        }
        for site in &self.sites {
            self.acks.creates_failed(&self.world.borrow(), site);
        }
    }

    /// Takes over what was recorded since effect `at`.
    fn note(&mut self, at: u64) {
        for host in self.hosts.iter().filter(|_| self.wish.trace) {
            self.trace.extend(host.take_trace());
        }
        if !self.wish.record {
            return;
        }
        let race = self.script.as_ref().and_then(|s| s.race);
        for (at, moment) in (at..).zip(self.hosts[0].take_record()) {
            let mut acks = self.promised.clone();
            if let Some((from, Deed::Ask(instance, n, verb))) = race
                && at >= from
                && !self.raced.borrow().is_empty()
            {
                Rc::make_mut(&mut acks).asked(site::vm_id(instance, n), verb);
            }
            self.marks.push(Mark { at, moment, acks });
        }
    }

    /// A request that came between two effects of the unit takes its place in the queue.
    fn settle_race(&mut self) {
        for answer in self.raced.take() {
            if let Some((_, Deed::Ask(instance, n, verb))) =
                self.script.as_ref().and_then(|s| s.race)
            {
                let before = self.acks.clone();
                self.acks.asked(site::vm_id(instance, n), verb);
                self.answered(instance, n, verb, answer, before);
            }
        }
    }

    fn recover(&mut self, instance: usize) {
        let site = &self.sites[instance];
        let host = &self.hosts[instance];
        #[allow(clippy::redundant_closure)] // a function item is not general enough
        let report = with_env(host, site, |env| recover(env));
        let failed = report.as_ref().map_or(true, |r| !r.errors.is_empty());
        if failed && self.patience > 0 {
            // The daemon does not come up, or the background loop tries again.
            self.patience -= 1;
            host.set_broken(BTreeSet::new());
            self.recoveries.push(instance);
        }
        if report.is_err() {
            return;
        }
        let rows = self.world.borrow().rows(site.instance);
        if oracle::has_stuck(&self.world.borrow()) {
            // One after the other, as the daemon's own driver does it.
            let waiter = Waits(self.world.clone());
            let ended = with_env(host, site, |env| settle_all(env, &waiter));
            for (vm, _, outcome) in ended.into_iter().flatten() {
                if matches!(outcome, Outcome::Unfinished { .. } | Outcome::Fenced { .. }) {
                    self.unfinished.insert((instance, vm));
                }
            }
            return;
        }
        for vm in rows.vms.keys() {
            self.operations.push(Operation {
                instance,
                vm: *vm,
                verb: None,
                turn: 0,
                convergence: Convergence::new(*vm),
                waiting: None,
                guest_failed: None,
            });
        }
    }

    fn commit(&mut self, deed: Deed) {
        match deed {
            Deed::Ask(instance, n, verb) => {
                let before = self.acks.clone();
                self.acks.asked(site::vm_id(instance, n), verb);
                self.promised = Rc::new(self.acks.clone());
                let (host, site) = (&self.hosts[instance], &self.sites[instance]);
                let answer = with_env(host, site, |env| ask(env, instance, n, verb));
                self.answered(instance, n, verb, answer, before);
            }
            Deed::GuestEnds(instance, n) => {
                let vm = site::vm_id(instance, n);
                self.acks.running.remove(&vm);
                self.promised = Rc::new(self.acks.clone());
                self.world.borrow_mut().guest_ends(vm);
                // The daemon notices, and looks.
                self.unfinished.insert((instance, vm));
            }
            Deed::KillDaemons => self.restart(false),
            Deed::PowerLoss => self.restart(true),
            Deed::CorruptHandles(instance, n) => {
                let path = self.sites[instance].handles(site::vm_id(instance, n));
                let mut world = self.world.borrow_mut();
                let _ = world
                    .fs
                    .write(&path, banger_host::sim::Content::bytes(b"{\"boot"));
                let _ = world.fs.sync_file(&path);
            }
            Deed::LoseHandles(instance, n) => {
                let path = self.sites[instance].handles(site::vm_id(instance, n));
                let _ = self.world.borrow_mut().fs.unlink(&path);
            }
            Deed::LoseRow(instance, n) => {
                let instance = self.sites[instance].instance;
                let vm = site::vm_id(0, n);
                self.acks.row_lost(vm);
                self.world.borrow_mut().rows_mut(instance).vms.remove(&vm);
            }
            Deed::LoseDisk(instance, n) => {
                let vm = site::vm_id(instance, n);
                if let Some(path) = self.sites[instance].disk(vm, Role::WorkDisk) {
                    self.acks.disk_lost(vm, &path);
                    let mut world = self.world.borrow_mut();
                    let _ = world.fs.unlink(&path);
                    let _ = world.fs.sync_dir(&self.sites[instance].vm_dir(vm));
                }
            }
        }
    }

    fn restart(&mut self, power_loss: bool) {
        let count = self.hosts[0].effects();
        self.hosts.iter().for_each(SimHost::kill);
        if power_loss {
            self.acks.power_lost();
            let mut world = self.world.borrow_mut();
            let survival = world.fs.survivals(1).remove(0);
            site::reboot(&mut world, &survival);
        }
        self.start_daemons(count);
        self.recoveries = self.inhabited();
    }

    fn answered(
        &mut self,
        instance: usize,
        n: u8,
        verb: Verb,
        answer: Result<Accepted, RequestError>,
        before: Acks,
    ) {
        if self.hosts[instance].is_dead() {
            return;
        }
        let vm = site::vm_id(instance, n);
        let accepted = match answer {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.acks = before;
                if matches!(
                    refusal,
                    RequestError::Failed(_) | RequestError::LeftOver { .. }
                ) {
                    // `vm.json` may say what was not written into the row; a later look mends it.
                    self.unfinished.insert((instance, vm));
                }
                return;
            }
        };
        if !accepted.new && matches!(verb, Verb::Start) {
            self.acks = before;
        }
        if let Verb::Set(gib) = verb {
            self.acks.sized.insert(vm, gib);
        }
        match verb {
            Verb::Delete => self.acks.deleted(vm),
            Verb::Stop | Verb::Kill | Verb::Set(_) => {
                let rows = self.world.borrow().rows(self.sites[instance].instance);
                // Of two requests at one time the one that was written last counts.
                if rows
                    .vms
                    .get(&vm)
                    .is_some_and(|r| r.vm().goal == Goal::Stopped)
                {
                    self.acks.stopped.insert(vm);
                }
            }
            Verb::Rename(name) => {
                self.acks.names.insert(vm, name);
            }
            Verb::Nat(nat) => {
                self.acks.nat.insert(vm, nat);
            }
            Verb::Create(..) | Verb::Start => {}
        }
        let turn = self.requests.entry(vm).or_default();
        *turn += 1;
        let turn = *turn;
        let mut convergence = Convergence::new(vm);
        let no_grace = verb == Verb::Kill;
        for operation in self.operations.iter_mut().filter(|o| o.vm == vm) {
            // The request fires the running operation's cancel token.
            operation.waiting = None;
        }
        if no_grace {
            with_env(&self.hosts[instance], &self.sites[instance], |env| {
                convergence.tell(env, Told::NoGrace);
                for operation in self.operations.iter_mut().filter(|o| o.vm == vm) {
                    operation.convergence.tell(env, Told::NoGrace);
                }
            });
        }
        self.operations.push(Operation {
            instance,
            vm,
            verb: Some(verb),
            turn,
            convergence,
            waiting: None,
            guest_failed: None,
        });
    }

    /// One step of the next operation in turn; operations of one VM wait for each other.
    fn step(&mut self) {
        let first = |i: &usize| {
            let vm = self.operations[*i].vm;
            !self.operations[..*i].iter().any(|o| o.vm == vm)
        };
        let ready: Vec<usize> = (0..self.operations.len()).filter(first).collect();
        self.turn += 1;
        let index = ready[self.turn % ready.len()];
        let operation = &mut self.operations[index];
        let (host, site) = (
            &self.hosts[operation.instance],
            &self.sites[operation.instance],
        );
        if let Some(wait) = operation.waiting.take() {
            let told = wait_for(&self.world, operation.vm, &wait);
            if matches!(told, Told::GuestFailed(_)) {
                operation.guest_failed = operation.convergence.generation();
            }
            with_env(host, site, |env| operation.convergence.tell(env, told));
            return;
        }
        let (vm, rows) = (operation.vm, self.world.borrow().rows(site.instance));
        let unwanted = rows
            .vms
            .get(&vm)
            .is_some_and(|row| row.vm().goal != Goal::Running);
        match with_env(host, site, |env| operation.convergence.step(env)) {
            Step::Did(action) if unwanted && builds(&action) => {
                let finding = format!("{action:?} was done for VM {vm}, which is asked to be down");
                self.findings.push(finding);
            }
            Step::Did(Action::Spawn(Role::Vmm))
                if operation.guest_failed.is_some()
                    && operation.guest_failed == operation.convergence.generation() =>
            {
                let finding = format!("VM {vm} was booted again after its guest had failed");
                self.findings.push(finding);
            }
            Step::Did(_) | Step::Failed => {}
            Step::Wait(wait) => operation.waiting = Some(wait),
            Step::Settled(outcome) => {
                let operation = self.operations.remove(index);
                if !self.hosts[operation.instance].is_dead() {
                    self.finish(&operation, outcome);
                }
            }
        }
    }

    fn finish(&mut self, operation: &Operation, outcome: Outcome) {
        let (instance, vm) = (operation.instance, operation.vm);
        // A request that came later decides what is promised.
        let latest = self.requests.get(&vm).copied().unwrap_or(0) == operation.turn;
        let site = self.sites[instance].clone();
        let world = self.world.clone();
        match outcome {
            Outcome::Done(row)
                if latest && row.goal == Goal::Running && row.phase == Phase::Running =>
            {
                match operation.verb {
                    Some(Verb::Create(..)) => {
                        self.acks.created(&world.borrow(), &site.vm_dir(vm), vm);
                    }
                    Some(Verb::Start) => self.acks.started(&world.borrow(), vm),
                    _ => {}
                }
            }
            Outcome::Done(_) | Outcome::Gone => {}
            Outcome::RolledBack { .. } => {
                match operation.verb {
                    Some(Verb::Create(..)) if latest => {
                        self.acks.gone.insert(vm);
                    }
                    Some(Verb::Start) if latest => {
                        self.acks.stopped.insert(vm);
                    }
                    _ => {}
                }
                // All is undone but, perhaps, what `vm.json` says; a later convergence looks.
                self.unfinished.insert((instance, vm));
            }
            Outcome::Fenced { cause, undo } => {
                let first = chain(&cause);
                let row = world.borrow().rows(site.instance).vms.get(&vm).cloned();
                if let Some(row) = row.filter(|r| r.vm().phase == Phase::Error)
                    && !row
                        .vm()
                        .last_error
                        .as_ref()
                        .is_some_and(|e| e.starts_with(&first))
                {
                    let told = &row.vm().last_error;
                    self.findings.push(format!(
                        "{vm} hides why it failed: {first}; says {told:?} ({undo:?})"
                    ));
                }
                self.unfinished.insert((instance, vm));
            }
            Outcome::Unfinished { .. } => {
                self.unfinished.insert((instance, vm));
            }
        }
    }

    /// The background loop: what was left unfinished is tried again later, on a machine that works.
    fn retry(&mut self) -> bool {
        let unfinished = std::mem::take(&mut self.unfinished);
        if unfinished.is_empty() || self.patience == 0 {
            return false;
        }
        self.patience -= 1;
        self.world.borrow_mut().pass(60_000);
        self.hosts
            .iter()
            .for_each(|h| h.set_broken(BTreeSet::new()));
        for instance in 0..2 {
            let (host, site) = (&self.hosts[instance], &self.sites[instance]);
            if unfinished.iter().any(|(i, _)| *i == instance) {
                #[allow(clippy::redundant_closure)] // a function item is not general enough
                let _ = with_env(host, site, |env| sweep_dirs(env));
            }
        }
        for (instance, vm) in unfinished {
            let row = self
                .world
                .borrow()
                .rows(self.sites[instance].instance)
                .vms
                .get(&vm)
                .cloned();
            let Some(row) = row else { continue };
            if row.vm().phase == Phase::Error && row.vm().goal != Goal::Absent {
                // A person takes the way out that the reason names.
                let (host, site) = (&self.hosts[instance], &self.sites[instance]);
                let _ = with_env(host, site, |env| request::stop(env, vm));
            }
            self.operations.push(Operation {
                instance,
                vm,
                verb: None,
                turn: 0,
                convergence: Convergence::new(vm),
                waiting: None,
                guest_failed: None,
            });
        }
        true
    }

    fn end(self) -> Ended {
        Ended {
            effects: self.hosts[0].effects(),
            world: self.world.borrow().clone(),
            acks: self.acks,
            marks: self.marks,
            findings: self.findings,
            trace: self.trace,
        }
    }
}
