//! The Debian importer on this machine: real packages, a real file system.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use banger_host::linux::{LinuxConfig, LinuxHost};
use banger_host::{ToolCall, Tools};
use banger_image::{DebianBuild, Error, ImageStore, Manifest, Progress, ROOTFS_FILE};
use banger_testkit::skip;
use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn store(dir: &Path) -> ImageStore<LinuxHost> {
    ImageStore::new(
        Arc::new(LinuxHost::new(LinuxConfig::default())),
        dir.join("images"),
    )
}

/// Remembers the stages; cancels at the one that contains a text.
#[derive(Default)]
struct Watch {
    stages: Mutex<Vec<String>>,
    cancel_at: Option<&'static str>,
    cancelled: AtomicBool,
}

impl Progress for Watch {
    fn stage(&self, text: &str) {
        println!("{text}");
        if self.cancel_at.is_some_and(|at| text.contains(at)) {
            self.cancelled.store(true, Ordering::SeqCst);
        }
        self.stages.lock().unwrap().push(text.to_owned());
    }
    fn detail(&self, line: &str) {
        println!("    {line}");
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), ".lock" | ".publish.lock"))
        .collect();
    names.sort();
    names
}

/// Whether a Debian root can be built here, by whoever runs the test.
fn buildable(store: &ImageStore<LinuxHost>) -> bool {
    let obstacles = store.build_obstacles();
    for obstacle in &obstacles {
        skip(&format!("no Debian root can be built here: {obstacle}"));
    }
    obstacles.is_empty()
}

/// An image without content, for the catalogue's own rules.
fn plant(dir: &Path, id: &str, name: &str, created: u64) {
    let image = dir.join("images").join(id);
    fs::create_dir_all(&image).unwrap();
    fs::write(image.join(ROOTFS_FILE), b"x").unwrap();
    let manifest = Manifest {
        format: 1,
        id: id.into(),
        name: name.into(),
        distro: "debian-bookworm".into(),
        arch: "x86_64".into(),
        digest: format!("sha256:{id:0<64}"),
        size: 1,
        created,
        kernel: None,
        names: Default::default(),
        source: None,
        repo_digests: Default::default(),
        config: None,
        origin: None,
        external: None,
    };
    fs::write(
        image.join("manifest.json"),
        serde_json::to_vec(&manifest).unwrap(),
    )
    .unwrap();
}

#[test]
fn references_mean_a_name_an_id_or_a_unique_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    plant(dir.path(), "abcdef000001", "debian", 10);
    plant(dir.path(), "abcdef000002", "debian", 20);
    plant(dir.path(), "abd000000003", "other", 5);
    let id = |reference: &str| store.show(reference).map(|m| m.id);
    assert_eq!(
        id("debian").unwrap(),
        "abcdef000002",
        "the name moved to the newer build"
    );
    assert_eq!(id("abcdef000001").unwrap(), "abcdef000001");
    assert_eq!(id("abd").unwrap(), "abd000000003");
    assert!(matches!(id("abc"), Err(Error::Ambiguous { ids, .. }) if ids.len() == 2));
    for missing in ["ab", "", "nope", "abcdef000009", "../images", "ABD"] {
        assert!(matches!(id(missing), Err(Error::NotFound(_))), "{missing}");
    }
    assert_eq!(store.list().unwrap().len(), 3);
    assert_eq!(store.default_image().unwrap().unwrap().id, "abcdef000002");
}

#[test]
fn delete_refuses_what_is_pinned_and_removes_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    plant(dir.path(), "abcdef000001", "debian", 10);
    plant(dir.path(), "abcdef000002", "broken", 10);
    let images = dir.path().join("images");
    fs::write(dir.path().join("images/abcdef000002/manifest.json"), "{").unwrap();
    let pinned = store.delete(
        "debian",
        false,
        &|id| Ok(vec![format!("vm-of-{id}")]),
        |id| panic!("{id} is pinned"),
    );
    assert!(matches!(pinned, Err(Error::InUse { users, .. }) if users == ["vm-of-abcdef000001"]));
    assert_eq!(
        store.list().unwrap().len(),
        1,
        "a damaged one hides no other"
    );
    assert_eq!(store.damaged().unwrap().len(), 1);
    assert_eq!(
        store
            .delete("abcdef000002", false, &|_| Ok(Vec::new()), |_| ())
            .unwrap()
            .id,
        "abcdef000002"
    );
    assert_eq!(
        store
            .delete("debian", false, &|_| Ok(Vec::new()), |id| {
                assert!(!images.join(id).exists(), "it is out of the list");
                assert_eq!(names(&images).len(), 1, "and not unlinked yet");
            })
            .unwrap()
            .id,
        "abcdef000001"
    );
    assert!(names(&dir.path().join("images")).is_empty());
}

#[test]
fn what_a_dead_builder_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    plant(dir.path(), "abcdef000001", "debian", 10);
    fs::create_dir_all(dir.path().join("images/.staging-1-0/root/etc")).unwrap();
    fs::create_dir_all(dir.path().join("images/.trash-abcdef000009")).unwrap();
    let images = dir.path().join("images");
    let mut swept = store.sweep().unwrap();
    swept.sort();
    let trash = [".trash-.staging-1-0", ".trash-abcdef000009"].map(|name| images.join(name));
    assert_eq!(swept, trash, "set aside, and not unlinked: that takes long");
    assert!(images.join(".trash-.staging-1-0/root/etc").exists());
    for trash in swept {
        store.unlink(&trash).unwrap();
    }
    assert_eq!(names(&images), ["abcdef000001"]);
}

