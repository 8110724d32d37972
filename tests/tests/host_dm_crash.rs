//! The real executor on real devices, enumerated by effect: the daemon is killed just before and just after its n-th
//! effect. A loop device that nothing stands on is gone with it, at once; the next daemon brings the rest to a lasting
//! state. Points that are reached only through a guest's boot are drawn with `BANGER_SEED`, every
//! `BANGER_CRASH_STRIDE`-th of the others is taken; without that variable none is, for it takes minutes.

mod dm;

use banger_testkit::{Home, wait_until};
use dm::Host;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

fn seed() -> usize {
    setting("BANGER_SEED", std::process::id() as usize)
}

/// Which points are taken.
fn stride() -> usize {
    setting("BANGER_CRASH_STRIDE", 6).max(1)
}

/// A home with crash points, and the log of its daemon's effects.
struct Crashing {
    home: Home,
    log: PathBuf,
    died: u32,
    cases: u32,
}

impl Crashing {
    /// `None`, and said, unless the enumeration is asked for: it takes minutes.
    fn asked_for(host: &Host) -> Option<Self> {
        if std::env::var_os("BANGER_CRASH_STRIDE").is_none() {
            banger_testkit::skip("takes minutes: BANGER_CRASH_STRIDE=6 ./test --tier host");
            return None;
        }
        let home = host.home().with_crash_points();
        let log = home.scratch().join("effects");
        Some(Crashing {
            home,
            log,
            died: 0,
            cases: 0,
        })
    }

    /// The effects of a command that succeeds, in a daemon started for it.
    fn effects(&mut self, command: &[&str]) -> Vec<String> {
        self.home.banger(&["daemon", "stop"]).exits(0);
        self.home.set_env("BANGER_EFFECT_LOG", self.log.to_str());
        self.home.banger(command).exits(0);
        self.home.set_env("BANGER_EFFECT_LOG", None);
        self.home.banger(&["daemon", "stop"]).exits(0);
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
        loops_without_a_device_are_gone(&case);
        // A daemon that lived through its countdown must not die of a later command's effects.
        let _ = self.home.banger(&["daemon", "stop"]);
        case
    }

    fn report(self, what: &str, host: &Host) {
        println!(
            "{what}: {} crash points, the daemon died in {}; seed {}, stride {}",
            self.cases,
            self.died,
            seed(),
            stride()
        );
        assert!(self.died > 0, "no crash point ended a daemon");
        self.home.finish();
        host.is_as_before(what);
    }
}

/// AUTOCLEAR: what the dead daemon held is detached by the kernel, before any other daemon runs.
fn loops_without_a_device_are_gone(case: &str) {
    wait_until(
        &format!("{case}: the kernel to clear the loops nothing stands on"),
        Duration::from_secs(10),
        || match dm::loops() {
            left if left.iter().all(|l| l.held) => Ok(()),
            left => Err(format!("{left:#?}")),
        },
    );
}

/// The points up to the VMM's start, and one of those behind it: numbers as `BANGER_CRASH_AT` takes them.
fn points(effects: &[String]) -> Vec<String> {
    let spawn = effects
        .iter()
        .rposition(|e| e == "Spawn")
        .expect("a VMM is started");
    let mut points: Vec<String> = (1..=spawn + 1)
        .flat_map(|n| [format!("{n}"), format!("{n}:after")])
        .collect();
    points = points
        .into_iter()
        .skip(seed() % stride())
        .step_by(stride())
        .collect();
    let behind = effects.len() - spawn - 1;
    points.push(format!("{}", spawn + 2 + seed() % behind.max(1)));
    points
}

#[test]
fn create_on_a_snapshot_survives_its_crash_points() {
    let Some(host) = Host::here() else { return };
    let Some(mut crashing) = Crashing::asked_for(&host) else {
        return;
    };
    let create = ["vm", "create", "--name", "dev"];
    let effects = crashing.effects(&create);
    for wanted in ["LoopAttach", "DmCreate", "DmLoad", "DmResume", "Spawn"] {
        assert!(effects.iter().any(|e| e == wanted), "{wanted}: {effects:?}");
    }
    crashing
        .home
        .banger(&["vm", "delete", "--force", "dev"])
        .exits(0);
    for at in points(&effects) {
        let case = crashing.crash(&create, &at);
        settles(&crashing.home, &case, &["running"]);
        let _ = crashing.home.banger(&["vm", "delete", "--force", "dev"]);
        nothing_is_left(&crashing.home, &case);
    }
    crashing.report("create", &host);
}

