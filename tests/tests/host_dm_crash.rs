//! The real executor on real devices, enumerated by effect: the daemon is killed just before or just after its n-th
//! effect. A loop device that nothing stands on is gone with it, at once; the next daemon brings the rest to a lasting
//! state.
//!
//! Where `BANGER_CRASH_STRIDE` says how many effects lie between two points: each verb is sampled, before and after the
//! effect by turns, and 1 takes every point there is (`./soak`). `BANGER_SEED` begins elsewhere. Not in each `./test`: a
//! point costs up to two boots in the emulated machine, minutes in all, and its AMD-V does not bear that many each time.

mod dm;

use banger_testkit::{Home, wait_until};
use dm::Host;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The variable's number, if it is set.
fn setting(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// The numbers that `BANGER_CRASH_AT` takes for the points of a verb: of `effects` effects every `stride`-th from the
/// `seed`-th on, just before one and just after the next; at stride 1 both for each.
fn points(effects: usize, stride: usize, seed: usize) -> Vec<String> {
    let taken = (1 + seed % stride..=effects).step_by(stride).enumerate();
    taken
        .flat_map(|(nth, effect)| {
            let (before, after) = (effect.to_string(), format!("{effect}:after"));
            match (stride, (nth + seed / stride) % 2) {
                (1, _) => vec![before, after],
                (_, 0) => vec![before],
                _ => vec![after],
            }
        })
        .collect()
}

/// A home with crash points, and the log of its daemon's effects.
struct Crashing {
    home: Home,
    log: PathBuf,
    seed: usize,
    stride: usize,
    began: Instant,
    died: u32,
    cases: u32,
}

impl Crashing {
    fn new(host: &Host, stride: usize) -> Self {
        let home = host.home().with_crash_points();
        let log = home.scratch().join("effects");
        let seed = setting("BANGER_SEED").unwrap_or(0);
        Crashing {
            home,
            log,
            seed,
            stride,
            began: Instant::now(),
            died: 0,
            cases: 0,
        }
    }

    /// The points to take of a verb with these effects; says how to take them again.
    fn points(&self, verb: &str, effects: &[String]) -> Vec<String> {
        let (all, seed) = (effects.len(), self.seed);
        assert!(all >= 2, "{verb}: the log of effects: {effects:?}");
        let stride = self.stride;
        let points = points(all, stride, seed);
        println!(
            "{verb}: crash points {} of {all} effects; BANGER_SEED={seed} BANGER_CRASH_STRIDE={stride} repeats them",
            points.join(" ")
        );
        points
    }

    /// The effects of a command that succeeds, in a daemon started for it.
    fn effects(&mut self, command: &[&str]) -> Vec<String> {
        self.home.banger(&["daemon", "stop"]).exits(0);
        self.home.set_env("BANGER_EFFECT_LOG", self.log.to_str());
        self.home.banger(command).exits(0);
        self.home.set_env("BANGER_EFFECT_LOG", None);
        self.home.banger(&["daemon", "stop"]).exits(0);
        println!("{:5.1} s: {command:?}", self.began.elapsed().as_secs_f32());
        let text = fs::read_to_string(&self.log).expect("the log of effects");
        fs::remove_file(&self.log).expect("the log of effects");
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, effect)| effect.to_owned())
            .collect()
    }

    /// Runs a command in a daemon that dies there.
    fn crash(&mut self, command: &[&str], at: &str) -> String {
        self.home.banger(&["daemon", "stop"]).exits(0);
        self.home.set_env("BANGER_CRASH_AT", Some(at));
        let run = self.home.banger(command);
        self.home.set_env("BANGER_CRASH_AT", None);
        self.cases += 1;
        self.died += u32::from(run.status != 0);
        let case = format!("{command:?} crashed at {at}, exit {}", run.status);
        println!("{:5.1} s: {case}", self.began.elapsed().as_secs_f32());
        loops_without_a_device_are_gone(&case);
        // A daemon that lived through its countdown must not die of a later command's effects.
        let _ = self.home.banger(&["daemon", "stop"]);
        case
    }
}