#[test]
fn names_that_could_be_ids_or_paths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for name in ["", "../x", "0123456789ab", "A"] {
        let build = DebianBuild {
            name: name.into(),
            ..DebianBuild::default()
        };
        assert!(
            matches!(
                store.build_debian(&build, &Watch::default()),
                Err(Error::BadName(_))
            ),
            "{name}"
        );
    }
    assert!(!dir.path().join("images").exists(), "nothing is made");
}

#[test]
fn what_stands_in_the_way_of_building_does_not_keep_a_built_image_from_being_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    plant(dir.path(), "abcdef000001", DebianBuild::DEFAULT_NAME, 10);
    let there = store.build_debian(&DebianBuild::default(), &Watch::default());
    assert_eq!(there.unwrap().id, "abcdef000001");
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    if !buildable(&store) {
        return;
    }
    for at in ["building the image", "extracting packages"] {
        let watch = Watch {
            cancel_at: Some(at),
            ..Watch::default()
        };
        let start = Instant::now();
        let built = store.build_debian(&DebianBuild::default(), &watch);
        assert!(matches!(built, Err(Error::Cancelled)), "{built:?}");
        println!("cancelled after {:?}", start.elapsed());
        assert!(names(&dir.path().join("images")).is_empty(), "{at}");
    }
    assert!(
        !fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .contains(dir.path().to_str().unwrap())
    );
}

#[test]
fn a_suite_that_is_not_there_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    if !buildable(&store) {
        return;
    }
    let build = DebianBuild {
        suite: Some("nonsuch".into()),
        ..DebianBuild::default()
    };
    let error = store.build_debian(&build, &Watch::default()).unwrap_err();
    let text = format!(
        "{error}: {}",
        std::error::Error::source(&error)
            .and_then(|e| e.source())
            .unwrap()
    );
    println!("{text}");
    assert!(
        text.contains("mmdebstrap") && text.contains("nonsuch"),
        "{text}"
    );
    assert!(names(&dir.path().join("images")).is_empty());
}

#[test]
fn two_builders_make_one_image_and_it_is_a_debian() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    if !buildable(&store) {
        return;
    }
    let start = Instant::now();
    let (first, second) = std::thread::scope(|scope| {
        let build = || {
            store
                .build_debian(&DebianBuild::default(), &Watch::default())
                .unwrap()
        };
        let other = scope.spawn(build);
        (build(), other.join().unwrap())
    });
    println!("built in {:?}: {first:?}", start.elapsed());
    assert_eq!(first, second);
    assert_eq!(names(&dir.path().join("images")), [first.id.as_str()]);
    assert_eq!(store.default_image().unwrap().unwrap(), first);

    let rootfs = store.rootfs(&first);
    let length = fs::metadata(&rootfs).unwrap().len();
    assert_eq!(length, first.size);
    assert!(length < 260 << 20, "{} MiB", length >> 20);
    let look = |command: &str| {
        let call = ToolCall {
            program: "debugfs".into(),
            args: ["-R".into(), command.into(), rootfs.clone().into()].to_vec(),
            env: Default::default(),
            cwd: "/".into(),
            stdin: Vec::new(),
            timeout: Duration::from_secs(30),
        };
        let output = store_host()
            .run_tool(&call, &mut |_| {}, &|| false)
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(look("cat /usr/lib/os-release").contains("ID=debian"));
    assert_eq!(look("cat /etc/hostname"), "localhost\n");
    assert_eq!(look("cat /etc/resolv.conf"), "");
    for (path, mode) in [
        ("/", "0755"),
        ("/usr/bin/dash", "0755"),
        ("/usr/bin/git", "0755"),
        ("/usr/bin/ip", "0755"),
        ("/usr/bin/ps", "0755"),
        ("/etc/ssl/certs/ca-certificates.crt", "0644"),
        ("/usr/bin/passwd", "04755"),
        ("/tmp", "01777"),
        ("/root", "0700"),
        ("/etc/shadow", "0640"),
        ("/etc/passwd", "0644"),
        ("/etc/hostname", "0644"),
    ] {
        let stat = look(&format!("stat {path}"));
        assert!(
            stat.contains(&format!("Mode:  {mode} ")),
            "{path} {mode}: {stat}"
        );
        assert!(stat.contains("User:     0"), "{path}: {stat}");
    }
    let free: u64 = look("stats -h")
        .lines()
        .find_map(|l| l.strip_prefix("Free blocks:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    println!("{} MiB, {} MiB free", length >> 20, free >> 8);
    let free = free * 4096;
    // The kernel keeps up to 16 MiB back, and a snapshot has no other room.
    assert!(free > 30 << 20, "room for what a snapshot takes");
    assert!(free < (34 << 20) + length / 10, "sized to its content");
}

fn store_host() -> LinuxHost {
    LinuxHost::new(LinuxConfig::default())
}
