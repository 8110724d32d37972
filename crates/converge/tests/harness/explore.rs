//! The enumeration: every effect of a run × every way it can go wrong, and again in what follows.
//!
//! A crash needs no second run: the worlds before, in the middle of and after every effect are
//! recorded, and each is the start of a recovery. An error needs one: the run is repeated with it.
//! Starts that are equal in every respect (world, promises) have the same future and are explored
//! once; every case is counted all the same.

use super::{
    acks::Acks,
    oracle::{has_stuck, judge},
    run::{Ended, Mark, Start, Wish, run},
    script::Script,
    site,
};
use banger_host::{
    Effect,
    sim::{Fault, Injection, World, plausible_errors},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    rc::Rc,
};

/// Columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    Before,
    Middle,
    After,
    Error,
    PowerLoss,
    AgainBefore,
    AgainMiddle,
    AgainAfter,
    AgainError,
    AgainPowerLoss,
}

impl Column {
    pub const ALL: [Column; 10] = [
        Column::Before,
        Column::Middle,
        Column::After,
        Column::Error,
        Column::PowerLoss,
        Column::AgainBefore,
        Column::AgainMiddle,
        Column::AgainAfter,
        Column::AgainError,
        Column::AgainPowerLoss,
    ];

    fn again(self) -> Self {
        match self {
            Column::Before => Column::AgainBefore,
            Column::Middle => Column::AgainMiddle,
            Column::After => Column::AgainAfter,
            Column::Error => Column::AgainError,
            Column::PowerLoss => Column::AgainPowerLoss,
            other => other,
        }
    }
}

/// Cases by effect and injection.
pub type Table = BTreeMap<(Effect, Column), u64>;

/// What was explored below a start.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Ends that were judged.
    pub cases: u64,
    /// Ends that were found bad.
    pub failed: u64,
    /// Cases by injection.
    pub table: Table,
    /// What was found, how often, and how the first such case came about.
    pub failures: BTreeMap<String, (u64, String)>,
}

const FAILURES_KEPT: usize = 20;

impl Tally {
    fn add_below(
        &mut self,
        below: &Tally,
        effect: Effect,
        column: Column,
        how: &dyn Fn() -> String,
    ) {
        self.cases += below.cases;
        self.failed += below.failed;
        *self.table.entry((effect, column)).or_default() += below.cases;
        for ((effect, column), cases) in &below.table {
            *self.table.entry((*effect, column.again())).or_default() += cases;
        }
        for (finding, (cases, path)) in &below.failures {
            self.fail(finding, *cases, &|| format!("{} → {path}", how()));
        }
    }

    fn fail(&mut self, finding: &str, cases: u64, path: &dyn Fn() -> String) {
        if let Some((count, _)) = self.failures.get_mut(finding) {
            *count += cases;
        } else if self.failures.len() < FAILURES_KEPT {
            self.failures.insert(finding.to_owned(), (cases, path()));
        }
    }

    /// Adds another tally of the same level.
    pub fn add(&mut self, other: Tally) {
        self.cases += other.cases;
        self.failed += other.failed;
        for (cell, cases) in other.table {
            *self.table.entry(cell).or_default() += cases;
        }
        for (finding, (cases, path)) in other.failures {
            self.fail(&finding, cases, &|| path.clone());
        }
    }
}

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Injections in a row.
    pub injections: u8,
    /// Ways a power loss may leave the files, at most; 0: no power losses.
    pub survivals: usize,
    /// Kinds of error tried at an effect, at most.
    pub errors: usize,
    /// Of the injections in what follows an error, every n-th is tried.
    pub stride: usize,
}

impl Depth {
    pub const FULL: Depth = Depth {
        injections: 2,
        survivals: 6,
        errors: 2,
        stride: 7,
    };

    /// Two injections, coarser.
    pub const WIDE: Depth = Depth {
        injections: 2,
        survivals: 3,
        errors: 1,
        stride: 29,
    };

    /// One injection, for the many places a race may fall.
    pub const RACE: Depth = Depth {
        injections: 1,
        survivals: 0,
        errors: 0,
        stride: 1,
    };

    /// One injection.
    pub const ONCE: Depth = Depth {
        injections: 1,
        survivals: 2,
        errors: 1,
        stride: 1,
    };

    fn below(self) -> Depth {
        Depth {
            injections: self.injections - 1,
            survivals: self.survivals.min(2),
            errors: self.errors.min(1),
            stride: self.stride,
        }
    }
}