/// AUTOCLEAR: what the dead daemon held is detached by the kernel, before any other daemon runs.
fn loops_without_a_device_are_gone(case: &str) {
    wait_until(
        &format!("{case}: the kernel to clear the loops nothing stands on"),
        Duration::from_secs(30),
        || match dm::loops() {
            left if left.iter().all(|l| l.held) => Ok(()),
            left => Err(format!("{left:#?}")),
        },
    );
}

#[test]
fn a_sample_has_both_kinds_and_the_draws_together_have_every_point() {
    let all = points(11, 1, 0);
    assert_eq!(all.len(), 22);
    for (effects, stride) in [(11, 5), (12, 6), (2, 1), (3, 1)] {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..2 * stride {
            let drawn = points(effects, stride, seed);
            let after = drawn.iter().filter(|p| p.ends_with(":after")).count();
            assert!(after > 0 && after < drawn.len(), "{drawn:?}");
            seen.extend(drawn);
        }
        assert_eq!(seen.len(), 2 * effects, "{seen:?}");
    }
}

const CREATE: [&str; 4] = ["vm", "create", "--name", "dev"];
const START: [&str; 3] = ["vm", "start", "dev"];
const STOP: [&str; 3] = ["vm", "stop", "dev"];
const DELETE: [&str; 4] = ["vm", "delete", "--force", "dev"];

/// One VM's life, over and over, for every boot is dear: what a verb leaves is what the next one needs.
#[test]
fn every_verb_on_a_snapshot_survives_its_crash_points() {
    let Some(host) = Host::here() else { return };
    let Some(stride) = setting("BANGER_CRASH_STRIDE") else {
        banger_testkit::skip("takes minutes: BANGER_CRASH_STRIDE=14 ./test --tier host every_verb");
        return;
    };
    let mut crashing = Crashing::new(&host, stride.max(1));
    let create = crashing.effects(&CREATE);
    for wanted in ["LoopAttach", "DmCreate", "DmLoad", "DmResume", "Spawn"] {
        assert!(create.iter().any(|e| e == wanted), "{wanted}: {create:?}");
    }
    mark(&crashing.home);
    let stop = crashing.effects(&STOP);
    let start = crashing.effects(&START);
    let (stop, start) = (
        crashing.points("stop", &stop),
        crashing.points("start", &start),
    );
    for turn in 0..stop.len().max(start.len()) {
        if let Some(at) = stop.get(turn) {
            crash_a_stop(&mut crashing, at);
        }
        if let Some(at) = start.get(turn) {
            crash_a_start(&mut crashing, at);
        }
    }
    let _ = crashing.home.banger(&START);
    the_mark_is_there(&crashing.home, "after the crashes of start and stop");

    let delete = crashing.effects(&DELETE);
    assert!(delete.iter().any(|e| e == "DmRemove"), "{delete:?}");
    nothing_is_left(&crashing.home, "deleted");
    for at in crashing.points("create", &create) {
        let case = crashing.crash(&CREATE, &at);
        settles(&crashing.home, &case, &["running"]);
        let _ = crashing.home.banger(&DELETE);
        nothing_is_left(&crashing.home, &case);
    }
    for at in crashing.points("delete", &delete) {
        crash_a_delete(&mut crashing, &at);
    }
    let (cases, died) = (crashing.cases, crashing.died);
    println!("the daemon died under {died} of {cases} commands");
    // One that dies after its answer is not noticed by the command.
    assert!(2 * died >= cases, "the crash points are not consulted");
    crashing.home.finish();
    host.is_as_before("after every verb");
}

