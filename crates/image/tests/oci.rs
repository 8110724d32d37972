//! Image archives: what umoci unpacks of an OCI layout, with every attribute, is what our image has; skopeo's other forms
//! of it are the same image; and what is not as it says is refused.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod archive;
mod layout;
mod listing;

use archive::{Tar, header, look, names, store, tool};
use banger_image::{Error, Fetched, Import, Limits, Manifest, Silent};
use layout::{Layout, Packing, architecture, digest, tar_of};
use listing::{Mounted, listing};
use std::{fs, path::Path};
use tar::EntryType as T;

fn import(dir: &Path, bytes: &[u8], name: &str) -> Result<Manifest, Error> {
    import_within(dir, bytes, name, Limits::default())
}

fn import_within(
    dir: &Path,
    mut bytes: &[u8],
    name: &str,
    limits: Limits,
) -> Result<Manifest, Error> {
    let import = Import {
        names: vec![name.to_owned()],
        ..Import::default()
    };
    let store = store(dir).within(limits);
    let made = store.import(&mut bytes, &import, &Silent)?;
    let file = std::fs::read(store.rootfs(&made)).unwrap();
    assert_eq!(made.digest, format!("sha256:{}", digest(&file)));
    Ok(made)
}

fn owned(kind: T, name: &str, size: u64, (uid, gid, mode): (u64, u64, u32)) -> tar::Header {
    let mut header = header(kind, name, size);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mode(mode);
    header.set_mtime(1_600_000_000 + uid);
    header.set_cksum();
    header
}

/// Megabytes that repeat nowhere, with zeros in a row among them: some that stay and some that become a hole.
fn large(seed: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..800_000_u32)
        .flat_map(|n| {
            n.wrapping_mul(2_654_435_761)
                .wrapping_add(seed)
                .to_le_bytes()
        })
        .collect();
    bytes[100_000..110_000].fill(0);
    bytes[1_500_000..1_800_000].fill(0);
    bytes
}

/// Layers with everything that layers do to each other.
fn layers() -> Vec<Vec<u8>> {
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let base = Tar::new()
        .directory("etc/")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .file("etc/hidden", b"h")
        .directory("usr/")
        .directory("usr/lib/")
        .file("usr/lib/old", &[3; 9000])
        .link(T::Symlink, "lib", "usr/lib")
        .directory("opaque/")
        .directory("opaque/sub/")
        .file("opaque/gone", b"gone")
        .file("opaque/sub/gone", b"gone")
        .directory("becomes-file/")
        .file("becomes-file/in", b"in")
        .link(T::Symlink, "becomes-directory", "etc")
        .file("becomes-link", b"file")
        .file("linked", b"one file of three names")
        .link(T::Link, "linked-too", "linked")
        .directory("root/")
        .file("root/.profile", b"mine")
        .raw(owned(T::Regular, "su", 2, (0, 0, 0o4755)), b"su")
        .raw(owned(T::Directory, "tmp/", 0, (0, 0, 0o1777)), b"")
        .raw(
            owned(T::Regular, "foreign", 3, (65_534, 200_000, 0o640)),
            b"you",
        )
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"kept\nas it is"),
            ("mtime", b"1234567890.123456789"),
        ])
        .file("ping", b"ping")
        .directory("long/")
        .file(&format!("long/{}", "n".repeat(200)), b"long")
        .file("large", &large(1))
        .done();
    let middle = Tar::new()
        .file("etc/.wh.hidden", b"")
        .file(".wh.nothing", b"")
        .file("lib/new", b"through the link")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("becomes-file", b"now a file")
        .directory("becomes-directory/")
        .file("becomes-directory/in", b"in")
        .link(T::Symlink, "becomes-link", "etc/passwd")
        .link(T::Link, "linked-third", "linked")
        .file("large-too", &large(2))
        .raw(owned(T::Directory, "etc/", 0, (5, 6, 0o750)), b"")
        .done();
    let many = (0..700).fold(Tar::new().directory("many/"), |tar, n| {
        tar.file(&format!("many/file-{n}"), &vec![n as u8; n * 13])
    });
    let top = many
        .file(".wh.linked", b"")
        .file("usr/lib/old", b"newer")
        .raw(header(T::Fifo, "pipe", 0), b"")
        .device("null", 1, 3)
        .file("etc/hidden", b"again")
        .done();
    vec![base, middle, top]
}

