//! Images from a registry (R-IMG-1, R-IMG-2, R-IMG-5): Debian's docker-registry on this machine.

mod registry;

use banger_testkit::{Home, Running, wait_until};
use registry::{PASSWORD, Registry, USER, Wire, cached, layout, noise};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// Longest a test waits for something the daemon does by itself.
const SOON: Duration = Duration::from_secs(60);

/// A home without anybody's logins.
fn home() -> Home {
    let mut home = Home::bare();
    let dir = home.scratch().join("docker");
    fs::create_dir_all(&dir).expect("a directory");
    home.set_env("DOCKER_CONFIG", Some(&dir.display().to_string()));
    home
}

fn logins(home: &Home, text: &str) {
    fs::write(home.scratch().join("docker/config.json"), text).expect("a configuration");
}

#[track_caller]
fn pulled(home: &Home, reference: &str) -> Value {
    home.banger(&["image", "pull", reference, "--json"])
        .exits(0)
        .json()
}

/// Names of every image, for what must not be there.
fn images(home: &Home) -> Vec<Value> {
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    listed.as_array().expect("a list").clone()
}

/// The same image as an import of the same layout makes; asked for again it is one request; a tag moves.
#[test]
fn a_pulled_image_is_the_imported_one_and_is_fetched_once() {
    let home = home();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    let made = layout(&home, "one", 7, true);
    registry.push(&home, &made, "some/app:1");
    let name = format!("127.0.0.1:{}/some/app:1", wire.port);
    let image = pulled(&home, &name);
    assert_eq!(image["names"], serde_json::json!([name]));
    assert_eq!(image["config"]["cmd"], serde_json::json!(["/bin/sh"]));
    let blobs = wire.blobs();
    assert_eq!(
        blobs.len(),
        4,
        "three layers and a configuration: {blobs:?}"
    );
    assert!(
        made.layers.iter().all(|layer| blobs.get(layer) == Some(&1)),
        "{blobs:?}"
    );
    let source = made.dir.display().to_string();
    let import = ["image", "import", &source, "--name", "imported", "--json"];
    let imported = home.banger(&import).exits(0).json();
    assert_eq!(imported["digest"], image["digest"]);
    // Found by its short name too, and up to date.
    wire.asked();
    let again = home.banger(&["image", "pull", &name]).exits(0);
    assert!(again.err().contains("is up to date"), "{}", again.err());
    assert_eq!(again.out().trim(), image["id"].as_str().expect("an id"));
    let asked = wire.asked();
    let documents = asked.iter().filter(|line| line.contains("/manifests/"));
    assert_eq!(
        (
            documents.count(),
            asked.iter().any(|l| l.contains("/blobs/"))
        ),
        (1, false),
        "{asked:?}"
    );
    // The tag moves; the older image keeps what else it is called, and its id.
    registry.push(&home, &layout(&home, "two", 8, false), "some/app:1");
    let newer = home
        .banger(&["image", "pull", &name, "--name", "app", "--json"])
        .exits(0)
        .json();
    assert_ne!(newer["id"], image["id"]);
    assert_eq!(newer["names"], serde_json::json!([name, "app"]));
    let old = image["id"].as_str().expect("an id");
    let old = home
        .banger(&["image", "show", old, "--json"])
        .exits(0)
        .json();
    assert_eq!(old[0]["names"], serde_json::json!(["imported"]));
    drop(registry);
    home.finish();
}

