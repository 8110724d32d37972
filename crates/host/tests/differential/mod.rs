//! The same script of effects on the simulation and on the machine; every answer and, after every
//! effect, all that can be seen must be equal.
//!
//! A [`Group`] draws the effects of one kind of object and says them to both. What the kernel
//! chooses (loop numbers, pids) is named by *slots*: the n-th attempt to make one.

pub mod devices;
pub mod files;
pub mod jails;
pub mod links;
pub mod processes;

use banger_host::{
    ErrorKind,
    linux::{LinuxConfig, LinuxHost, shares_blocks},
    sim::{Nature, SimHost, World},
};
use banger_model::{Instance, Label, Role, VmId};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Debug,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

/// An answer, with what the kernel chooses replaced by slots.
pub type Answer = Result<String, ErrorKind>;

/// How long the machine may take to show what the simulation shows at once (udev looks at devices,
/// another test's listing holds a loop device open for a moment).
const PATIENCE: Duration = Duration::from_secs(5);

/// An effect without a value.
pub fn done<T>(answer: Result<T, banger_host::Error>) -> Answer {
    answer.map(|_| String::new()).map_err(|e| e.kind)
}

/// An effect with a value worth comparing.
pub fn shown<T: Debug>(answer: Result<T, banger_host::Error>) -> Answer {
    answer.map(|v| format!("{v:?}")).map_err(|e| e.kind)
}

/// Numbers from a seed (splitmix64).
pub struct Rng(u64);

impl Rng {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One kind of object, on both machines.
pub trait Group {
    /// An effect; its debug text begins with its name.
    type Op: Debug;
    /// The next effect of the script.
    fn draw(&mut self, rng: &mut Rng) -> Self::Op;
    /// The simulation's answer.
    fn sim(&mut self, op: &Self::Op) -> Answer;
    /// The kernel's answer; `sim` is what it should be, for those who must wait for it.
    fn real(&mut self, op: &Self::Op, sim: &Answer) -> Answer;
    /// All there is in the simulation.
    fn seen_sim(&mut self) -> Vec<String>;
    /// All there is on the machine, of ours.
    fn seen_real(&mut self) -> Vec<String>;
}

/// Two daemons on one simulated machine, and two on the real one.
pub struct Pair {
    pub sim: [SimHost; 2],
    pub real: [LinuxHost; 2],
    config: LinuxConfig,
}

impl Pair {
    /// New daemons; `dir` exists on both machines.
    pub fn new(dir: &Path, cgroup_root: &Path) -> Self {
        let config = LinuxConfig {
            jail_root: dir.join("jails"),
            cgroup_root: cgroup_root.to_owned(),
        };
        let shares = shares_blocks(dir, dir).is_ok();
        let mut world = World::new(Nature {
            unshared: (!shares).then(|| "/".into()).into_iter().collect(),
            ..Nature::default()
        });
        world.given_dir(dir);
        let world = Rc::new(RefCell::new(world));
        Pair {
            sim: [SimHost::on(world.clone()), SimHost::on(world)],
            real: [
                LinuxHost::new(config.clone()),
                LinuxHost::new(config.clone()),
            ],
            config,
        }
    }

    /// kill -9 and a new daemon, simulated.
    pub fn restart_sim(&mut self, host: usize) {
        self.sim[host].kill();
        self.sim[host] = SimHost::on(self.sim[host].world());
    }

    /// All that a daemon holds let go, and a new one.
    pub fn restart_real(&mut self, host: usize) {
        self.real[host] = LinuxHost::new(self.config.clone());
    }
}

/// Instances that nobody else on this machine has.
pub fn instances() -> [Instance; 2] {
    [crate::common::instance(), crate::common::instance()]
}

/// Few VMs, the same numbers in both instances.
pub const VMS: [VmId; 2] = [VmId::from_bytes([0xd1; 6]), VmId::from_bytes([0xd2; 6])];

/// Every label of these instances, those VMs and these roles.
pub fn labels(instances: &[Instance], roles: &[Role]) -> Vec<Label> {
    let mut all = Vec::new();
    for instance in instances {
        for vm in VMS {
            all.extend(roles.iter().map(|role| Label::vm(*instance, vm, *role)));
        }
    }
    all
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let value = text.parse();
    Some(value.unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// How often each effect was answered how.
type Table = BTreeMap<String, BTreeMap<String, u32>>;

/// Runs scripts of `length` effects: `scripts` of them from seed 1, unless `BANGER_SEED` and
/// `BANGER_DIFF_SCRIPTS` say otherwise.
pub fn run<G: Group>(name: &str, scripts: u64, length: usize, make: impl Fn() -> G) {
    let given = number("BANGER_SEED");
    let first = given.unwrap_or(1);
    let count = number("BANGER_DIFF_SCRIPTS").unwrap_or(if given.is_some() { 1 } else { scripts });
    let mut table = Table::new();
    let begun = Instant::now();
    for seed in first..first + count {
        let mut script = Vec::new();
        if let Err(difference) = one(&mut make(), seed, length, &mut script, &mut table) {
            panic!(
                "{name}: simulation and kernel differ, BANGER_SEED={seed} repeats it\n{}\n{difference}",
                script.join("\n")
            );
        }
    }
    println!(
        "differential {name}: {count} scripts of {length} effects from seed {first}, 0 differ, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    for (effect, answers) in &table {
        println!("  {effect:14} {answers:?}");
    }
    if given.is_none() {
        let never: Vec<_> = table
            .iter()
            // What a file system has not, it refuses as itself.
            .filter(|(_, answers)| {
                !answers.contains_key("Ok") && !answers.contains_key("Unsupported")
            })
            .collect();
        assert!(never.is_empty(), "{name}: never came to pass: {never:?}");
    }
}

fn one<G: Group>(
    group: &mut G,
    seed: u64,
    length: usize,
    script: &mut Vec<String>,
    table: &mut Table,
) -> Result<(), String> {
    let mut rng = Rng(seed);
    for at in 0..length {
        let op = group.draw(&mut rng);
        let text = format!("{op:?}");
        let sim = group.sim(&op);
        let real = group.real(&op, &sim);
        script.push(format!("{at:4} {text} -> {sim:?}"));
        if sim != real {
            return Err(format!("simulation: {sim:?}\n    kernel: {real:?}"));
        }
        let effect = text.split([' ', '(']).next().unwrap_or(&text).to_owned();
        let kind = match &sim {
            Ok(_) => "Ok".to_owned(),
            Err(kind) => format!("{kind:?}"),
        };
        *table.entry(effect).or_default().entry(kind).or_default() += 1;
        let (sim, mut real) = (group.seen_sim(), group.seen_real());
        let until = Instant::now() + PATIENCE;
        while sim != real && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            real = group.seen_real();
        }
        if sim != real {
            return Err(format!(
                "what is there then\nsimulation: {sim:#?}\nkernel: {real:#?}"
            ));
        }
    }
    Ok(())
}

/// Asks again while the kernel says `Busy` and should not.
pub fn patient(sim: &Answer, mut ask: impl FnMut() -> Answer) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        let wait = answer == Err(ErrorKind::Busy) && *sim != answer;
        if !wait || Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
