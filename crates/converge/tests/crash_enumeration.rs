//! Every script × every effect × {crash before, in the middle, after, error, power loss} × {again at
//! every point in what follows}. `cargo test -p banger-converge --release --test crash_enumeration
//! -- --nocapture` prints the table and the count; `docs/design/simulation.md` says what it means.

mod harness;

use banger_host::Effect;
use harness::{
    explore::{Column, Depth, Explorer, Table, Tally, explore_script, render},
    random::Random,
    script::{Deed, Script},
    scripts, site,
};
use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// At least so many cases, or the enumeration is not what it was.
const LEAST_CASES: u64 = 1_000_000;

/// What one thread explores at a time.
enum Job {
    /// A script, with injections.
    Script(Script, Depth),
    /// A script, with requests of another thread between any two effects.
    Races(Script, Vec<Deed>),
}

impl Job {
    fn name(&self) -> String {
        match self {
            Job::Script(script, _) => script.name.clone(),
            Job::Races(script, _) => format!("races: {}", script.name),
        }
    }

    fn explore(&self) -> (Tally, Explorer) {
        match self {
            Job::Script(script, depth) => explore_script(script, *depth),
            Job::Races(script, deeds) => races(script, deeds),
        }
    }
}

#[test]
fn enumeration() {
    let began = Instant::now();
    let only = std::env::var("BANGER_SIM_ONLY").ok();
    let wanted = |name: &str, group: &str| {
        only.as_ref()
            .is_none_or(|o| o == group || (group == "written" && name.contains(o)))
    };
    let written = scripts::written().into_iter();
    let written = written.map(|(script, depth)| ("written", Job::Script(script, depth)));
    let raced = scripts::raced().into_iter();
    let raced = raced.map(|(script, deeds)| ("races", Job::Races(script, deeds)));
    let random = random_scripts().map(|script| ("random", Job::Script(script, Depth::ONCE)));
    let jobs: Vec<Job> = written
        .chain(raced)
        .chain(random)
        .filter(|(group, job)| wanted(&job.name(), group))
        .map(|(_, job)| job)
        .collect();
    let sum = explore(&jobs, began);
    println!("{}", render(&sum.all.table));
    println!(
        "{} distinct ends in {} runs, {:.1} s",
        sum.distinct,
        sum.runs,
        began.elapsed().as_secs_f32()
    );
    println!(
        "crash enumeration: {} cases, {} failed",
        sum.all.cases, sum.all.failed
    );
    assert_eq!(sum.all.failed, 0);
    if only.is_none() {
        assert_eq!(missing(&sum.all.table), Vec::<String>::new(), "never hit");
        assert!(sum.all.cases >= LEAST_CASES);
    }
}

/// Explores everything, on as many threads as there are cores.
fn explore(jobs: &[Job], began: Instant) -> Sum {
    let (sum, next) = (Mutex::new(Sum::default()), AtomicUsize::new(0));
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (tally, explorer) = job.explore();
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(job, tally, &explorer, began);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A request of another thread between any two effects.
fn races(script: &Script, deeds: &[Deed]) -> (Tally, Explorer) {
    let mut explorer = Explorer::new(site::world(&script.guests));
    let effects = explorer.effects(script);
    let mut tally = Tally::default();
    for deed in deeds {
        for at in 0..effects {
            let raced = script.with_race(at, *deed);
            tally.add(explorer.explore_script(&raced, Depth::RACE));
        }
    }
    (tally, explorer)
}

/// Scripts nobody wrote, from a seed that is printed: `BANGER_SIM_SEED` repeats them.
fn random_scripts() -> impl Iterator<Item = Script> {
    let given = std::env::var("BANGER_SIM_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let by_clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |t| t.as_secs())
    };
    let seed: u64 = given.unwrap_or_else(by_clock);
    println!("random scripts: BANGER_SIM_SEED={seed}");
    let mut random = Random::new(seed);
    (0..60).map(move |n| random.script(n))
}

#[derive(Default)]
struct Sum {
    all: Tally,
    distinct: usize,
    runs: u64,
}

impl Sum {
    fn add(&mut self, job: &Job, tally: Tally, explorer: &Explorer, began: Instant) {
        let name = job.name();
        if let (Job::Script(script, _), true) = (job, tally.failed > 0) {
            println!("{script:?}");
        }
        println!(
            "{name:<55} {:>8} cases {:>5} failed {:>6} worlds {:>6.1} s",
            tally.cases,
            tally.failed,
            explorer.distinct(),
            began.elapsed().as_secs_f32()
        );
        for (finding, (cases, path)) in &tally.failures {
            println!("    {cases} × {finding}\n        {path}");
        }
        self.distinct += explorer.distinct();
        self.runs += explorer.runs;
        self.all.add(tally);
    }
}

/// Every kind of effect is hit by every kind of injection.
fn missing(table: &Table) -> Vec<String> {
    // Programs that are run to their end have no part in converging; links are brought up by
    // `SetMaster`.
    const ELSEWHERE: [Effect; 2] = [Effect::Tool, Effect::SetUp];
    const ALL: [Effect; 40] = [
        Effect::Read,
        Effect::List,
        Effect::Mkdir,
        Effect::WriteFile,
        Effect::SyncFile,
        Effect::SyncDir,
        Effect::Rename,
        Effect::Unlink,
        Effect::Rmdir,
        Effect::MakeDisk,
        Effect::GrowDisk,
        Effect::LoopList,
        Effect::LoopAttach,
        Effect::LoopDetach,
        Effect::DmList,
        Effect::DmCreate,
        Effect::DmLoad,
        Effect::DmResume,
        Effect::DmRemove,
        Effect::LinkList,
        Effect::TapCreate,
        Effect::SetMaster,
        Effect::SetUp,
        Effect::LinkDelete,
        Effect::BridgeCreate,
        Effect::RulesetRead,
        Effect::RulesetSwap,
        Effect::JailCreate,
        Effect::JailRemove,
        Effect::CgroupCreate,
        Effect::CgroupRemove,
        Effect::JailList,
        Effect::LockProbe,
        Effect::Spawn,
        Effect::Prove,
        Effect::Signal,
        Effect::AwaitExit,
        Effect::Tool,
        Effect::DiskSpace,
        Effect::Ledger,
    ];
    let columns = [
        [Column::Before, Column::AgainBefore],
        [Column::After, Column::AgainAfter],
        [Column::Error, Column::AgainError],
    ];
    let mut missing = Vec::new();
    for effect in ALL.into_iter().filter(|e| !ELSEWHERE.contains(e)) {
        for either in columns {
            let hit = either
                .iter()
                .any(|c| table.get(&(effect, *c)).is_some_and(|n| *n > 0));
            if !hit {
                missing.push(format!("{effect:?} × {:?}", either[0]));
            }
        }
    }
    missing
}
