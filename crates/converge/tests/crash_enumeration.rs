//! Every script × every effect × {crash before, in the middle, after, error, power loss} × {again at
//! every point in what follows}. `cargo test -p banger-converge --release --test crash_enumeration
//! -- --nocapture` prints the table and the count; `docs/design/simulation.md` says what it means.

mod harness;

use banger_host::Effect;
use harness::{
    explore::{Column, Depth, Explorer, Table, Tally, explore_script, render},
    random::Random,
    scripts, site,
};
use std::time::Instant;

/// At least so many cases, or the enumeration is not what it was.
const LEAST_CASES: u64 = 1_000_000;

#[test]
fn enumeration() {
    let began = Instant::now();
    let only = std::env::var("BANGER_SIM_ONLY").ok();
    let mut sum = Sum::default();
    for (script, depth) in scripts::written() {
        if only.as_ref().is_none_or(|o| script.name.contains(o)) {
            let (tally, explorer) = explore_script(&script, depth);
            sum.add(&script.name, tally, &explorer, began);
        }
    }
    if only.as_ref().is_none_or(|o| o == "races") {
        races(&mut sum, began);
    }
    if only.as_ref().is_none_or(|o| o == "random") {
        random_scripts(&mut sum, began);
    }
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

/// A request of another thread between any two effects.
fn races(sum: &mut Sum, began: Instant) {
    for (script, deeds) in scripts::raced() {
        let mut explorer = Explorer::new(site::world(&script.guests));
        let effects = explorer.effects(&script);
        let mut tally = Tally::default();
        for deed in deeds {
            for at in 0..effects {
                let raced = script.with_race(at, deed);
                tally.add(explorer.explore_script(&raced, Depth::RACE));
            }
        }
        sum.add(&format!("races: {}", script.name), tally, &explorer, began);
    }
}

/// Scripts nobody wrote, from a seed that is printed: `BANGER_SIM_SEED` repeats them.
fn random_scripts(sum: &mut Sum, began: Instant) {
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
    for n in 0..60 {
        let script = random.script(n);
        let (tally, explorer) = explore_script(&script, Depth::ONCE);
        if tally.failed > 0 {
            println!("{script:?}");
        }
        sum.add(&script.name, tally, &explorer, began);
    }
}

#[derive(Default)]
struct Sum {
    all: Tally,
    distinct: usize,
    runs: u64,
}

impl Sum {
    fn add(&mut self, name: &str, tally: Tally, explorer: &Explorer, began: Instant) {
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
