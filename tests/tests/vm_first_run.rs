//! First runs in a home with nothing in it (R-IMG-8): image and kernel are made once, whoever asks and however many,
//! and not at all when nobody waits any more.

use banger_testkit::Home;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Building the image takes half a minute on two idle cores.
const BUILD: Duration = Duration::from_secs(600);
/// Longest until what was cancelled is gone: a tool gets 2 s to end, then its tree is removed.
const GONE: Duration = Duration::from_secs(60);

fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "waited {limit:?} until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Processes that work below a directory: mmdebstrap and what it runs name it, or have it as their root.
fn working_in(dir: &Path) -> Vec<String> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let told = pids.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = line.contains(&dir.display().to_string()) || root.starts_with(dir);
        ours.then_some(line)
    });
    told.collect()
}

fn leftovers(images: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours = images.display().to_string();
    let mounts = mounts
        .lines()
        .filter(|line| line.contains(&ours))
        .map(str::to_owned);
    let names = fs::read_dir(images).into_iter().flatten().flatten();
    let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
    let names = names.filter(|name| !name.ends_with(".lock"));
    working_in(images)
        .into_iter()
        .chain(mounts)
        .chain(names)
        .collect()
}

#[test]
fn three_first_runs_make_one_image_and_a_cancelled_one_leaves_nothing() {
    let home = Home::bare();
    let images = home.state().join("images");
    let building = || {
        working_in(&images)
            .iter()
            .any(|line| line.contains("mmdebstrap"))
    };

    // Two begin; one leaves, and the building goes on; the other leaves, and nothing is left of it.
    let start = || home.start(&["run", "--rm", "--", "true"], b"");
    let (one, two) = (start(), start());
    until("an image is being built", BUILD, building);
    until("both wait for it", BUILD, || {
        operations(&home, "vm.run") == 2
    });
    interrupt(one);
    thread::sleep(Duration::from_secs(1));
    assert!(building(), "one still waits for it");
    interrupt(two);
    until("nothing is left of the building", GONE, || {
        leftovers(&images).is_empty()
    });

    // Three begin together: one image, one kernel, three VMs.
    let three = [start(), start(), start()].map(|run| run.finish_within(BUILD));
    for run in &three {
        assert_eq!(run.status, 0, "{}", run.err());
        assert!(
            run.err().contains("image: "),
            "progress is told to each: {}",
            run.err()
        );
    }
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let kept = leftovers(&images);
    assert_eq!(kept.len(), 1, "the image and nothing else: {kept:?}");
    home.finish();
}

fn operations(home: &Home, method: &str) -> usize {
    // There is no verb for it: what the API says, asked as anyone could ask.
    let client = banger_wire::api::Client::new(home.runtime().join("bangerd.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let listed = runtime.block_on(client.call(&banger_wire::api::OperationList {}));
    let running = banger_wire::api::Outcome::Running;
    listed.map_or(0, |all| {
        all.iter()
            .filter(|op| op.method == method && op.outcome == running)
            .count()
    })
}

fn interrupt(run: banger_testkit::Running) {
    let pid = i32::try_from(run.pid())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT)
        .expect("a run");
    let ended = run.finish_within(GONE);
    assert_eq!(ended.status, 130, "{}", ended.err());
}
