//! The daemon with a thousand rows and twenty running VMs.

use std::path::Path;

use super::figures::{median, spread};
use super::home::{self, Home};
use super::{PAIRS, run};

/// Rows of stopped VMs.
const ROWS: &str = "1000";
/// VMs that run.
const RUNNING: u32 = 20;

/// Memory with a thousand rows; `ps` against `version`, in alternating pairs.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(root: &Path, home: &Home) -> Result<(), String> {
    home.run(&["vm", "create", "--name", "original", "--memory", "128M"])?;
    home.run(&["vm", "stop", "original"])?;
    home.run(&["daemon", "stop"])?;
    insert(root, home)?;
    home.run(&["vm", "list", "--quiet"])?;
    println!(
        "daemon's resident memory with {ROWS} rows: {} KiB (target 25600)",
        home::resident(home.daemon()?)?
    );
    for n in 0..RUNNING {
        eprintln!("==> VM {} of {RUNNING}", n + 1);
        let name = format!("running-{n}");
        home.quiet(&["vm", "create", "--name", &name, "--memory", "128M"])?;
    }
    let (mut ps, mut version) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let both = [(["ps"], &mut ps), (["version"], &mut version)];
        let order: Vec<_> = if pair % 2 == 0 {
            both.into_iter().collect()
        } else {
            both.into_iter().rev().collect()
        };
        for (args, into) in order {
            into.push(home.timed(&args)?.whole);
        }
    }
    println!(
        "ps / version with {ROWS} rows, {RUNNING} running: {:.2} ({} / {}; target 6)",
        median(&ps) / median(&version),
        spread(&ps),
        spread(&version)
    );
    println!(
        "daemon's resident memory with {ROWS} rows, {RUNNING} running: {} KiB (target 25600)",
        home::resident(home.daemon()?)?
    );
    for n in 0..RUNNING {
        home.quiet(&["vm", "delete", "--force", &format!("running-{n}")])?;
    }
    Ok(())
}

/// Copies the row of `original` through the store; the daemon does not run.
fn insert(root: &Path, home: &Home) -> Result<(), String> {
    let mut cargo = run::command("cargo");
    cargo
        .current_dir(root)
        .args(["run", "--quiet", "--release", "-p", "banger-store"])
        .args(["--example", "rows", "--"])
        .arg(home.state().join("state.db"))
        .args(["original", ROWS]);
    run::to_end(cargo, "the example rows of banger-store")
}