/// Wrong, unknown and unreachable: each with its way out, and nothing is there afterwards.
#[test]
fn what_cannot_be_pulled_is_refused_and_leaves_nothing() {
    let home = home();
    let registry = Registry::start(&home, false);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    let here = format!("127.0.0.1:{}", registry.port);
    let refused = |args: &[&str]| {
        let run = home.banger(&[&["image", "pull"], args].concat()).exits(125);
        run.err()
    };
    let told = refused(&[&format!("{here}/app:nope")]);
    assert!(
        told.contains(&format!("{here} has no image {here}/app:nope")),
        "{told}"
    );
    let told = refused(&["Alpine"]);
    assert!(
        told.contains("lower case") && told.contains("hint: NAME[:TAG]"),
        "{told}"
    );
    let told = refused(&["127.0.0.1:1/app"]);
    assert!(told.contains("127.0.0.1:1 cannot be reached"), "{told}");
    let told = refused(&[&format!("{here}/app:1"), "--name", "Bad"]);
    assert!(told.contains("cannot name an image"), "{told}");
    // Bytes that are not those of the digest.
    let (first, path) = (&made.layers[0], registry.blob(&made.layers[0]));
    let mut bytes = fs::read(&path).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("a blob");
    let told = refused(&[&format!("{here}/app:1")]);
    assert!(
        told.contains("gives other bytes than") && told.contains(first.as_str()),
        "{told}"
    );
    assert!(
        !cached(&home)
            .iter()
            .any(|name| name.starts_with(first.as_str())),
        "{:?}",
        cached(&home)
    );
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("a blob");
    // An image of another machine alone.
    assert_eq!(images(&home), Vec::<Value>::new());
    pulled(&home, &format!("{here}/app:1"));
    assert_eq!(images(&home).len(), 1);
    // What lies in the cache is proven before it is used: the image is gone, its blobs are not.
    let own = home.state().join("blobs/sha256").join(first);
    fs::write(&own, noise(1, 1000)).expect("a spoilt blob");
    home.banger(&["image", "delete", &format!("{here}/app:1")])
        .exits(0);
    pulled(&home, &format!("{here}/app:1"));
    drop(registry);
    home.finish();
}

/// A registry that lets not everybody in: Docker's configuration, a helper, a wrong password.
#[test]
fn logins_of_docker_open_a_registry() {
    let mut home = home();
    let registry = Registry::start(&home, true);
    registry.push(&home, &layout(&home, "one", 7, false), "app:1");
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/app:1");
    let way_out = format!("hint: docker login {host}");
    let run = home.banger(&["image", "pull", &name]).exits(125);
    assert!(
        run.err().contains("does not let anybody have") && run.err().contains(&way_out),
        "{}",
        run.err()
    );
    let config = |password: &str| {
        format!(r#"{{"auths":{{"{host}":{{"username":"{USER}","password":"{password}"}}}}}}"#)
    };
    logins(&home, &config("wrong-word"));
    let run = home.banger(&["image", "pull", &name]).exits(125);
    assert!(
        run.err().contains("the user 'mary'") && run.err().contains(&way_out),
        "{}",
        run.err()
    );
    assert!(images(&home).is_empty());
    logins(&home, &config(PASSWORD));
    pulled(&home, &name);
    home.banger(&["image", "delete", &name]).exits(0);
    // A program that keeps logins.
    let bin = home.scratch().join("bin");
    fs::create_dir_all(&bin).expect("a directory");
    let helper = bin.join("docker-credential-test");
    let answer = format!(r#"{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {host}' ] && echo '{answer}' && exit\necho 'credentials not found in native keychain'\nexit 1\n"
    );
    fs::write(&helper, script).expect("a helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a helper");
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").expect("a PATH")
    );
    home.set_env("PATH", Some(&path));
    for config in [
        format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#),
        r#"{"credsStore":"test"}"#.to_owned(),
    ] {
        logins(&home, &config);
        pulled(&home, &name);
        home.banger(&["image", "delete", &name]).exits(0);
    }
    // Nothing of it was kept or told.
    let operations = home.banger(&["operation", "list", "--json"]).exits(0).out();
    let log = home.banger(&["daemon", "logs"]).exits(0).out();
    for text in [operations, log] {
        assert!(
            !text.contains(PASSWORD) && !text.contains("wrong-word"),
            "{text}"
        );
    }
    drop(registry);
    home.finish();
}