/// What both trees have; the root itself is always root's, 0755.
fn assert_same(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (listing(ours), listing(theirs));
    for (path, told) in &theirs {
        assert_eq!(ours.get(path), Some(told), "{path}");
    }
    let more: Vec<_> = ours.keys().filter(|p| !theirs.contains_key(*p)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn an_image_is_what_umoci_unpacks() {
    if !listing::can_mount() || !listing::has(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"), &layers(), Packing::Mixed);
    let image = import(dir.path(), &tar_of(&layout.dir), "layout").unwrap();
    let rootfs = store(dir.path()).rootfs(&image);
    tool("e2fsck", &["-fn".as_ref(), &rootfs]);

    let bundle = dir.path().join("bundle");
    let reference = format!("{}:latest", layout.dir.display());
    let args = ["unpack", "--image", &reference].map(Path::new);
    tool("umoci", &[&args[..], &[&bundle]].concat());
    let mounted = Mounted::new(&rootfs, &dir.path().join("mounted"));
    assert_same(&mounted.0, &bundle.join("rootfs"));
    drop(mounted);

    // Whatever form it has, it is the same image.
    let from = format!("oci:{reference}");
    for (name, to, more) in [
        ("docker", "docker-archive", &[][..]),
        ("oci", "oci-archive", &[]),
        (
            "zstd",
            "oci-archive",
            &["--dest-compress-format=zstd", "--dest-compress"],
        ),
    ] {
        let file = dir.path().join(name);
        let to = format!("{to}:{}:box:latest", file.display());
        let mut args = vec!["copy", "--quiet"];
        args.extend(more);
        args.extend([from.as_str(), &to]);
        let args: Vec<_> = args.iter().map(Path::new).collect();
        tool("skopeo", &args);
        let bytes = fs::read(&file).unwrap();
        assert_eq!(
            import(dir.path(), &bytes, name).unwrap().id,
            image.id,
            "{name}"
        );
        let packed = zstd::bulk::compress(&bytes, 1).unwrap();
        let again = import(dir.path(), &packed, &format!("{name}-packed")).unwrap();
        assert_eq!(again.id, image.id, "{name}, packed");
    }
    layout.change_config(&|config| config["config"]["Cmd"] = serde_json::json!(["other"]));
    let other = import(dir.path(), &tar_of(&layout.dir), "other").unwrap();
    assert_ne!(other.id, image.id, "what it runs is part of it");
}

/// Whoever imports it: no rights are needed, and the bytes are the same.
#[test]
fn the_configuration_is_kept_and_the_right_platform_taken() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"), &layers(), Packing::Zstd);
    layout.with_platforms();
    let image = import(dir.path(), &tar_of(&layout.dir), "box").unwrap();
    let config = image.config.clone().unwrap();
    assert_eq!(config.entrypoint, ["/entry", "point"]);
    assert_eq!(config.cmd, ["serve"]);
    assert_eq!(config.env, ["PATH=/bin", "A=b=c"]);
    assert_eq!(config.workdir.as_deref(), Some("/srv"));
    assert_eq!(config.user.as_deref(), Some("1000:50"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.exposed_ports, ["53/udp", "80/tcp"]);
    let store = store(dir.path());
    assert_eq!(
        store.show("box").unwrap().config,
        Some(config),
        "it is on disk"
    );
    let rootfs = store.rootfs(&image);
    tool("e2fsck", &["-fn".as_ref(), &rootfs]);
    assert_eq!(look(&rootfs, "cat /usr/lib/new"), "through the link");
    let home = store.home(&image);
    let home = tool("tar", &["-xOf".as_ref(), &home, "root/.profile".as_ref()]);
    assert_eq!(home, "mine");
}

/// A flat archive has no layers below it: names of whiteouts are names.
#[test]
fn in_a_flat_archive_whiteouts_are_names() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::new().file("a", b"a").file(".wh.a", b"b").done();
    let image = import(dir.path(), &tar, "flat").unwrap();
    let rootfs = store(dir.path()).rootfs(&image);
    assert_eq!(look(&rootfs, "cat /a"), "a");
    assert_eq!(look(&rootfs, "cat /.wh.a"), "b");
}

/// Changes of a good layout and what must be said of each.
type Change = Box<dyn Fn(&Layout)>;

fn damages() -> Vec<(&'static str, Change, &'static str)> {
    let index = |text: &'static str| -> Change { Box::new(move |l| l.write("index.json", text)) };
    vec![
        (
            "a byte of a layer",
            Box::new(|l| l.flip(&l.layers[1])),
            "layer",
        ),
        (
            "a byte of the manifest",
            Box::new(|l| l.flip(&l.manifest)),
            "not those of its digest",
        ),
        (
            "a byte of the configuration",
            Box::new(|l| l.flip(&l.config)),
            "not those of its digest",
        ),
        (
            "no layer",
            Box::new(|l| fs::remove_file(l.blob(&l.layers[2])).unwrap()),
            "layer 3 is missing",
        ),
        (
            "an index that is none",
            index("{]"),
            "index.json cannot be read",
        ),
        (
            "an index of nothing",
            index(r#"{"manifests":[]}"#),
            "not for this machine",
        ),
        (
            "a way out",
            index(r#"{"manifests":[{"digest":"sha256:../../../../etc/passwd","size":1}]}"#),
            "no sha256",
        ),
        (
            "another digest",
            index(r#"{"manifests":[{"digest":"md5:00","size":1}]}"#),
            "no sha256",
        ),
        (
            "another machine",
            Box::new(|l| l.change_config(&|c| c["architecture"] = "s390x".into())),
            "linux/s390x",
        ),
        (
            "other layers",
            Box::new(|l| l.change_config(&|c| c["rootfs"]["diff_ids"] = serde_json::json!([]))),
            "its configuration knows 0",
        ),
        (
            "layers in another order",
            Box::new(|l| {
                l.change_config(&|c| c["rootfs"]["diff_ids"].as_array_mut().unwrap().reverse());
            }),
            "not those of its digest",
        ),
        (
            "an index of itself",
            Box::new(Layout::refer_to_itself),
            "too deep",
        ),
        (
            "two images",
            Box::new(Layout::twice),
            "several images: one, two",
        ),
        (
            "an index of 5 MB",
            Box::new(|l| l.write("index.json", &" ".repeat(5 << 20))),
            "at most",
        ),
    ]
}

#[test]
fn what_is_not_as_it_says_is_refused() {
    for (what, damage, word) in damages() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("layout"), &layers(), Packing::Mixed);
        damage(&layout);
        let error = match import(dir.path(), &tar_of(&layout.dir), "x") {
            Ok(image) => panic!("{what} was imported as {image:?}"),
            Err(error) => error,
        };
        let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
        let text = format!("{error}{}", cause.unwrap_or_default());
        println!("{what}: {text}");
        assert!(
            text.contains(word),
            "{what}: '{text}' does not say '{word}'"
        );
        assert!(names(&dir.path().join("images")).is_empty(), "{what}");
    }
}

/// Layers of a registry are read twice, and count once.
#[test]
fn layers_that_came_may_be_as_large_as_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let layers = layers();
    let layout = Layout::new(&dir.path().join("layout"), &layers, Packing::Mixed);
    let all: usize = layers.iter().map(Vec::len).sum();
    let fetched: Vec<_> = layout
        .layers
        .iter()
        .map(|sha256| Fetched {
            sha256: sha256.clone(),
            path: layout.blob(sha256),
        })
        .collect();
    let config = fs::read(layout.blob(&layout.config)).unwrap();
    let within = |most: usize| {
        let limits = Limits {
            bytes: most as u64,
            ..Limits::default()
        };
        let store = store(dir.path()).within(limits);
        store.import_layers(&config, &fetched, &Import::default(), &Silent)
    };
    let error = within(all - 1).unwrap_err().to_string();
    assert!(error.contains("images.max_size"), "{error}");
    within(all).unwrap();
}

/// All layers together have the limits of one archive, and a hostile entry is refused in whichever it is.
#[test]
fn layers_have_limits_together() {
    let few = Limits {
        entries: 60,
        devices: 3,
        kept: 16 << 10,
        ..Limits::default()
    };
    let files = |from: usize| {
        (from..from + 35)
            .fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b"x"))
            .done()
    };
    let devices = |name: &str| {
        Tar::new()
            .device(name, 1, 3)
            .device(&format!("{name}2"), 1, 3)
            .done()
    };
    let links = |from: usize| {
        let text = "x".repeat(1000);
        (from..from + 10)
            .fold(Tar::new(), |tar, n| {
                tar.link(T::Symlink, &format!("l{n}"), &text)
            })
            .done()
    };
    let cases = [
        (
            "memory",
            vec![links(0), links(100)],
            "more than 16 KiB of memory",
        ),
        (
            "entries",
            vec![files(0), files(100)],
            "one entry more than 60",
        ),
        (
            "devices",
            vec![devices("a"), devices("b")],
            "one device more than 3",
        ),
        (
            "a way out",
            vec![files(0), Tar::new().file("../x", b"").done()],
            "'..'",
        ),
        (
            "a whiteout of nothing",
            vec![files(0), Tar::new().file("d/.wh..", b"").done()],
            "hides",
        ),
        (
            "a file through a file",
            vec![files(0), Tar::new().file("f1/x", b"").done()],
            "no directory",
        ),
    ];
    for (what, layers, word) in cases {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("layout"), &layers, Packing::Plain);
        let error = import_within(dir.path(), &tar_of(&layout.dir), "x", few).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(word), "{what}: '{text}'");
        assert!(names(&dir.path().join("images")).is_empty(), "{what}");
    }
}

