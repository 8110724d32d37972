//! A storm of kills: daemon (at a drawn effect), command line and VMM, beside working VMs. The seed is
//! printed; `BANGER_SEED` replays it, `BANGER_STORM_KILLS` (default 30) makes it longer.

use banger_testkit::{Home, Signal, signal, wait_until};
use std::{collections::BTreeMap, time::Duration};

/// xorshift64*: small, replayable.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// What was acknowledged: the VM's name and the word on its work disk.
type Acknowledged = BTreeMap<String, String>;

/// R-PROG-2, R-STATE-10, R-HOST-8: every acknowledged VM and work disk intact, nothing left.
#[test]
fn a_storm_of_kills_loses_nothing_and_leaves_nothing() {
    let seed = setting("BANGER_SEED", u64::from(std::process::id()) | 1);
    let kills = setting("BANGER_STORM_KILLS", 30);
    println!("BANGER_SEED={seed} BANGER_STORM_KILLS={kills}");
    let mut draw = Draw(seed.max(1));
    let mut home = Home::new().with_crash_points();
    let mut acknowledged = Acknowledged::new();
    for kill in 0..kills {
        let name = format!("vm{}", draw.below(2));
        let known = acknowledged.contains_key(&name);
        let operation: &[&str] = match (known, draw.below(4)) {
            (false, _) => &["vm", "create", "--name"],
            (true, 0) => &["vm", "delete", "--force"],
            (true, 1) => &["vm", "stop"],
            (true, _) => &["vm", "start"],
        };
        let args: Vec<&str> = operation.iter().copied().chain([name.as_str()]).collect();
        let victim = draw.below(4);
        println!("kill {kill}: {} {name}, victim {victim}", operation[1]);
        let done = match victim {
            0 | 1 => {
                daemon_dies_at_an_effect(&mut home, &args, 1 + draw.below(40), draw.below(2) == 0)
            }
            2 => command_line_dies(&home, &args, draw.below(1500)),
            _ => vmm_dies(&home, &args, draw.below(1500)),
        };
        settle(&home, operation[1], &name, done, &mut acknowledged);
        one_vmm_per_disk(&home);
    }
    for (name, word) in &acknowledged {
        start_and_read(&home, name, word);
    }
    home.finish();
}

fn daemon_dies_at_an_effect(home: &mut Home, args: &[&str], effect: u64, after: bool) -> bool {
    home.banger(&["daemon", "stop"]).exits(0);
    home.set_env(
        "BANGER_CRASH_AT",
        Some(&format!("{effect}{}", if after { ":after" } else { "" })),
    );
    let done = home.banger(args).status == 0;
    home.set_env("BANGER_CRASH_AT", None);
    // A daemon that lived through its countdown must not die of a later command's effects.
    let _ = home.banger(&["daemon", "stop"]);
    done
}

fn command_line_dies(home: &Home, args: &[&str], milliseconds: u64) -> bool {
    let mut running = home.start(args, b"");
    std::thread::sleep(Duration::from_millis(milliseconds));
    running.kill();
    running.finish().status == 0
}

fn vmm_dies(home: &Home, args: &[&str], milliseconds: u64) -> bool {
    let running = home.start(args, b"");
    std::thread::sleep(Duration::from_millis(milliseconds));
    for pid in home.vmms() {
        signal(pid, Signal::KILL);
    }
    running.finish().status == 0
}

/// Brings the record of what was acknowledged up to date with what the operation may have done, and
/// checks that it did nothing else.
fn settle(home: &Home, verb: &str, name: &str, done: bool, acknowledged: &mut Acknowledged) {
    let listed = wait_until("VMs in a lasting state", Duration::from_secs(60), || {
        let json = home.banger(&["vm", "list", "--json"]).exits(0).json();
        let lasting =
            |v: &serde_json::Value| matches!(v["state"].as_str(), Some("running" | "stopped"));
        if json.as_array().is_some_and(|all| all.iter().all(lasting)) {
            Ok(json)
        } else {
            Err(json.to_string())
        }
    });
    let there = |name: &str| {
        listed
            .as_array()
            .into_iter()
            .flatten()
            .any(|v| v["name"] == name)
    };
    for known in acknowledged
        .keys()
        .filter(|known| *known != name || verb != "delete")
    {
        assert!(
            there(known),
            "{known} was acknowledged and is gone: {listed}"
        );
    }
    match verb {
        "delete" if done => {
            assert!(!there(name), "{name} was deleted and is there: {listed}");
            acknowledged.remove(name);
        }
        "delete" if !there(name) => drop(acknowledged.remove(name)),
        "create" if there(name) => {
            let word = format!("word-of-{name}");
            start(home, name);
            let write = format!("echo {word} >/root/word; sync");
            home.banger(&["vm", "exec", name, "--", "sh", "-c", &write])
                .exits(0);
            acknowledged.insert(name.to_owned(), word);
        }
        "create" => assert!(!done, "{name} was acknowledged and is gone: {listed}"),
        _ => {}
    }
}

fn start(home: &Home, name: &str) {
    if home.show(name)["state"] != "running" {
        home.banger(&["vm", "start", name]).exits(0);
    }
}

fn start_and_read(home: &Home, name: &str, word: &str) {
    start(home, name);
    assert_eq!(
        home.banger(&["vm", "exec", name, "--", "cat", "/root/word"])
            .exits(0)
            .out(),
        word
    );
}

/// No two live processes carry the same VMM label.
fn one_vmm_per_disk(home: &Home) {
    let Some(instance) = home.instance() else {
        return;
    };
    let machine = banger_testkit::Machine::look(Some(&instance));
    let mut labels: Vec<String> = machine.process_labels().collect();
    let all = labels.len();
    labels.sort();
    labels.dedup();
    assert_eq!(
        all,
        labels.len(),
        "two processes with one label: {machine:?}"
    );
}