/// A connection that breaks is made again, and the rest is fetched, not the whole.
#[test]
fn a_cut_connection_is_resumed() {
    let home = home();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    wire.cut_after(2_000_000);
    let image = pulled(&home, &format!("127.0.0.1:{}/app:1", wire.port));
    assert!(wire.was_cut());
    let asked = wire.asked();
    let resumed = asked
        .iter()
        .filter(|line| line.to_ascii_lowercase().contains("range: bytes="));
    assert!(resumed.count() >= 1, "{asked:?}");
    let import = [
        "image",
        "import",
        &made.dir.display().to_string(),
        "--name",
        "x",
        "--json",
    ];
    assert_eq!(
        home.banger(&import).exits(0).json()["digest"],
        image["digest"]
    );
    assert!(!cached(&home).iter().any(|name| name.ends_with(".part")));
    drop(registry);
    home.finish();
}

/// The daemon dies in the middle: nothing half is listed, and the next one goes on where it was. ^C leaves no image.
#[test]
fn a_daemon_that_dies_has_not_fetched_in_vain() {
    let home = home();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    let made = layout(&home, "one", 7, false);
    registry.push(&home, &made, "app:1");
    let name = format!("127.0.0.1:{}/app:1", wire.port);
    let large = format!("{}.part", made.layers[0]);
    let part = home.state().join("blobs/sha256").join(&large);
    let half = |least: u64| {
        wait_until("half of a layer", SOON, || match fs::metadata(&part) {
            Ok(meta) if meta.len() >= least => Ok(meta.len()),
            seen => Err(format!("{seen:?}")),
        })
    };
    wire.slow(100);
    let pull = home.start(&["image", "pull", &name], b"");
    let first = half(300_000);
    home.kill_daemon();
    pull.finish().exits(125);
    assert_eq!(images(&home), Vec::<Value>::new());
    // ^C: the operation is over, and what has come stays too.
    let mut pull = home.start(&["image", "pull", &name], b"");
    half(first + 300_000);
    pull.kill();
    let running = || home.banger(&["operation", "list", "--json"]).exits(0).out();
    wait_until("the pull to be cancelled", SOON, || {
        let all = running();
        match all.contains("\"running\"") || !all.contains("\"cancelled\"") {
            true => Err(all),
            false => Ok(()),
        }
    });
    assert_eq!(images(&home), Vec::<Value>::new());
    wire.slow(0);
    wire.asked();
    pulled(&home, &name);
    let asked = wire.asked();
    let resumed = |line: &String| {
        line.contains(&made.layers[0]) && line.to_ascii_lowercase().contains("range: bytes=")
    };
    assert!(asked.iter().any(resumed), "{asked:?}");
    assert_eq!(images(&home).len(), 1);
    drop(registry);
    home.finish();
}

/// Two at once, of one tag or of two with the same layers, fetch each blob once, and all are told of one image.
#[test]
fn pulls_at_once_share_what_they_fetch() {
    let home = home();
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    registry.push(&home, &layout(&home, "one", 7, false), "app:1");
    registry.push(&home, &layout(&home, "two", 7, true), "app:2");
    let name = |tag: u32| format!("127.0.0.1:{}/app:{tag}", wire.port);
    home.banger(&["image", "list"]).exits(0);
    wire.slow(20);
    let pulls: Vec<Running> = [1, 1, 2]
        .map(|tag| home.start(&["image", "pull", &name(tag)], b""))
        .into();
    let ids = pulls.into_iter().map(|pull| pull.finish().exits(0).out());
    let ids: Vec<String> = ids.collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let blobs = wire.blobs();
    assert!(
        blobs.len() == 4 && blobs.values().all(|n| *n == 1),
        "{blobs:?}"
    );
    assert_eq!(images(&home).len(), 1);
    drop(registry);
    home.finish();
}