/// Docker's own form, with layers that are links to each other, empty ones, and one without an end mark.
#[test]
fn dockers_own_archives_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Tar::new().file("a", b"first").directory("bin/").done();
    let mut open = Tar::new().file("b", b"second").done();
    open.truncate(open.len() - 1024);
    let empty = vec![0; 1024];
    let ids = [&layer, &empty, &open, &layer].map(|layer| format!("sha256:{}", digest(layer)));
    let config = serde_json::json!({
        "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/a"], "Entrypoint": null, "User": ""},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let saved = serde_json::json!([{
        "Config": "c.json", "RepoTags": ["box:1"],
        "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar", "4/layer.tar"],
    }]);
    let tar = Tar::new()
        .file("1/layer.tar", &layer)
        .file("2/layer.tar", &empty)
        .file("3/layer.tar", &open)
        .link(T::Symlink, "4/layer.tar", "../1/layer.tar")
        .file("c.json", config.to_string().as_bytes())
        .file("manifest.json", saved.to_string().as_bytes())
        .done();
    let image = import(dir.path(), &tar, "box").unwrap();
    let rootfs = store(dir.path()).rootfs(&image);
    assert_eq!(look(&rootfs, "cat /a"), "first");
    assert_eq!(look(&rootfs, "cat /b"), "second");
    let config = image.config.unwrap();
    assert_eq!((config.cmd, config.user), (vec!["/a".to_owned()], None));
}

