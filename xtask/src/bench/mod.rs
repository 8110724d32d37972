//! `cargo xtask bench`: how much banger adds to the bare machine, as ratios measured in the same run.
//!
//! The baseline is the same QEMU command line (taken from a running VM), kernel and modules, with an `/init`
//! that prints one line and powers off. Pairs alternate, so that a busy machine is busy for both.

mod baseline;
mod boots;
mod figures;
mod guest;
mod home;
mod images;
mod kernels;
mod life;
mod rows;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use baseline::Baseline;
use figures::{median, spread};
use home::Home;

use crate::run;

/// Alternating pairs for each ratio.
const PAIRS: usize = 15;

/// Creates and deletes between the two looks at the daemon's memory.
const CREATES: u32 = 50;

/// First boots on a busy machine, where nobody says how many.
const BOOTS: usize = 200;

/// What is to be measured.
enum Wanted {
    All,
    Guest,
    Life,
    Images,
    Kernels,
    Boots(usize),
}

/// Without arguments runs every measurement but the boots and prints a line for each; `guest` runs those on a VM that
/// runs, `life` those of many VMs and of their ends, `images` those of imports, `kernels` that of the own kernel, `boots [COUNT]` the boots.
///
/// # Errors
/// When the arguments are others, or something that is to be measured does not work.
pub fn command(root: &Path, args: &[&str]) -> Result<ExitCode, String> {
    let wanted = match args {
        [] => Wanted::All,
        ["guest"] => Wanted::Guest,
        ["life"] => Wanted::Life,
        ["images"] => Wanted::Images,
        ["kernels"] => Wanted::Kernels,
        ["boots"] => Wanted::Boots(BOOTS),
        ["boots", count] => Wanted::Boots(
            count
                .parse()
                .map_err(|e| format!("{count:?} is no number of boots: {e}"))?,
        ),
        _ => {
            return Err(
                "usage: cargo xtask bench [guest | life | images | kernels | boots [COUNT]]"
                    .to_owned(),
            );
        }
    };
    let home = Home::new(root)?;
    let result = match wanted {
        Wanted::All => measure(root, &home),
        Wanted::Guest => guest::measure(root, &home),
        Wanted::Life => life::measure(&home),
        Wanted::Images => images::measure(&home),
        Wanted::Kernels => kernels::measure(root, &home),
        Wanted::Boots(count) => boots::measure(&home, count),
    };
    let closed = home.close();
    result.and(closed)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(root: &Path, home: &Home) -> Result<(), String> {
    eprintln!("==> the first run, which makes image and kernel");
    home.run(&["vm", "run", "--rm", "--", "true"])?;
    let baseline = Baseline::take(root, home)?;
    warm(home, &baseline)?;
    cold(home)?;
    cost_of_a_create(home)?;
    guest::measure(root, home)?;
    life::measure(home)?;
    rows::measure(root, home)
}

/// First output byte and whole run, each against the baseline's.
///
/// Ours and the baseline's alternate strictly: what a run leaves behind for the next (memory to be given back, files to
/// be written out) is then the same for all.
fn warm(home: &Home, baseline: &Baseline) -> Result<(), String> {
    let (mut first, mut whole) = (Pairs::default(), Pairs::default());
    for pair in 0..PAIRS {
        eprintln!("==> pair {} of {PAIRS}", pair + 1);
        for echo in [pair % 2 == 0, pair % 2 != 0] {
            let bare = baseline.run()?;
            if echo {
                first.baseline.push(bare.first);
                let ours = home.timed(&["vm", "run", "--rm", "--", "echo", "ready"])?;
                first.banger.push(ours.first);
            } else {
                whole.baseline.push(bare.whole);
                let ours = home.timed(&["vm", "run", "--rm", "--", "true"])?;
                whole.banger.push(ours.whole);
            }
        }
    }
    first.print("first output byte, warm daemon", 1.15);
    whole.print("whole `vm run --rm -- true`", 1.3);
    Ok(())
}

/// What the first command pays for starting the daemon, without a VM in the way.
fn cold(home: &Home) -> Result<(), String> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        home.run(&["daemon", "stop"])?;
        for into in [&mut cold, &mut warm] {
            into.push(home.timed(&["vm", "list"])?.whole);
        }
    }
    let more = median(&cold) - median(&warm);
    println!(
        "cold daemon: {more:.0} ms more than warm (median of {PAIRS} pairs: {} and {}; target 150)",
        spread(&cold),
        spread(&warm)
    );
    Ok(())
}

/// The daemon's processor time for each create, and its memory before and after.
fn cost_of_a_create(home: &Home) -> Result<(), String> {
    let pid = home.daemon()?;
    // The first create reads what every later one finds read.
    home.quiet(&["vm", "run", "--rm", "--", "true"])?;
    let idle = home::resident(pid)?;
    let mut spent = 0;
    for n in 0..CREATES {
        let name = format!("bench-{n}");
        let before = home::cpu_ms(pid)?;
        home.quiet(&["vm", "create", "--name", &name])?;
        spent += home::cpu_ms(pid)? - before;
        home.quiet(&["vm", "delete", "--force", &name])?;
    }
    println!(
        "daemon's processor time for a create: {} ms (mean of {CREATES}, children included; target 30)",
        spent / u64::from(CREATES)
    );
    let after = home::resident(pid)?;
    println!(
        "daemon's resident memory: {idle} KiB idle, {after} KiB after {CREATES} creates and deletes (target 25600)"
    );
    Ok(())
}

/// Milliseconds of both sides of a ratio.
#[derive(Debug, Default)]
struct Pairs {
    baseline: Vec<f64>,
    banger: Vec<f64>,
}

impl Pairs {
    fn print(&self, what: &str, target: f64) {
        println!(
            "{what}: {:.2} (medians of {PAIRS} pairs: {} / {}; target {target})",
            median(&self.banger) / median(&self.baseline),
            spread(&self.banger),
            spread(&self.baseline)
        );
    }
}

/// Times of one run, in milliseconds from its start.
#[derive(Debug, Clone, Copy)]
struct Timed {
    /// To the first byte on standard output; the whole where there was none.
    first: f64,
    /// To its end.
    whole: f64,
}

fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
