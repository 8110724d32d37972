//! Preflight (R-SVC-8) where VMs are: a start looks before it leaps, and memory is promised once.

use banger_testkit::Home;
use std::fs;

/// A VM that lacks its disk and a VMM stays stopped, and both are told; put back, it starts.
#[test]
fn a_start_tells_all_that_is_missing_and_changes_nothing() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    let id = home.show("dev")["id"].as_str().expect("an id").to_owned();
    home.banger(&["daemon", "stop"]).exits(0);

    let disk = home.state().join("vms").join(&id).join("work.ext4");
    let aside = home.scratch().join("aside");
    fs::rename(&disk, &aside).expect("the work disk");
    fs::write(home.config(), "qemu_bin = \"/no/such/qemu\"\n").expect("config");
    let run = home.banger(&["vm", "start", "dev"]).exits(125);
    let told = run.err();
    for says in [
        "qemu_bin /no/such/qemu is no program",
        "hint: correct qemu_bin",
        &format!("of VM 'dev' is not at {}", disk.display()),
        "hint: put it back, or banger vm delete dev",
    ] {
        assert!(told.contains(says), "no {says:?} in {told}");
    }
    assert_eq!(home.show("dev")["state"], "stopped");
    assert!(!disk.exists(), "no empty one in its place");
    home.banger(&["daemon", "stop"]).exits(0);

    fs::rename(&aside, &disk).expect("the work disk");
    fs::remove_file(home.config()).expect("config");
    home.banger(&["vm", "start", "dev"]).exits(0);
    let again = home.banger(&["vm", "start", "dev"]).exits(125);
    assert!(
        again.err().contains("hint: banger vm exec dev -- sh"),
        "{}",
        again.err()
    );
    home.finish();
}
/// Of two creates at once that the host has memory for only one of, one is refused: what was looked at before the
/// disks were made is looked at again when the row is written.
#[test]
fn memory_is_promised_to_one_of_two_creates_at_once() {
    let home = Home::new();
    home.banger(&["vm", "list"]).exits(0);
    let memory = format!("{}M", host_mib() * 51 / 100);
    // Sizes nobody has a template of: making it takes longer than both need to look.
    let create = |name, size| {
        let args = ["--memory", &memory, "--disk-size", size, "--name", name];
        let args: Vec<&str> = ["vm", "create"].into_iter().chain(args).collect();
        home.start(&args, b"")
    };
    let both = [create("one", "301M"), create("two", "302M")];
    let ended = both.map(banger_testkit::Running::finish);
    let mut statuses = [0, 1].map(|n| ended[n].status);
    statuses.sort_unstable();
    let told: String = ended.iter().map(banger_testkit::Run::err).collect();
    assert_eq!(statuses, [0, 125], "{told}");
    assert!(told.contains("is more than this host's"), "{told}");
    assert!(told.contains("hint: ask for less with --memory"), "{told}");
    let listed = home.banger(&["vm", "list", "-q"]).exits(0).out();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    home.finish();
}

fn host_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("the host's memory");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("MemTotal") / 1024
}