/// Docker calls a configuration by its digest, which is the image's id there: other bytes are refused.
#[test]
fn dockers_configuration_is_what_its_name_says() {
    if std::env::consts::ARCH != "x86_64" {
        return; // the configuration below is for that
    }
    let layer = Tar::new().file("a", b"first").done();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    });
    let config = config.to_string();
    let changed = config.replace("/a", "/b");
    let hex = digest(config.as_bytes());
    for (name, proven) in [
        (format!("{hex}.json"), true),
        (format!("blobs/sha256/{hex}"), true),
        ("config.json".to_owned(), false),
    ] {
        let saved = serde_json::json!([{"Config": name, "Layers": ["layer.tar"]}]);
        for (config, whole) in [(&config, true), (&changed, false)] {
            let tar = Tar::new()
                .file("layer.tar", &layer)
                .file(&name, config.as_bytes())
                .file("manifest.json", saved.to_string().as_bytes())
                .done();
            let dir = tempfile::tempdir().unwrap();
            match import(dir.path(), &tar, "box") {
                Ok(_) => assert!(whole || !proven, "{name}"),
                Err(error) => {
                    let said = error.to_string();
                    let known = said.contains("the configuration are not those of its digest");
                    assert!(!whole && proven && known, "{name}: {said}");
                    assert!(names(&dir.path().join("images")).is_empty(), "{name}");
                }
            }
        }
    }
}