/// Explores scripts; remembers what it has explored.
#[derive(Debug)]
pub struct Explorer {
    origin: World,
    known: HashMap<(u128, u64, u8), Rc<Tally>>,
    judged: HashMap<(u128, u64), Rc<Vec<String>>>,
    /// Runs made.
    pub runs: u64,
    /// Findings of which a run was printed already; `None`: none is to be printed.
    traced: Option<BTreeSet<String>>,
}

impl Explorer {
    /// For worlds that begin like this one.
    pub fn new(origin: World) -> Self {
        Explorer {
            origin,
            known: HashMap::new(),
            judged: HashMap::new(),
            runs: 0,
            traced: std::env::var_os("BANGER_SIM_TRACE").map(|_| BTreeSet::new()),
        }
    }

    /// Explores a script with the guests this explorer was made for.
    pub fn explore_script(&mut self, script: &Script, depth: Depth) -> Tally {
        self.explore(&self.start(script), depth)
    }

    fn start(&self, script: &Script) -> Start {
        Start {
            world: self.origin.clone(),
            acks: Acks::default(),
            script: Some(Rc::new(script.clone())),
        }
    }

    /// How many effects a script has when nothing goes wrong.
    pub fn effects(&mut self, script: &Script) -> u64 {
        let start = self.start(script);
        self.run(&start, Vec::new(), false).effects
    }

    /// Distinct ends judged so far.
    pub fn distinct(&self) -> usize {
        self.judged.len()
    }

    /// Explores everything that may happen from here.
    pub fn explore(&mut self, start: &Start, depth: Depth) -> Tally {
        let mut tally = Tally::default();
        let base = self.run(start, Vec::new(), depth.injections > 0);
        self.end(start, &[], &base, &mut tally);
        if depth.injections == 0 {
            return tally;
        }
        for mark in &base.marks {
            self.crashes(mark, depth, &mut tally);
        }
        for mark in &base.marks {
            self.errors(start, mark, depth, &mut tally);
        }
        tally
    }

    fn run(&mut self, start: &Start, faults: Vec<Fault>, record: bool) -> Ended {
        self.runs += 1;
        let wish = Wish {
            faults,
            record,
            trace: false,
        };
        run(start, &wish)
    }

    /// Judges the end of a run.
    fn end(&mut self, start: &Start, faults: &[Fault], ended: &Ended, tally: &mut Tally) {
        tally.cases += 1;
        let mut findings = ended.findings.clone();
        findings.extend(self.verdict(ended).iter().cloned());
        if !findings.is_empty() {
            tally.failed += 1;
            self.trace(start, faults, &findings.join("; "));
            let what = if start.script.is_some() {
                "end"
            } else {
                "recovered"
            };
            tally.fail(&findings.join("; "), 1, &|| what.to_owned());
        }
    }

    /// Prints a run that ended badly, effect by effect, if asked to: once per finding.
    fn trace(&mut self, start: &Start, faults: &[Fault], findings: &str) {
        if self
            .traced
            .as_mut()
            .is_some_and(|t| t.insert(findings.to_owned()))
        {
            let wish = Wish {
                faults: faults.to_vec(),
                record: false,
                trace: true,
            };
            let again = run(start, &wish);
            println!("  trace of: {findings}\n    {}", again.trace.join("\n    "));
            let start = Start {
                world: again.world,
                acks: again.acks,
                script: None,
            };
            let after = run(
                &start,
                &Wish {
                    trace: true,
                    ..Wish::default()
                },
            );
            println!("  recovery after it:\n    {}", after.trace.join("\n    "));
        }
    }

    fn verdict(&mut self, ended: &Ended) -> Rc<Vec<String>> {
        let mut world = ended.world.clone();
        for daemon in 1..=world.daemons {
            world.daemon_dies(daemon);
        }
        let key = (world.fingerprint(), ended.acks.fingerprint());
        if let Some(known) = self.judged.get(&key) {
            return known.clone();
        }
        let mut findings = judge(&world, &ended.acks, &self.origin);
        if findings.is_empty() && !has_stuck(&world) {
            findings.extend(self.recovers_to_itself(&world, &ended.acks));
        }
        let findings = Rc::new(findings);
        self.judged.insert(key, findings.clone());
        findings
    }

