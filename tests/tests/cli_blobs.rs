//! The cache of a registry's blobs: what of it goes, and what images share (R-IMG-5). Debian's docker-registry on this machine.

mod registry;

use banger_testkit::Home;
use registry::{Registry, layout};
use serde_json::Value;
use std::{
    fs,
    time::{Duration, SystemTime},
};

fn home() -> Home {
    let mut home = Home::bare();
    let dir = home.scratch().join("docker");
    fs::create_dir_all(&dir).expect("a directory");
    home.set_env("DOCKER_CONFIG", Some(&dir.display().to_string()));
    home
}

/// Names of the files in the cache.
fn cached(home: &Home) -> Vec<String> {
    let dir = home.state().join("blobs/sha256");
    let entries = fs::read_dir(dir).expect("the cache");
    let mut names: Vec<_> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

fn prune(home: &Home, args: &[&str]) -> Value {
    let args = [&["image", "prune", "--json"], args].concat();
    home.banger(&args).exits(0).json()
}

fn digests(pruned: &Value) -> Vec<String> {
    let blobs = pruned["blobs"].as_array().expect("blobs").iter();
    let digest = |blob: &Value| blob["digest"].as_str().expect("a digest").to_owned();
    let mut digests: Vec<_> = blobs.map(digest).collect();
    digests.sort();
    digests
}

#[test]
fn layers_that_no_image_needs_go_and_those_on_their_way_stay_a_day() {
    let home = home();
    let registry = Registry::start(&home, false);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    let name = format!("127.0.0.1:{}/app:1", registry.port);
    let image = home
        .banger(&["image", "pull", &name, "--json"])
        .exits(0)
        .json();
    let all = cached(&home);
    assert_eq!(all.len(), 4, "three layers and a configuration: {all:?}");
    let sizes = all.iter().map(|blob| {
        let path = home.state().join("blobs/sha256").join(blob);
        fs::metadata(path).expect("a blob").len()
    });
    let blobs: u64 = sizes.sum();
    // All of it is this image's own where the file system shares nothing.
    let own = image["own"].as_u64().expect("bytes") + image["shared"].as_u64().expect("bytes");
    assert_eq!(own, image["disk_usage"].as_u64().expect("bytes") + blobs);
    let layers = image["layers"].as_array().expect("layers");
    let layers: Vec<_> = layers
        .iter()
        .map(|l| l["sha256"].as_str().expect("hex"))
        .collect();
    assert_eq!(layers, made.layers);

    // What a broken pull left: one just now, one of last week; and what nobody knows.
    let put = |name: &str, days: u64| {
        let path = home.state().join("blobs/sha256").join(name);
        fs::write(&path, [1; 1000]).expect("a file");
        let then = SystemTime::now() - Duration::from_secs(days * 86_400);
        let file = fs::File::options().write(true).open(&path).expect("a file");
        file.set_modified(then).expect("a time");
    };
    let hex = |digit: &str| digit.repeat(64);
    put(&format!("{}.part", hex("a")), 0);
    put(&format!("{}.part", hex("b")), 7);
    put(&hex("c"), 0);
    let of = |digits: &[&str]| -> Vec<_> {
        digits
            .iter()
            .map(|d| format!("sha256:{}", hex(d)))
            .collect()
    };
    let would = prune(&home, &["--dry-run"]);
    assert_eq!(digests(&would), of(&["b", "c"]));
    assert_eq!(would["bytes"], 2000);
    let would = prune(&home, &["--dry-run", "--all"]);
    assert_eq!(would["images"][0]["id"], image["id"]);
    assert_eq!(digests(&would).len(), 7);
    assert_eq!(cached(&home).len(), 7, "so far nothing went");
    let table = home.banger(&["image", "prune", "--dry-run"]).exits(0).out();
    assert!(
        table.contains("part of a layer") && table.contains("would free 1.9 KiB"),
        "{table}"
    );

    assert_eq!(digests(&prune(&home, &["--force"])), of(&["b", "c"]));
    let mut left = all.clone();
    left.push(format!("{}.part", hex("a")));
    left.sort();
    assert_eq!(cached(&home), left);
    // With its last name gone its layers go with it.
    let gone = prune(&home, &["--force", "--all"]);
    assert_eq!(gone["images"][0]["id"], image["id"]);
    assert_eq!(cached(&home), [""; 0]);
    // And it can be pulled again.
    home.banger(&["image", "pull", &name]).exits(0);
    assert_eq!(cached(&home), all);
    drop(registry);
    home.finish();
}