/// Of several images the one that is named comes, in both forms of archives, however its name is written.
#[test]
fn of_several_images_one_is_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let only = |mut bytes: &[u8], only: &str| {
        let import = Import {
            names: vec!["x".to_owned()],
            moves: banger_image::Moves::All,
            only: Some(only.to_owned()),
            ..Import::default()
        };
        store(dir.path()).import(&mut bytes, &import, &Silent)
    };
    let refused = |bytes: &[u8], name: &str, has: &str| {
        let error = only(bytes, name).unwrap_err().to_string();
        let told = format!("has no image '{name}'; it has: {has}");
        assert!(error.contains(&told), "{error}");
    };
    let layout = Layout::new(&dir.path().join("layout"), &layers(), Packing::Mixed);
    layout.twice();
    let two = tar_of(&layout.dir);
    refused(&two, "three", "one, two");
    only(&two, "two").unwrap();
    // Docker's own form: two images of one layer each.
    let image = |text: &str| {
        let layer = Tar::new().file(text, text.as_bytes()).done();
        let config = serde_json::json!({
            "architecture": layout::architecture(), "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        });
        (layer, config.to_string())
    };
    let (first, second) = (image("a"), image("b"));
    let saved = serde_json::json!([
        {"Config": "a.json", "RepoTags": ["app:1"], "Layers": ["a.tar"]},
        {"Config": "b.json", "RepoTags": ["docker.io/library/app:2", "other"], "Layers": ["b.tar"]},
    ]);
    let tar = Tar::new()
        .file("a.tar", &first.0)
        .file("b.tar", &second.0)
        .file("a.json", first.1.as_bytes())
        .file("b.json", second.1.as_bytes())
        .file("manifest.json", saved.to_string().as_bytes())
        .done();
    for (name, has, not) in [
        ("app:1", "/a", "/b"),
        ("app:2", "/b", "/a"),
        ("other", "/b", "/a"),
    ] {
        let image = only(&tar, name).unwrap();
        let rootfs = store(dir.path()).rootfs(&image);
        assert_eq!(look(&rootfs, &format!("cat {has}")), has[1..]);
        assert_eq!(look(&rootfs, &format!("cat {not}")), "");
    }
    refused(&tar, "app", "app:1, docker.io/library/app:2, other");
    // A root file system is no archive of images.
    refused(
        &Tar::new().file("bin/a", b"a").done(),
        "app",
        "one root file system",
    );
}
