//! Images on their way out and in again: the same tree in every attribute, run in the same way; and other tools read the
//! archive as we mean it.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod archive;
#[allow(dead_code, reason = "shared with other tests")]
mod layout;
mod listing;

use archive::{Tar, header, names, store, tool};
use banger_ext4::{FileSystem, FileType};
use banger_image::{Error, Format, Import, Limits, Manifest, Silent};
use layout::{Layout, Packing, digest, tar_of};
use listing::{Mounted, listing};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};
use tar::EntryType as T;

const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---` as `getxattr` gives it.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

fn import(dir: &Path, mut bytes: &[u8], name: &str) -> Result<Manifest, Error> {
    let import = Import {
        names: vec![name.to_owned()],
        ..Import::default()
    };
    store(dir).import(&mut bytes, &import, &Silent)
}

#[track_caller]
fn export(dir: &Path, image: &Manifest, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    let name = Some("box:1");
    let done = store(dir).export(image, name, format, &mut out, &Silent);
    assert_eq!(done.unwrap().sockets, 0);
    out
}

fn with(kind: T, name: &str, (uid, gid, mode): (u64, u64, u32)) -> tar::Header {
    let mut header = header(kind, name, 0);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mode(mode);
    header.set_cksum();
    header
}

/// Everything an image can have.
fn layer() -> Vec<u8> {
    let long = "d".repeat(120);
    let deep = format!("{long}/{long}/{}", "n".repeat(250));
    let mut holes = vec![0_u8; 3 << 20];
    holes[1 << 20..(1 << 20) + 5000].fill(7);
    Tar::new()
        .directory("etc/")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .file("linked", b"one file of three names")
        .link(T::Link, "etc/linked-too", "linked")
        .link(T::Link, "zz", "linked")
        .link(T::Symlink, "link", "etc/passwd")
        .link(T::Symlink, "long-link", &"t".repeat(3000))
        .link(T::Link, "etc/link-too", "link")
        .raw(with(T::Directory, "tmp/", (0, 0, 0o1777)), b"")
        .raw(with(T::Regular, "su", (0, 0, 0o4755)), b"")
        .pax(&[("uid", b"4000000000"), ("gid", b"3000000000")])
        .file("far", b"far")
        .pax(&[("mtime", b"1234567890.123456789")])
        .file("fraction", b"f")
        .pax(&[("mtime", b"-86400.25")])
        .file("before", b"b")
        .pax(&[
            ("SCHILY.xattr.security.capability", &CAPABILITY),
            ("SCHILY.xattr.user.note", b"kept\nas=it is\0"),
        ])
        .file("ping", b"ping")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", &ACL)])
        .raw(with(T::Regular, "acl", (0, 0, 0o640)), b"")
        .directory(&format!("{long}/"))
        .file(&deep, b"deep")
        .bytes_name(b"bytes\xff\xfe\n", b"odd")
        .file("holes", &holes)
        .file("hole", &vec![0; 2 << 20])
        .file("empty", b"")
        .file("short-zeros", &[0; 5000])
        .raw(header(T::Fifo, "pipe", 0), b"")
        .device("null", 1, 3)
        .device("large-device", 300, 70_000)
        .done()
}

/// Everything in a file system by its path, as our reader sees it; names of one inode by the first of them.
fn seen(rootfs: &Path) -> BTreeMap<Vec<u8>, String> {
    let fs = FileSystem::open(File::open(rootfs).unwrap()).unwrap();
    let mut found = BTreeMap::new();
    let mut ahead = vec![(Vec::new(), FileSystem::<File>::ROOT)];
    let mut names: BTreeMap<u32, BTreeSet<Vec<u8>>> = BTreeMap::new();
    while let Some((path, number)) = ahead.pop() {
        let node = fs.node(number).unwrap();
        let mut content = Vec::new();
        match node.file_type {
            FileType::Directory => {
                for entry in fs.entries(&node).unwrap() {
                    ahead.push(([&*path, b"/", &entry.name].concat(), entry.inode));
                }
            }
            FileType::File => {
                content = vec![0; node.size as usize];
                let place = fs.content(&node).unwrap();
                fs.read(&place, 0, &mut content).unwrap();
            }
            FileType::Symlink => content = fs.target(&node).unwrap(),
            _ => {}
        }
        names.entry(number).or_default().insert(path.clone());
        let told = format!(
            "{:?} {:o} {}:{} {:?} device {:?} size {} links {} {:?} {}",
            node.file_type,
            node.mode,
            node.uid,
            node.gid,
            node.mtime,
            node.device(),
            if node.file_type == FileType::Directory {
                0
            } else {
                node.size
            },
            node.links,
            fs.xattrs(&node).unwrap(),
            digest(&content),
        );
        found.insert(path, told);
    }
    for paths in names.into_values().filter(|paths| paths.len() > 1) {
        for path in &paths {
            found
                .get_mut(path)
                .unwrap()
                .push_str(&format!(" is {paths:?}"));
        }
    }
    found
}

#[track_caller]
fn assert_same(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (seen(ours), seen(theirs));
    for (path, told) in &theirs {
        let name = path.escape_ascii();
        assert_eq!(ours.get(path), Some(told), "{name}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn an_exported_image_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let top = Tar::new().file("etc/second", b"second").done();
    let layout = Layout::new(&dir.path().join("layout"), &[layer(), top], Packing::Mixed);
    layout.change_config(&|config| {
        config["created"] = "2024-02-29T01:02:03.5Z".into();
        config["config"]["Labels"] = serde_json::json!({"a.b": "c d", "e": ""});
        config["history"] = serde_json::json!([
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base"},
            {"created_by": "ENV A=b=c", "empty_layer": true},
            {"created_by": "RUN x", "comment": "by hand", "author": null},
        ]);
    });
    let first = import(dir.path(), &tar_of(&layout.dir), "first").unwrap();
    let told = first.origin.clone().unwrap();
    let sizes = told.steps().into_iter();
    let sizes: Vec<_> = sizes.map(|(_, l)| l.map(|l| l.sha256.clone())).collect();
    let layers = &layout.layers;
    assert_eq!(
        sizes,
        [Some(layers[0].clone()), None, Some(layers[1].clone())]
    );
    assert_eq!(told.labels["a.b"], "c d");

    let exported = export(dir.path(), &first, Format::Oci);
    assert_eq!(
        exported,
        export(dir.path(), &first, Format::Oci),
        "twice the same"
    );
    let second = import(dir.path(), &exported, "second").unwrap();
    let store = store(dir.path());
    assert_same(&store.rootfs(&second), &store.rootfs(&first));
    assert_eq!(second.config, first.config);
    let again = second.origin.clone().unwrap();
    assert_eq!(
        (&again.labels, &again.created),
        (&told.labels, &told.created)
    );
    let by = |origin: &banger_model::ImageOrigin| -> Vec<_> {
        let steps = origin.history.iter();
        steps.map(|s| s.created_by.clone().unwrap()).collect()
    };
    let mut wanted = by(&told);
    wanted.push("banger image export".to_owned());
    assert_eq!(by(&again), wanted);
    assert_eq!(again.layers.len(), 1);
    assert!(
        export(dir.path(), &second, Format::Oci) == exported,
        "and so on"
    );
}

/// What tar, skopeo and umoci make of the archive is what the kernel shows of the image.
#[test]
fn other_tools_read_the_archive_as_it_is_meant() {
    if !listing::can_mount() || !listing::has(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"), &[layer()], Packing::Zstd);
    let image = import(dir.path(), &tar_of(&layout.dir), "box").unwrap();
    let file = dir.path().join("box.tar");
    fs::write(&file, export(dir.path(), &image, Format::Oci)).unwrap();
    for form in ["oci-archive", "docker-archive"] {
        let to = dir.path().join(form);
        let from = format!("{form}:{}", file.display());
        let layout = format!("oci:{}:box", to.display());
        let args = ["copy", "--quiet", &from, &layout].map(Path::new);
        tool("skopeo", &args);
        let bundle = dir.path().join(format!("{form}-bundle"));
        let reference = format!("{}:box", to.display());
        let args = ["unpack", "--image", &reference].map(Path::new);
        tool("umoci", &[&args[..], &[&bundle]].concat());
        let rootfs = store(dir.path()).rootfs(&image);
        let mounted = Mounted::new(&rootfs, &dir.path().join("mounted"));
        let (ours, theirs) = (listing(&mounted.0), listing(&bundle.join("rootfs")));
        for (path, told) in &ours {
            assert_eq!(theirs.get(path), Some(told), "{form}: {path}");
        }
        assert_eq!(ours.len(), theirs.len(), "{form}");
        drop(mounted);
        fs::remove_dir(dir.path().join("mounted")).unwrap();
    }
}

/// Names and attributes that a layer means something else by, and an archive that nobody takes.
#[test]
fn what_no_layer_tells_of_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for (tar, entry) in [
        (Tar::new().file("etc/.wh.a", b"b"), "etc/.wh.a"),
        (
            Tar::new()
                .pax(&[("SCHILY.xattr.user.a", b"b")])
                .file("fine", b""),
            "",
        ),
    ] {
        let image = import(dir.path(), &tar.done(), "flat").unwrap();
        let store = store(dir.path());
        let done = store.export(&image, None, Format::Oci, &mut Vec::new(), &Silent);
        match done {
            Err(Error::Untold { entry: told, .. }) => assert_eq!(told, entry),
            done => assert_eq!((done.is_ok(), entry), (true, "")),
        }
        let full = store.export(&image, None, Format::Bundle, &mut Full, &Silent);
        assert!(matches!(full, Err(Error::Write(_))), "{full:?}");
        store
            .delete("flat", true, &|_| Ok(Vec::new()), |_| ())
            .unwrap();
    }
}

/// A full disk.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The two files of a bundle.
fn unbundled(bundle: &[u8]) -> Vec<(String, Vec<u8>)> {
    let bytes = zstd::decode_all(bundle).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    entries.collect()
}

fn bundled(files: &[(&str, &[u8])]) -> Vec<u8> {
    let tar = files.iter().fold(Tar::new(), |tar, (name, bytes)| {
        match name.strip_suffix('/') {
            Some(_) => tar.directory(name),
            None => tar.file(name, bytes),
        }
    });
    zstd::bulk::compress(&tar.done(), 1).unwrap()
}

#[test]
fn a_bundle_is_the_same_image_and_exactly_two_files() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let layout = Layout::new(&dir.path().join("layout"), &[layer()], Packing::Zstd);
    let image = import(dir.path(), &tar_of(&layout.dir), "box").unwrap();
    let bundle = export(dir.path(), &image, Format::Bundle);
    assert!(
        (bundle.len() as u64) < image.size / 50,
        "{} bytes",
        bundle.len()
    );
    let files = unbundled(&bundle);
    let [(json, manifest), (ext4, rootfs)] = &files[..] else {
        panic!("{} files", files.len());
    };
    assert_eq!((&**json, &**ext4), ("manifest.json", "rootfs.ext4"));
    assert_eq!(format!("sha256:{}", digest(rootfs)), image.digest);

    let back = import(other.path(), &bundle, "back").unwrap();
    assert_eq!(
        (&back.digest, &back.config, &back.origin),
        (&image.digest, &image.config, &image.origin)
    );
    let kept = store(other.path()).rootfs(&back).metadata().unwrap();
    assert!(kept.blocks() * 512 < kept.len() / 2, "holes stay holes");
    // In whatever order, in a directory or not, packed or not.
    for (n, files) in [
        vec![("rootfs.ext4", &rootfs[..]), ("manifest.json", manifest)],
        vec![
            ("./", &b""[..]),
            ("./manifest.json", manifest),
            ("./rootfs.ext4", rootfs),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let packed = bundled(&files);
        let plain = zstd::decode_all(&packed[..]).unwrap();
        for (bytes, kind) in [(packed, "packed"), (plain, "plain")] {
            let again = import(other.path(), &bytes, &format!("again-{n}-{kind}")).unwrap();
            assert_eq!(again.digest, image.digest);
        }
    }
}

#[test]
fn a_bundle_that_is_not_as_it_says_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = import(dir.path(), &Tar::new().file("bin/sh", b"sh").done(), "box").unwrap();
    let bundle = export(dir.path(), &image, Format::Bundle);
    let files = unbundled(&bundle);
    let (manifest, rootfs) = (&files[0].1, &files[1].1);
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut told: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        change(&mut told);
        told.to_string().into_bytes()
    };
    let json = "manifest.json";
    let ext4 = "rootfs.ext4";
    let both = |manifest: &[u8]| bundled(&[(json, manifest), (ext4, rootfs)]);
    let mut flipped = rootfs.clone();
    let at = flipped.len() - 1;
    flipped[at] ^= 1;
    let short = &rootfs[..rootfs.len() - 4096];
    let zeros = vec![0; 100_000];
    let empty = with(&|t| {
        t["size"] = 100_000.into();
        t["digest"] = format!("sha256:{}", digest(&zeros)).into();
    });
    let other = tempfile::tempdir().unwrap();
    for (bytes, why) in [
        (bundle[..bundle.len() / 2].to_vec(), "cut short"),
        (bundle[..bundle.len() - 1].to_vec(), "cut short"),
        (
            bundled(&[(json, manifest), (ext4, rootfs), ("etc/shadow", b"x")]),
            "'etc/shadow'",
        ),
        (
            bundled(&[("README", b"x"), (json, manifest), (ext4, rootfs)]),
            "'README'",
        ),
        (
            bundled(&[(json, manifest), (ext4, rootfs), ("more/", b"")]),
            "'more'",
        ),
        (
            bundled(&[(json, manifest), (ext4, rootfs), (ext4, rootfs)]),
            "each of its files once",
        ),
        (bundled(&[(ext4, rootfs)]), "no manifest.json"),
        (
            bundled(&[(json, manifest), (ext4, &flipped)]),
            "has the digest sha256:",
        ),
        (
            bundled(&[(json, manifest), (ext4, short)]),
            "and should have",
        ),
        (
            both(&with(&|t| {
                t["digest"] = format!("sha256:{}", "0".repeat(64)).into()
            })),
            "should have sha256:000",
        ),
        (both(&with(&|t| t["size"] = 7.into())), "should have 7"),
        (both(&with(&|t| t["format"] = 2.into())), "of format 2"),
        (both(&with(&|t| t["arch"] = "s390x".into())), "linux/s390x"),
        (both(b"{"), "manifest.json cannot be read"),
        (
            bundled(&[(json, &empty), (ext4, &zeros)]),
            "cannot be used as an image",
        ),
    ] {
        let error = import(other.path(), &bytes, "bad").unwrap_err();
        let mut told = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            told = format!("{told}: {source}");
        }
        assert!(told.contains(why), "{why}: {told}");
        assert_eq!(names(&other.path().join("images")), [""; 0], "{why}");
    }
    let link = Tar::new()
        .link(T::Symlink, ext4, "/etc/passwd")
        .file(json, manifest)
        .done();
    let error = import(other.path(), &link, "bad");
    assert!(error.is_err(), "{error:?}");
    // A hole of terabytes, which would be proven byte by byte.
    let hollow = with(&|t| t["size"] = 16_000_000_000_000_u64.into());
    let records: [(&str, &[u8]); 2] = [
        ("GNU.sparse.map", b"0,512"),
        ("GNU.sparse.size", b"16000000000000"),
    ];
    let hollow = Tar::new().file(json, &hollow).pax(&records);
    let error = import(other.path(), &hollow.file(ext4, &[0; 512]).done(), "bad");
    let told = error.unwrap_err().to_string();
    assert!(told.contains("images.max_size"), "{told}");
    assert_eq!(names(&other.path().join("images")), [""; 0]);
}

/// What is said of a bundle may stand behind its file system: that is read twice then, and counts once.
#[test]
fn a_bundle_may_be_as_large_as_the_limit() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = import(dir.path(), &Tar::new().file("bin/sh", b"sh").done(), "box").unwrap();
    let files = unbundled(&export(dir.path(), &image, Format::Bundle));
    let turned: Vec<_> = files.iter().rev().map(|(n, b)| (&**n, &b[..])).collect();
    let bytes = bundled(&turned);
    let unpacked = zstd::decode_all(&bytes[..]).unwrap().len() as u64;
    let within = |most| {
        let limits = Limits {
            bytes: most,
            ..Limits::default()
        };
        let import = Import {
            names: vec!["box".to_owned()],
            ..Import::default()
        };
        store(other.path())
            .within(limits)
            .import(&mut &bytes[..], &import, &Silent)
    };
    assert!(within(unpacked - 1).is_err());
    assert_eq!(within(unpacked).unwrap().digest, image.digest);
}

/// Bytes at the end of a file system that no file has are part of the image all the same.
#[test]
fn the_last_hole_counts() {
    let dir = tempfile::tempdir().unwrap();
    let image = import(dir.path(), &Tar::new().file("bin/sh", b"sh").done(), "box").unwrap();
    let rootfs = store(dir.path()).rootfs(&image);
    let mut last = [1; 4096];
    let file = File::open(rootfs).unwrap();
    file.read_exact_at(&mut last, image.size - 4096).unwrap();
    assert_eq!(last, [0; 4096], "its end is a hole");
    let other = tempfile::tempdir().unwrap();
    let bundle = export(dir.path(), &image, Format::Bundle);
    assert_eq!(
        import(other.path(), &bundle, "b").unwrap().digest,
        image.digest
    );
}