/// The daemon dies in the teardown of a guest, and the disks are what was written.
fn crash_a_stop(crashing: &mut Crashing, at: &str) {
    if state(&crashing.home) != "running" {
        crashing.home.banger(&START).exits(0);
    }
    let case = crashing.crash(&STOP, at);
    if the_one_vm(&crashing.home, &case) == "running" {
        crashing.home.banger(&STOP).exits(0);
    }
    devices_are_gone(&crashing.home, &case);
}

/// The daemon dies while it builds, or while the guest boots: the VM runs or does not, and both are whole.
fn crash_a_start(crashing: &mut Crashing, at: &str) {
    if state(&crashing.home) != "stopped" {
        crashing.home.banger(&STOP).exits(0);
    }
    let case = crashing.crash(&START, at);
    if the_one_vm(&crashing.home, &case) == "running" {
        the_mark_is_there(&crashing.home, &case);
    } else {
        devices_are_gone(&crashing.home, &case);
    }
}

/// The teardown of a running VM and its removal, in one command.
fn crash_a_delete(crashing: &mut Crashing, at: &str) {
    crashing.home.banger(&CREATE).exits(0);
    mark(&crashing.home);
    let case = crashing.crash(&DELETE, at);
    if settles(&crashing.home, &case, &["stopped", "running"]) == ["running"] {
        the_mark_is_there(&crashing.home, &case);
    }
    let _ = crashing.home.banger(&DELETE);
    nothing_is_left(&crashing.home, &case);
}

/// Writes the mark on both disks of `dev`.
fn mark(home: &Home) {
    let write = "echo kept >/opt/mark; echo kept >/root/mark; sync";
    home.guest_sh("dev", write).exits(0);
}

#[track_caller]
fn the_mark_is_there(home: &Home, case: &str) {
    let read = ["vm", "exec", "dev", "--", "cat", "/opt/mark", "/root/mark"];
    assert_eq!(home.banger(&read).exits(0).out(), "kept\nkept", "{case}");
}

fn state(home: &Home) -> String {
    home.show("dev")["state"].as_str().unwrap_or("?").to_owned()
}

/// The state of the only VM there is, once it lasts.
#[track_caller]
fn the_one_vm(home: &Home, case: &str) -> String {
    match settles(home, case, &["stopped", "running"]).as_slice() {
        [state] => state.clone(),
        other => panic!("{case}: one VM was made, there are {other:?}"),
    }
}

/// The states of all VMs, once each is one of these; a VM that is to be deleted goes.
fn settles(home: &Home, case: &str, lasting: &[&str]) -> Vec<String> {
    wait_until(&format!("{case}: a lasting state"), dm::RECOVERY, || {
        let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
        let all = listed.as_array().into_iter().flatten();
        let states: Vec<String> = all
            .map(|v| v["state"].as_str().unwrap_or("?").to_owned())
            .collect();
        if states.iter().all(|s| lasting.contains(&s.as_str())) {
            Ok(states)
        } else {
            Err(listed.to_string())
        }
    })
}

fn nothing_is_left(home: &Home, case: &str) {
    wait_until(
        &format!("{case}: nothing left"),
        dm::RECOVERY,
        || match home.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.join(", ")),
        },
    );
    devices_are_gone(home, case);
}

/// No loop, no dm device, no node, no VMM.
fn devices_are_gone(home: &Home, case: &str) {
    wait_until(&format!("{case}: no device left"), dm::RECOVERY, || {
        let left = (dm::loops(), dm::dm_devices());
        let nodes = fs::read_dir(Path::new("/dev/mapper"))
            .map(|d| d.flatten().filter(|e| e.file_name() != "control").count())
            .unwrap_or(0);
        let instance = home.instance().unwrap_or_default();
        let machine = banger_testkit::Machine::look(Some(&instance));
        let processes: Vec<_> = machine.process_labels().collect();
        if left.0.is_empty() && left.1.is_empty() && nodes == 0 && processes.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}, {nodes} nodes, {processes:?}"))
        }
    });
}
