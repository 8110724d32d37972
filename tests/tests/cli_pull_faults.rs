//! Pulls that are cut off (R-IMG-2, R-IMG-5): the daemon killed, and the disk full, wherever it happens. The cache has only
//! whole blobs and beginnings of blobs, no half image is listed, and what has come is not fetched again.

mod registry;

use banger_testkit::{Home, skip, wait_until};
use registry::{Layout, Registry, Wire, cached, layout, sh, sha256};
use serde_json::Value;
use std::{fs, time::Duration};

/// Longest a test waits for something the daemon does by itself.
const SOON: Duration = Duration::from_secs(60);

/// How often a pull is cut off: a few times in `./test`, often in `./soak`.
fn rounds() -> u64 {
    let told = std::env::var("BANGER_PULL_ROUNDS").ok();
    told.and_then(|n| n.parse().ok()).unwrap_or(8)
}

/// Numbers that BANGER_SEED replays.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let told = std::env::var("BANGER_SEED").ok();
        let seed = told.and_then(|n| n.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("BANGER_SEED={seed}");
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn bare() -> Home {
    let mut home = Home::bare();
    let dir = home.scratch().join("docker");
    fs::create_dir_all(&dir).expect("a directory");
    home.set_env("DOCKER_CONFIG", Some(&dir.display().to_string()));
    home
}

fn images(home: &Home) -> Vec<Value> {
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    listed.as_array().expect("a list").clone()
}

/// What is in the cache is a blob, or the beginning of one; so many bytes of them.
#[track_caller]
fn kept(home: &Home, made: &Layout) -> u64 {
    let mut kept = 0;
    for name in cached(home) {
        let bytes = fs::read(home.state().join("blobs/sha256").join(&name)).expect("a blob");
        match name.strip_suffix(".part") {
            None => assert_eq!(name, sha256(&bytes), "a blob that is none"),
            Some(hex) => {
                let whole = fs::read(made.dir.join("blobs/sha256").join(hex)).expect("a blob");
                assert!(whole.starts_with(&bytes), "{name} is no beginning");
            }
        }
        kept += bytes.len() as u64;
    }
    kept
}

/// Bytes of the configuration and the layers.
fn size(made: &Layout) -> u64 {
    let entries = fs::read_dir(made.dir.join("blobs/sha256")).expect("a layout");
    entries
        .map(|e| e.expect("a blob").metadata().expect("a blob").len())
        .sum()
}

/// Nothing is left of what was being made.
fn nothing_staged(home: &Home) {
    wait_until("what was being made to go", SOON, || {
        let entries = fs::read_dir(home.state().join("images"))
            .into_iter()
            .flatten()
            .flatten();
        let names: Vec<_> = entries
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        match names
            .iter()
            .any(|name| name.starts_with(".staging") || name.starts_with(".trash"))
        {
            true => Err(format!("{names:?}")),
            false => Ok(()),
        }
    });
}

#[test]
fn a_daemon_killed_anywhere_in_a_pull_leaves_nothing_half() {
    let home = bare();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    let name = format!("127.0.0.1:{}/app:1", wire.port);
    let (mut random, all) = (Random::new(), size(&made));
    let (mut resumed, mut in_the_middle) = (0, 0);
    for round in 0..rounds() {
        home.banger(&["image", "list"]).exits(0);
        // Slow enough to be met while it comes, or not slow, to be met while the image is made.
        wire.slow([10, 0][usize::try_from(round % 2).expect("small")]);
        let pull = home.start(&["image", "pull", &name], b"");
        std::thread::sleep(Duration::from_millis(random.below(700)));
        home.kill_daemon();
        pull.finish();
        let before = kept(&home, &made);
        let listed = images(&home);
        assert!(listed.len() <= 1, "{listed:?}");
        nothing_staged(&home);
        if (1..all - 2000).contains(&before) {
            in_the_middle += 1;
        }
        // Whole, and only what was missing is fetched; documents and heads of answers are some kilobytes.
        wire.slow(0);
        wire.moved();
        home.banger(&["image", "pull", &name]).exits(0);
        let moved = wire.moved();
        assert!(
            moved <= all - before.min(all) + (32 << 10),
            "round {round}: {before} of {all} were here, {moved} came"
        );
        resumed += u64::from(before > 0);
        let image = images(&home);
        assert_eq!(image.len(), 1);
        let shown = home
            .banger(&["image", "show", &name, "--json"])
            .exits(0)
            .json();
        let file = home
            .state()
            .join("images")
            .join(shown[0]["id"].as_str().expect("an id"));
        let bytes = fs::read(file.join("rootfs.ext4")).expect("a root file system");
        assert_eq!(shown[0]["digest"], format!("sha256:{}", sha256(&bytes)));
        home.banger(&["image", "delete", &name]).exits(0);
        fs::remove_dir_all(home.state().join("blobs")).expect("an empty cache");
    }
    println!(
        "{resumed} of {} went on with something, {in_the_middle} from the middle",
        rounds()
    );
    assert!(rounds() < 8 || resumed > 0, "no kill met a pull");
    drop(registry);
    home.finish();
}

#[test]
fn a_disk_full_anywhere_in_a_pull_leaves_nothing_half() {
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return;
    }
    let home = bare();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    let name = format!("127.0.0.1:{}/app:1", wire.port);
    let (state, disk) = (home.state(), home.scratch().join("disk"));
    let (at, file) = (state.display(), disk.display());
    sh(
        &home,
        &format!("truncate -s 1500M {file} && mkfs.ext4 -q -m 0 -O ^has_journal {file}"),
    );
    sh(
        &home,
        &format!("mkdir -p {at} && mount -o loop {file} {at} && chmod 700 {at}"),
    );
    let mut random = Random::new();
    let mut full = 0;
    for round in 0..rounds() {
        home.banger(&["image", "list"]).exits(0);
        wire.slow([10, 0][usize::try_from(round % 2).expect("small")]);
        let pull = home.start(&["image", "pull", &name], b"");
        // All but so many KiB of what is free now; less is left where the pull was faster. The first is too slow for that.
        let (longest, most) = [(600, 3000), (100, 1)][usize::from(round == 0)];
        std::thread::sleep(Duration::from_millis(random.below(longest)));
        let left = random.below(most);
        sh(
            &home,
            &format!(
                "free=$(df --output=avail -k {at} | tail -n 1); [ $free -le {left} ] || fallocate -l $((free - {left}))K {at}/filler || df -k {at}"
            ),
        );
        let run = pull.finish();
        if state.join("filler").exists() {
            fs::remove_file(state.join("filler")).expect("the filler");
        }
        let told = run.err();
        println!(
            "round {round}, {left} KiB left: {} {}",
            run.status,
            told.lines().last().unwrap_or_default()
        );
        kept(&home, &made);
        nothing_staged(&home);
        if run.status == 0 {
            assert_eq!(images(&home).len(), 1);
        } else {
            full += 1;
            let words = ["space", "MiB free", "disk is full", "full"];
            assert!(words.iter().any(|word| told.contains(word)), "{told}");
            assert_eq!(images(&home), Vec::<Value>::new());
        }
        wire.slow(0);
        home.banger(&["image", "pull", &name]).exits(0);
        home.banger(&["image", "delete", &name]).exits(0);
        fs::remove_dir_all(state.join("blobs")).expect("an empty cache");
    }
    println!("{full} of {} met the full disk", rounds());
    assert!(rounds() < 8 || full > 0, "no pull met the full disk");
    home.banger(&["daemon", "stop"]).exits(0);
    sh(&home, &format!("umount {at}"));
    drop(registry);
    home.finish();
}
