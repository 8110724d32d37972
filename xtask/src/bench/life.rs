//! The ends of VMs, many at once, and how long the command line itself takes to begin.

use std::ffi::OsString;
use std::thread;

use super::figures::{median, quantile, spread};
use super::home::{Home, timed};
use super::since;
use crate::run;
use std::time::Instant;

/// VMs whose end is measured.
const ENDS: usize = 20;
/// VMs made at once, and one after the other.
const MANY: usize = 10;
/// Starts of each program.
const STARTS: usize = 50;

/// All of it.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(home: &Home) -> Result<(), String> {
    home.quiet(&["vm", "run", "--rm", "--", "true"])?;
    starts(home)?;
    ends(home)?;
    many(home)
}

/// `version`, `ps` and a completion, each against `/bin/true`.
fn starts(home: &Home) -> Result<(), String> {
    let complete = [
        ("_BANGER_COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", "3"),
        ("_CLAP_IFS", "\n"),
    ];
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..STARTS {
        times[0].push(timed(run::command("/bin/true"), "/bin/true")?.whole);
        times[1].push(home.timed(&["version"])?.whole);
        times[2].push(home.timed(&["ps"])?.whole);
        let words = ["--", "banger", "vm", "stop", ""];
        times[3].push(
            home.timed_with(&words, &complete.map(|(k, v)| (k, OsString::from(v))))?
                .whole,
        );
    }
    let bare = median(&times[0]);
    for (what, times) in ["version", "ps", "completion of a VM's name"]
        .iter()
        .zip(&times[1..])
    {
        println!(
            "`banger {what}`: {:.1} ms, p99 {:.1}; {:.1} of /bin/true ({bare:.1} ms)",
            median(times),
            quantile(times, 0.99),
            median(times) / bare
        );
    }
    Ok(())
}

/// Stop and delete, one VM after the other.
fn ends(home: &Home) -> Result<(), String> {
    let (mut stops, mut deletes) = (Vec::new(), Vec::new());
    for n in 0..ENDS {
        let name = format!("end-{n}");
        home.quiet(&["vm", "create", "--name", &name])?;
        stops.push(home.timed(&["vm", "stop", &name])?.whole);
        deletes.push(home.timed(&["vm", "delete", &name])?.whole);
    }
    let both: Vec<f64> = stops.iter().zip(&deletes).map(|(a, b)| a + b).collect();
    println!(
        "stop + delete: p50 {:.0}, p99 {:.0} ms of {ENDS} (stop {}, delete {})",
        quantile(&both, 0.5),
        quantile(&both, 0.99),
        spread(&stops),
        spread(&deletes)
    );
    Ok(())
}

/// Ten creates at once against ten one after the other.
fn many(home: &Home) -> Result<(), String> {
    let name = |kind: &str, n: usize| format!("{kind}-{n}");
    // Small ones: their memory is promised all at once.
    let create = |name: &str| {
        home.quiet(&["vm", "create", "--memory", "256M", "--name", name])
            .map(drop)
    };
    let delete = |kind: &str| {
        let names: Vec<String> = (0..MANY).map(|n| name(kind, n)).collect();
        let mut args = vec!["vm", "delete", "--force"];
        args.extend(names.iter().map(String::as_str));
        home.quiet(&args).map(drop)
    };
    let began = Instant::now();
    for n in 0..MANY {
        create(&name("after", n))?;
    }
    let one_by_one = since(began);
    delete("after")?;
    let began = Instant::now();
    let made: Result<(), String> = thread::scope(|scope| {
        let makers: Vec<_> = (0..MANY)
            .map(|n| scope.spawn(move || create(&name("once", n))))
            .collect();
        makers
            .into_iter()
            .try_for_each(|maker| maker.join().map_err(|_| "a thread panicked".to_owned())?)
    });
    made?;
    let at_once = since(began);
    delete("once")?;
    println!(
        "{MANY} VMs at once: {:.2} of one after the other ({at_once:.0} / {one_by_one:.0} ms)",
        at_once / one_by_one
    );
    Ok(())
}
