//! Images that other tools build, put into a real registry and unpack: what is pulled is what they unpack, in every
//! attribute, and boots (R-IMG-1, R-IMG-3).

mod registry;

use banger_testkit::{Home, Run, Running, listing, skip, wait_until};
use registry::{Registry, sh};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest that a step with gigabytes takes.
const LONG: Duration = Duration::from_secs(900);

/// An image that `proof/build.sh` builds, and how skopeo is to put it into the registry.
const IMAGES: [(&str, &str); 12] = [
    ("busybox", ""),
    ("whiteouts", ""),
    ("opaque", ""),
    ("users", ""),
    ("attributes", ""),
    ("links", ""),
    ("sparse", ""),
    ("names", ""),
    ("devices", ""),
    ("zstd", "--dest-compress --dest-compress-format zstd"),
    ("schema2", "--format v2s2"),
    ("ten-layers", ""),
];

fn can_unpack() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("umoci unpacks owners and devices, and mounting works, as root alone");
    }
    root
}

/// Runs a shell's words that may take long.
#[track_caller]
fn long(home: &Home, words: &str) -> Run {
    Running::start(home.shell("sh", words), b"")
        .finish_within(LONG)
        .exits(0)
}

struct Proof<'a> {
    home: &'a Home,
    registry: Registry,
    dir: PathBuf,
}

impl Proof<'_> {
    fn of(home: &Home) -> Proof<'_> {
        let dir = home.scratch().join("images");
        fs::create_dir_all(&dir).expect("a directory");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proof/build.sh");
        long(home, &format!("sh {script} {}", dir.display()));
        Proof {
            home,
            registry: Registry::start(home, false),
            dir,
        }
    }

    fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/{tag}:1", self.registry.port)
    }

    /// Pushes, pulls, and compares with what umoci unpacks; the id of the image.
    fn proven(&self, tag: &str, push: &str) -> String {
        let (dir, name) = (self.dir.display(), self.name(tag));
        long(
            self.home,
            &format!(
                "skopeo --insecure-policy copy -q --dest-tls-verify=false {push} oci:{dir}/layout-{tag}:{tag} docker://{name}"
            ),
        );
        let pull = ["image", "pull", &name, "--json"];
        let pulled = Running::start(self.home.command(&pull), b"").finish_within(LONG);
        let image = pulled.exits(0).json();
        let id = image["id"].as_str().expect("an id").to_owned();
        let theirs = format!("{dir}/theirs-{tag}");
        long(
            self.home,
            &format!("umoci unpack --image {dir}/layout-{tag}:{tag} {theirs}"),
        );
        let rootfs = self
            .home
            .state()
            .join("images")
            .join(&id)
            .join("rootfs.ext4");
        let mounted = Mounted::new(self.home, &rootfs, &self.dir.join(format!("ours-{tag}")));
        same(tag, &mounted.at, Path::new(&format!("{theirs}/rootfs")));
        drop(mounted);
        long(self.home, &format!("rm -r {theirs}"));
        id
    }

    fn boot(&self, tag: &str) -> Running {
        let name = self.name(tag);
        let run = [
            "run",
            "--rm",
            "--image",
            &name,
            "--",
            "cat",
            "/etc/os-release",
        ];
        self.home.start(&run, b"")
    }
}

/// What both trees have; the root itself is always root's, 0755.
fn same(tag: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) = (listing(ours), listing(theirs));
    let other = theirs
        .iter()
        .filter(|(path, told)| ours.get(*path) != Some(told));
    let other: Vec<_> = other
        .map(|(path, told)| (path, told, ours.get(path)))
        .collect();
    assert!(other.is_empty(), "{tag}: {other:#?}");
    let more: Vec<_> = ours.keys().filter(|p| !theirs.contains_key(*p)).collect();
    assert!(more.is_empty(), "{tag}: {more:?}");
    println!("{tag}: {} entries, the same", theirs.len());
}

/// A file system, looked at.
struct Mounted<'a> {
    home: &'a Home,
    at: PathBuf,
}

impl<'a> Mounted<'a> {
    fn new(home: &'a Home, image: &Path, at: &Path) -> Self {
        let (image, to) = (image.display(), at.display());
        sh(
            home,
            &format!("mkdir {to} && mount -t ext4 -o loop,ro,noload {image} {to}"),
        );
        Mounted {
            home,
            at: at.to_owned(),
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        sh(self.home, &format!("umount {}", self.at.display()));
    }
}

#[test]
fn twelve_images_are_what_umoci_unpacks_and_boot() {
    if !can_unpack() {
        return;
    }
    let home = Home::new();
    let proof = Proof::of(&home);
    for (tag, push) in IMAGES {
        proof.proven(tag, push);
    }
    // What skopeo was asked for is what was pulled.
    let kinds = |tag: &str| {
        let name = proof.name(tag);
        sh(
            &home,
            &format!("skopeo inspect --raw --tls-verify=false docker://{name}"),
        )
        .out()
    };
    assert!(kinds("zstd").contains("tar+zstd"), "{}", kinds("zstd"));
    assert!(
        kinds("schema2").contains("docker.distribution"),
        "{}",
        kinds("schema2")
    );
    for pair in IMAGES.chunks(2) {
        let runs: Vec<_> = pair.iter().map(|(tag, _)| (tag, proof.boot(tag))).collect();
        for (tag, run) in runs {
            assert_eq!(run.finish().exits(0).out(), format!("ID={tag}"));
        }
    }
    drop(proof);
    home.finish();
}

/// More than 100 000 files, more than 2 GiB, and a Debian: minutes, so `./soak` runs it. The daemon's memory stays small.
#[test]
#[ignore = "minutes; ./soak runs it"]
fn the_largest_images_are_what_umoci_unpacks_and_boot() {
    if !can_unpack() {
        return;
    }
    let home = Home::new();
    let proof = Proof::of(&home);
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    let id = listed[0]["id"]
        .as_str()
        .expect("the default image")
        .to_owned();
    let rootfs = home.state().join("images").join(&id).join("rootfs.ext4");
    let debian = Mounted::new(&home, &rootfs, &proof.dir.join("debian"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proof/large.sh");
    let (dir, at) = (proof.dir.display(), debian.at.display());
    for (tag, files) in [("many", 120_000_u64), ("debian", 10_000), ("huge", 100)] {
        long(&home, &format!("sh {script} {dir} {tag} {at}"));
        let daemon = home.daemon_pid().expect("a daemon");
        fs::write(format!("/proc/{daemon}/clear_refs"), "5").expect("the peak forgotten");
        proof.proven(tag, "");
        let peak = peak_kib(daemon);
        // 64 MiB and the table of inodes: an inode and the entry it comes from.
        let most = (64 << 10) + files * 600 / 1024;
        println!("{tag}: the daemon's memory at most {peak} KiB, {most} KiB are fine");
        assert!(peak < most, "{tag}: {peak} KiB");
        let id = if tag == "debian" {
            "ID=debian"
        } else {
            &format!("ID={tag}")
        };
        let run = proof.boot(tag).finish_within(LONG).exits(0);
        assert!(run.out().contains(id), "{}", run.out());
    }
    drop(debian);
    drop(proof);
    home.finish();
}

fn peak_kib(pid: u32) -> u64 {
    wait_until("the daemon's peak", Duration::from_secs(5), || {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.ok_or(text)
    })
}