#[test]
fn start_on_a_snapshot_survives_its_crash_points() {
    let Some(host) = Host::here() else { return };
    let Some(mut crashing) = Crashing::asked_for(&host) else {
        return;
    };
    a_marked_vm(&crashing.home);
    crashing.home.banger(&["vm", "stop", "dev"]).exits(0);
    let start = ["vm", "start", "dev"];
    let effects = crashing.effects(&start);
    crashing.home.banger(&["vm", "kill", "dev"]).exits(0);
    for at in points(&effects) {
        let case = crashing.crash(&start, &at);
        let state = settles(&crashing.home, &case, &["stopped", "running"]);
        assert_eq!(state.len(), 1, "{case}: the VM is gone");
        if state[0] == "running" {
            crashing.home.banger(&["vm", "kill", "dev"]).exits(0);
        }
        devices_are_gone(&crashing.home, &case);
    }
    crashing.home.banger(&start).exits(0);
    the_mark_is_there(&crashing.home, "after every crash of start");
    crashing.report("start", &host);
}

/// The teardown of a running VM and its removal, in one command: each point costs a boot, so a few are drawn.
#[test]
fn delete_of_a_running_vm_on_a_snapshot_survives_crash_points() {
    let Some(host) = Host::here() else { return };
    let Some(mut crashing) = Crashing::asked_for(&host) else {
        return;
    };
    let delete = ["vm", "delete", "--force", "dev"];
    a_marked_vm(&crashing.home);
    let effects = crashing.effects(&delete);
    let removed = effects
        .iter()
        .position(|e| e == "DmRemove")
        .expect("the device is removed");
    // Around the device's removal, where the loops clear themselves; and one anywhere.
    let anywhere = format!("{}", 1 + seed() % effects.len());
    for at in [format!("{}:after", removed + 1), anywhere] {
        a_marked_vm(&crashing.home);
        let case = crashing.crash(&delete, &at);
        if settles(&crashing.home, &case, &["stopped", "running"]) == ["running"] {
            the_mark_is_there(&crashing.home, &case);
        }
        let _ = crashing.home.banger(&delete);
        nothing_is_left(&crashing.home, &case);
    }
    crashing.report("delete", &host);
}

/// Stop: the guest is gone, the daemon dies in the teardown, and the disks are what was written.
#[test]
fn stop_on_a_snapshot_survives_crash_points() {
    let Some(host) = Host::here() else { return };
    let Some(mut crashing) = Crashing::asked_for(&host) else {
        return;
    };
    a_marked_vm(&crashing.home);
    let stop = ["vm", "stop", "dev"];
    let effects = crashing.effects(&stop);
    let removed = effects
        .iter()
        .position(|e| e == "DmRemove")
        .expect("the device is removed");
    for at in [
        format!("{}", removed + 1),
        format!("{}:after", 1 + seed() % effects.len()),
    ] {
        crashing.home.banger(&["vm", "start", "dev"]).exits(0);
        let case = crashing.crash(&stop, &at);
        let state = settles(&crashing.home, &case, &["stopped", "running"]);
        assert_eq!(state.len(), 1, "{case}: the VM is gone");
        if state[0] == "running" {
            crashing.home.banger(&stop).exits(0);
        }
        devices_are_gone(&crashing.home, &case);
    }
    crashing.home.banger(&["vm", "start", "dev"]).exits(0);
    the_mark_is_there(&crashing.home, "after the crashes of stop");
    crashing.report("stop", &host);
}

/// `dev` runs, and both of its disks hold the mark.
fn a_marked_vm(home: &Home) {
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let write = "echo kept >/opt/mark; echo kept >/root/mark; sync";
    home.banger(&["vm", "exec", "dev", "--", "sh", "-c", write])
        .exits(0);
}

#[track_caller]
fn the_mark_is_there(home: &Home, case: &str) {
    let read = ["vm", "exec", "dev", "--", "cat", "/opt/mark", "/root/mark"];
    assert_eq!(home.banger(&read).exits(0).out(), "kept\nkept", "{case}");
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
