//! Commands in, and copies into, a VM that runs, against the minimal agent over the same port of the same machine.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::baseline::{Baseline, Live};
use super::figures::{median, quantile, spread};
use super::home::Home;
use crate::run;

/// Commands of each side.
const COMMANDS: usize = 200;
/// Copies of each side.
const COPIES: usize = 5;
/// Size of a copy: 1 GiB.
const COPY: u64 = 1 << 30;

/// `exec -- true` and `vm cp`.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(root: &Path, home: &Home) -> Result<(), String> {
    home.run(&["vm", "create", "--name", "bench"])?;
    let measured = Baseline::live(root, home).and_then(|bare| {
        let both = commands(home, &bare).and_then(|()| copies(home, &bare));
        bare.end().and(both)
    });
    home.run(&["vm", "delete", "--force", "bench"])?;
    measured
}

/// `banger vm exec bench -- /bin/true`, its own process included, against a C program that asks a C program.
fn commands(home: &Home, bare: &Live) -> Result<(), String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..COMMANDS {
        for banger in [pair % 2 == 0, pair % 2 != 0] {
            if banger {
                ours.push(
                    home.timed(&["vm", "exec", "bench", "--", "/bin/true"])?
                        .whole,
                );
            } else {
                theirs.push(bare.ask(&["x"], Stdio::null())?.whole);
            }
        }
    }
    let both = |q| (quantile(&ours, q), quantile(&theirs, q));
    let (p50, p99) = (both(0.5), both(0.99));
    println!(
        "`vm exec -- true`: {:.2} (p50 {:.1} / {:.1} ms, p99 {:.1} / {:.1} ms of {COMMANDS}; target 1.5)",
        p50.0 / p50.1,
        p50.0,
        p50.1,
        p99.0,
        p99.1
    );
    Ok(())
}

/// `vm cp` of 1 GiB that is no zeros, against the same bytes into a file on the same disk, flushed.
fn copies(home: &Home, bare: &Live) -> Result<(), String> {
    let source = home.base().join("source");
    let mut dd = run::command("dd");
    dd.args(["if=/dev/urandom", "bs=1M", "iflag=fullblock", "status=none"])
        .arg(format!("of={}", source.display()))
        .arg(format!("count={}", COPY >> 20));
    run::to_end(dd, "dd")?;
    let (mut ours, mut theirs, mut health) = (Vec::new(), Vec::new(), Vec::new());
    for copy in 0..COPIES {
        eprintln!("==> copy {} of {COPIES}", copy + 1);
        let from = source.to_string_lossy();
        let copy = || home.timed(&["vm", "cp", &from, "bench:/root/copy"]);
        ours.push(beside(home, &mut health, copy)?.whole);
        home.run(&["vm", "exec", "bench", "--", "rm", "/root/copy"])?;
        let file = std::fs::File::open(&source)
            .map_err(|e| format!("cannot read {}: {e}", source.display()))?;
        let count = COPY.to_string();
        theirs.push(bare.ask(&["w", &count], Stdio::from(file))?.whole);
    }
    println!(
        "`vm cp` of 1 GiB: {:.2} ({} / {}, medians of {COPIES})",
        median(&ours) / median(&theirs),
        spread(&ours),
        spread(&theirs)
    );
    println!(
        "`vm health` during these copies: p50 {:.0}, p99 {:.0}, longest {:.0} ms of {}",
        quantile(&health, 0.5),
        quantile(&health, 0.99),
        quantile(&health, 1.0),
        health.len()
    );
    Ok(())
}

/// Asks for the VM's health, five times a second, while something is done.
fn beside<T>(
    home: &Home,
    health: &mut Vec<f64>,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                times.push(home.timed(&["vm", "health", "bench"])?.whole);
                thread::sleep(Duration::from_millis(200));
            }
            Ok::<_, String>(times)
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let asked = asking.join().map_err(|_| "a thread panicked".to_owned())?;
        health.extend(asked?);
        done
    })
}
