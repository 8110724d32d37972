//! `cargo xtask bench boots [COUNT]`: first boots on a machine whose cores are all busy. A boot that does not say
//! hello at the first try is counted, though the daemon would try it again.

use std::process::{Child, Command};
use std::time::Instant;

use super::figures::{median, quantile};
use super::home::Home;
use super::since;
use crate::run;

/// What the daemon logs for a boot without a hello.
const SILENT: &str = "no hello";

/// Boots `count` VMs, half of them with one virtual CPU and half with two, beside one endless loop for each core.
///
/// # Errors
/// When a command fails, or a boot was silent.
pub fn measure(home: &Home, count: usize) -> Result<(), String> {
    home.run(&["vm", "run", "--rm", "--", "true"])?;
    let _busy = Busy::every_core()?;
    let mut silent = 0;
    for vcpus in ["1", "2"] {
        let mut times = Vec::new();
        for n in 0..count / 2 {
            let began = Instant::now();
            home.quiet(&["vm", "run", "--rm", "--vcpu", vcpus, "--", "true"])?;
            times.push(since(began));
            if n % 10 == 9 {
                eprintln!("==> {} of {count} boots with {vcpus} virtual CPUs", n + 1);
            }
        }
        let seen = home.log()?.matches(SILENT).count();
        println!(
            "boots with every core busy, {vcpus} virtual CPUs: {} of {} said hello at the first try (whole run: median {:.0} ms, longest {:.0} ms)",
            times.len() - (seen - silent),
            times.len(),
            median(&times),
            quantile(&times, 1.0)
        );
        silent = seen;
    }
    if silent == 0 {
        Ok(())
    } else {
        Err(format!("{silent} boots were silent"))
    }
}

/// Endless loops, ended when this is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn every_core() -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut busy = Busy(Vec::new());
        for _ in 0..cores {
            let mut command: Command = run::command("sh");
            command.args(["-c", "while :; do :; done"]);
            let child = command.spawn().map_err(|e| format!("cannot run sh: {e}"))?;
            busy.0.push(child);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // They end by nothing else.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