    /// A recovery of what is sound changes nothing.
    fn recovers_to_itself(&mut self, world: &World, acks: &Acks) -> Option<String> {
        let start = Start {
            world: world.clone(),
            acks: acks.clone(),
            script: None,
        };
        let mut again = self.run(&start, Vec::new(), false).world;
        for daemon in 1..=again.daemons {
            again.daemon_dies(daemon);
        }
        (!again.same_as(world)).then(|| "recovery changed what was sound".to_owned())
    }

    /// The daemon dies at this effect.
    fn crashes(&mut self, mark: &Mark, depth: Depth, tally: &mut Tally) {
        let moment = &mark.moment;
        let mut worlds = vec![(Column::Before, &moment.before)];
        worlds.extend(moment.middle.iter().map(|w| (Column::Middle, w)));
        worlds.push((Column::After, &moment.after));
        for (column, world) in worlds {
            let how = || format!("daemon dies {column:?} {:?} ({})", moment.effect, mark.at);
            let mut world = world.clone();
            for daemon in 1..=world.daemons {
                world.daemon_dies(daemon);
            }
            if depth.survivals > 0 {
                self.power_losses(mark, &world, depth, tally);
            }
            let start = Start {
                world,
                acks: (*mark.acks).clone(),
                script: None,
            };
            let below = self.below(&start, depth.below());
            tally.add_below(&below, moment.effect, column, &how);
        }
    }

    /// The host loses power at this effect.
    fn power_losses(&mut self, mark: &Mark, world: &World, depth: Depth, tally: &mut Tally) {
        for (n, survival) in world.fs.survivals(depth.survivals).into_iter().enumerate() {
            let how = || format!("power lost at {:?} ({}, {n})", mark.moment.effect, mark.at);
            let mut world = world.clone();
            site::reboot(&mut world, &survival);
            let mut acks = (*mark.acks).clone();
            acks.power_lost();
            let start = Start {
                world,
                acks,
                script: None,
            };
            let mut below = depth.below();
            below.survivals = 0;
            below.injections = below.injections.min(u8::from(n == 0));
            let below = self.below(&start, below);
            tally.add_below(&below, mark.moment.effect, Column::PowerLoss, &how);
        }
    }

    /// Explores a recovery, or remembers it.
    fn below(&mut self, start: &Start, depth: Depth) -> Rc<Tally> {
        let key = (
            start.world.fingerprint(),
            start.acks.fingerprint(),
            depth.injections,
        );
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let tally = Rc::new(self.explore(start, depth));
        self.known.insert(key, tally.clone());
        tally
    }

    /// This effect is refused, once or for ever; then the daemon may die in what follows.
    fn errors(&mut self, start: &Start, mark: &Mark, depth: Depth, tally: &mut Tally) {
        let effect = mark.moment.effect;
        for kind in plausible_errors(effect).iter().take(depth.errors) {
            for injection in [Injection::Error(*kind), Injection::ErrorForEver(*kind)] {
                let fault = Fault {
                    at: mark.at,
                    injection,
                };
                let how = || format!("{injection:?} at {effect:?} ({})", mark.at);
                let deeper = depth.injections > 1;
                let ended = self.run(start, vec![fault], deeper);
                let mut below = Tally::default();
                self.end(start, &[fault], &ended, &mut below);
                let after = ended.marks.iter().filter(|m| m.at > mark.at);
                for mark in after.step_by(depth.stride).filter(|_| deeper) {
                    let mut shallow = depth.below();
                    shallow.survivals = 0;
                    self.crashes(mark, shallow, &mut below);
                }
                tally.add_below(&below, effect, Column::Error, &how);
            }
        }
    }
}

/// Explores a script on a fresh machine.
pub fn explore_script(script: &Script, depth: Depth) -> (Tally, Explorer) {
    let mut explorer = Explorer::new(site::world(&script.guests));
    let tally = explorer.explore_script(script, depth);
    (tally, explorer)
}

/// The table as text.
pub fn render(table: &Table) -> String {
    let mut text = format!("{:<13}", "effect");
    for column in Column::ALL {
        let _ = write!(text, " {:>15}", format!("{column:?}"));
    }
    let effects: BTreeSet<_> = table.keys().map(|(effect, _)| *effect).collect();
    for effect in effects {
        let _ = write!(text, "\n{:<13}", format!("{effect:?}"));
        for column in Column::ALL {
            let cases = table.get(&(effect, column)).copied().unwrap_or(0);
            let _ = write!(text, " {cases:>15}");
        }
    }
    text
}
