//! The real executor, enumerated by effect: the daemon is killed just before and just after its n-th
//! effect, for every operation, and the next command must find a consistent world. Needs the programs
//! built with `--features crash-points`, in `crash/` beside the others (`./test` puts them there).
//!
//! `BANGER_CRASH_STRIDE` (default 7) takes every so many-th point, from an offset drawn with
//! `BANGER_SEED`; `./soak` takes them all.

use banger_testkit::{Home, wait_until};
use serde_json::Value;
use std::{fs, path::PathBuf, time::Duration};

/// Recovery may have to boot a guest again; it never needs longer than that.
const RECOVERY: Duration = Duration::from_secs(60);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// One enumerated operation.
struct Operation {
    name: &'static str,
    /// Brings the VM `dev` into the state the operation starts from; nothing if there is none.
    prepare: fn(&Home),
    command: &'static [&'static str],
    /// Whether `dev` was acknowledged before: it must then survive, unless the command deletes it.
    acknowledged: bool,
    deletes: bool,
}

const OPERATIONS: [Operation; 4] = [
    Operation {
        name: "create",
        prepare: |_| {},
        command: &["vm", "create", "--name", "dev"],
        acknowledged: false,
        deletes: false,
    },
    Operation {
        name: "stop",
        prepare: |home| ensure(home, "running"),
        command: &["vm", "stop", "dev"],
        acknowledged: true,
        deletes: false,
    },
    Operation {
        name: "start",
        prepare: |home| ensure(home, "stopped"),
        command: &["vm", "start", "dev"],
        acknowledged: true,
        deletes: false,
    },
    Operation {
        name: "delete",
        prepare: |home| ensure(home, "stopped"),
        command: &["vm", "delete", "--force", "dev"],
        acknowledged: true,
        deletes: true,
    },
];

#[test]
fn create_survives_every_crash_point() {
    enumerate(&OPERATIONS[0]);
}

#[test]
fn stop_survives_every_crash_point() {
    enumerate(&OPERATIONS[1]);
}

#[test]
fn start_survives_every_crash_point() {
    enumerate(&OPERATIONS[2]);
}

#[test]
fn delete_survives_every_crash_point() {
    enumerate(&OPERATIONS[3]);
}

/// `dev` exists, its work disk holds the mark, and it is in this state.
fn ensure(home: &Home, state: &str) {
    if home.banger(&["vm", "show", "dev"]).status != 0 {
        home.banger(&["vm", "create", "--name", "dev"]).exits(0);
        home.guest_sh("dev", "echo kept >/root/mark; sync").exits(0);
    }
    let now = home.show("dev")["state"].as_str().unwrap_or("?").to_owned();
    match (now.as_str(), state) {
        (now, wanted) if now == wanted => {}
        (_, "running") => drop(home.banger(&["vm", "start", "dev"]).exits(0)),
        _ => drop(home.banger(&["vm", "stop", "dev"]).exits(0)),
    }
}

fn enumerate(operation: &Operation) {
    let mut home = Home::new().with_crash_points();
    let log = home.scratch().join("effects");
    (operation.prepare)(&home);
    let effects = count_effects(&mut home, operation, &log);
    assert!(
        effects >= 3,
        "{} has only {effects} effects: the log is not written",
        operation.name
    );

    let stride = setting("BANGER_CRASH_STRIDE", 7).max(1);
    let offset = setting("BANGER_SEED", u64::from(std::process::id())) % stride;
    let (mut cases, mut died) = (0, 0);
    for n in (1 + offset..=effects).step_by(usize::try_from(stride).unwrap_or(1)) {
        for after in ["", ":after"] {
            (operation.prepare)(&home);
            home.banger(&["daemon", "stop"]).exits(0);
            home.set_env("BANGER_CRASH_AT", Some(&format!("{n}{after}")));
            let run = home.banger(operation.command);
            home.set_env("BANGER_CRASH_AT", None);
            // A daemon that lived through its countdown must not die of a later command's effects.
            let _ = home.banger(&["daemon", "stop"]);
            died += u32::from(run.status != 0);
            cases += 1;
            judge(
                &home,
                operation,
                &format!(
                    "{} crashed at {n}{after}, exit {}",
                    operation.name, run.status
                ),
            );
        }
    }
    println!(
        "{}: {cases} crash points of {effects} effects x 2 (stride {stride}, offset {offset}), the daemon died in {died}",
        operation.name
    );
    assert!(
        died > 0,
        "no crash point ended a daemon: they are not consulted"
    );
    home.finish();
}

/// Counts the effects of the operation in a daemon started for it alone, then puts things back.
fn count_effects(home: &mut Home, operation: &Operation, log: &PathBuf) -> u64 {
    home.banger(&["daemon", "stop"]).exits(0);
    home.set_env("BANGER_EFFECT_LOG", log.to_str());
    home.banger(operation.command).exits(0);
    home.set_env("BANGER_EFFECT_LOG", None);
    home.banger(&["daemon", "stop"]).exits(0);
    let text = fs::read_to_string(log).unwrap_or_default();
    if !operation.acknowledged {
        home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    }
    text.lines().count() as u64
}

/// The next command finds a consistent world: an acknowledged VM is there with its data, or was
/// deleted as asked; nothing half made is left once recovery is through.
fn judge(home: &Home, operation: &Operation, case: &str) {
    let lasting = |v: &Value| matches!(v["state"].as_str(), Some("running" | "stopped"));
    let settled = wait_until(&format!("{case}: a lasting state"), RECOVERY, || {
        let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
        let all = listed.as_array().cloned().unwrap_or_default();
        if all.iter().all(lasting) {
            Ok(all)
        } else {
            Err(listed.to_string())
        }
    });
    match settled.as_slice() {
        [] => assert!(
            !operation.acknowledged || operation.deletes,
            "{case}: the VM is gone"
        ),
        [_] if operation.acknowledged => {
            ensure(home, "running");
            let mark = home
                .banger(&["vm", "exec", "dev", "--", "cat", "/root/mark"])
                .exits(0);
            assert_eq!(mark.out(), "kept", "{case}");
        }
        [_] => drop(home.banger(&["vm", "delete", "--force", "dev"]).exits(0)),
        _ => panic!("{case}: more than one VM: {settled:?}"),
    }
    if settled.is_empty() || !operation.acknowledged {
        wait_until(&format!("{case}: nothing left"), RECOVERY, || {
            match home.leftovers() {
                left if left.is_empty() => Ok(()),
                left => Err(left.join(", ")),
            }
        });
    }
}
