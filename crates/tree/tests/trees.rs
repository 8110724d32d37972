//! Real trees: what is packed comes out the same, other programs understand it, and no stream leaves its destination.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests ask the system's tar what it thinks"
)]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_tree::tar::{self, Entry, Kind, Time};
use banger_tree::{Destination, Error, Output, Owner, Pack, Reach, Unpack, Unpacked, pack, unpack};

#[derive(Default)]
struct Sink {
    room: Vec<u8>,
    bytes: Vec<u8>,
    warnings: Vec<String>,
}

impl Output for Sink {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        self.room.resize(1000, 0);
        Ok(&mut self.room)
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.bytes.extend_from_slice(&self.room[..count]);
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

fn packed(source: &Path, name: &[u8]) -> Sink {
    let mut sink = Sink::default();
    let what = Pack {
        source,
        follow: false,
        name,
    };
    pack(&what, &mut sink).unwrap();
    sink
}

fn how(path: &Path, name: Option<&str>) -> Unpack {
    Unpack {
        destination: Destination {
            path: path.to_owned(),
            name: name.map(|name| name.as_bytes().to_owned()),
            directory: false,
        },
        archive: false,
        owner: Owner::Us,
        reach: Reach::NoLinks,
    }
}

fn unpacked(bytes: &[u8], how: &Unpack) -> Result<(Unpacked, Vec<String>), Error> {
    let mut warnings = Vec::new();
    unpack(bytes, how, &mut |text| warnings.push(text)).map(|done| (done, warnings))
}

/// Everything a copy keeps of a tree, one line per entry.
fn look(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names = std::collections::BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.push(path);
    }
    found.sort();
    for path in found {
        let seen = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap();
        let content = if seen.is_file() {
            let first = first_names
                .entry(seen.ino())
                .or_insert_with(|| name.to_owned());
            let data = fs::read(&path).unwrap();
            format!(
                "same as {first:?}, {} bytes, {:x}",
                data.len(),
                data.iter()
                    .fold(7_u64, |h, b| h.rotate_left(5) ^ u64::from(*b))
            )
        } else {
            format!("{:?}", fs::read_link(&path).ok())
        };
        let time = format!("{}.{:09}", seen.mtime(), seen.mtime_nsec());
        // A symbolic link has no mode of its own.
        lines.push(format!("{name:?} {:o} {time} {content}", seen.mode()));
    }
    lines
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, nofollow).unwrap();
}

/// Names, modes, times, links and holes of every kind that must survive.
fn nasty(root: &Path) {
    let odd = root.join(OsStr::from_bytes(b"odd\n\xff name"));
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(odd.join("d".repeat(200)).join("e".repeat(200))).unwrap();
    fs::write(odd.join("-rf"), b"dash").unwrap();
    fs::write(root.join("nothing"), b"").unwrap();
    fs::write(
        root.join("big"),
        (0..200_000_u32).map(|i| (i >> 3) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(root.join("setuid"), b"#!/bin/sh\n").unwrap();
    fs::hard_link(root.join("big"), odd.join("again")).unwrap();
    symlink("../../outside/\u{fc}ber", root.join("dangling")).unwrap();
    symlink("x".repeat(150), root.join("long")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 1 << 20).unwrap();
    sparse.write_all_at(b"middle", 3 << 30).unwrap();
    sparse.set_len(10 << 30).unwrap();
    File::create(root.join("only a hole"))
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    fs::set_permissions(root.join("setuid"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("big"), Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("empty"), Permissions::from_mode(0o1777)).unwrap();
    touch(&root.join("big"), 1_000_000_000, 123_456_789);
    touch(&root.join("nothing"), -5, 250_000_000);
    touch(&root.join("long"), 1, 1);
    touch(&root.join("empty"), 7, 0);
    touch(&odd, 1_234, 5);
    fs::set_permissions(&odd, Permissions::from_mode(0o555)).unwrap();
    touch(root, 42, 42);
}

/// What is to become of a nasty tree whose owners are not kept.
fn without_setuid(root: &Path) {
    fs::set_permissions(root.join("setuid"), Permissions::from_mode(0o755)).unwrap();
}

/// As `look`, for trees with a file of gigabytes that is a hole.
fn look_sparse(root: &Path) -> Vec<String> {
    let holes = ["sparse", "only a hole"].map(|name| {
        let seen = fs::metadata(root.join(name)).unwrap();
        assert!(seen.blocks() < 1000, "{name} has {} blocks", seen.blocks());
        let mut text = format!("{name} {} {}", seen.len(), seen.mtime_nsec());
        let file = File::open(root.join(name)).unwrap();
        for at in [0, 1 << 20, 3 << 30, (10_u64 << 30) - 8] {
            let mut bytes = [9; 8];
            let count = file.read_at(&mut bytes, at).unwrap();
            text.push_str(&format!(" {:?}", &bytes[..count]));
        }
        fs::remove_file(root.join(name)).unwrap();
        text
    });
    touch(root, 42, 42);
    let mut lines = look(root);
    lines.extend(holes);
    lines
}

#[test]
fn a_nasty_tree_comes_out_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    nasty(&from);
    let sink = packed(&from, b"");
    assert_eq!(sink.warnings, [""; 0]);
    assert!(
        sink.bytes.len() < 1 << 20,
        "holes travel: {} bytes",
        sink.bytes.len()
    );
    let (done, warnings) = unpacked(&sink.bytes, &how(&to, Some("from"))).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(done.entries, 14);
    let root = fs::metadata(&to).unwrap();
    assert_eq!((root.mtime(), root.mtime_nsec()), (42, 42));
    without_setuid(&from);
    assert_eq!(look_sparse(&to), look_sparse(&from));
}

fn tar(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut tar = Command::new("tar")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success(), "tar {args:?}");
    writer.join().unwrap().unwrap();
    output.stdout
}

/// What other programs write is understood: each of GNU tar's formats, sparse files in each of theirs.
#[test]
fn archives_of_gnu_tar_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    nasty(&from);
    let path = from.to_str().unwrap();
    let formats: [(&str, &[&str]); 5] = [
        ("gnu", &["--format=gnu"]),
        ("pax", &["--format=pax"]),
        ("0.0", &["--format=pax", "--sparse-version=0.0"]),
        ("0.1", &["--format=pax", "--sparse-version=0.1"]),
        ("1.0", &["--format=pax", "--sparse-version=1.0"]),
    ];
    let mut seen = Vec::new();
    for (format, flags) in formats {
        let to = dir.path().join(format!("to {format}"));
        fs::create_dir(&to).unwrap();
        let args = [flags, &["-S", "-c", "-C", path, "."]].concat();
        let mut how = how(&to, None);
        how.archive = true;
        unpacked(&tar(&args, b""), &how).unwrap();
        seen.push((format, to));
    }
    without_setuid(&from);
    let expected = look_sparse(&from);
    for (format, to) in seen {
        let lines = look_sparse(&to);
        if format != "gnu" {
            assert_eq!(lines, expected, "{format}");
        } else {
            // That format has whole seconds.
            assert_eq!(lines.len(), expected.len());
        }
    }
}

/// What we write is understood by others.
#[test]
fn gnu_tar_unpacks_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    nasty(&from);
    fs::create_dir(&to).unwrap();
    let sink = packed(&from, b"name");
    tar(&["-x", "-p", "-C", to.to_str().unwrap()], &sink.bytes);
    assert_eq!(look_sparse(&to.join("name")), look_sparse(&from));
}

#[test]
fn sockets_and_fifos_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, from.join("fifo"), mode).unwrap();
    fs::write(from.join("file"), b"x").unwrap();
    let mut sink = packed(&from, b"");
    sink.warnings.sort();
    let shown = from.to_str().unwrap();
    assert_eq!(
        sink.warnings,
        [
            format!("'{shown}/fifo' is a fifo and left out"),
            format!("'{shown}/socket' is a socket and left out")
        ]
    );
    let to = dir.path().join("to");
    unpacked(&sink.bytes, &how(&to, None)).unwrap();
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    let alone = Pack {
        source: &from.join("fifo"),
        follow: false,
        name: b"",
    };
    let refused = pack(&alone, &mut Sink::default()).unwrap_err();
    assert!(
        refused.to_string().contains("neither file nor directory"),
        "{refused}"
    );
}

/// Files of `/proc` do not tell their size.
#[test]
fn files_without_a_size_have_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let sink = packed(Path::new("/proc/version"), b"");
    unpacked(&sink.bytes, &how(&dir.path().join("v"), None)).unwrap();
    assert_eq!(
        fs::read(dir.path().join("v")).unwrap(),
        fs::read("/proc/version").unwrap()
    );
}

/// `cp`'s rules: where a file or a directory comes to lie.
#[test]
fn destinations() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/f"), b"f").unwrap();
    fs::write(at("file"), b"new").unwrap();
    let (file, tree) = (
        packed(&at("file"), b"").bytes,
        packed(&at("tree"), b"").bytes,
    );
    let put = |bytes: &[u8], to: &str, name: Option<&str>| {
        let to = PathBuf::from(format!("{}/{to}", dir.path().display()));
        unpacked(bytes, &how(&to, name))
            .map(drop)
            .map_err(|e| e.to_string())
    };
    fs::create_dir(at("into")).unwrap();
    put(&file, "into", Some("file")).unwrap();
    put(&file, "into/", Some("also")).unwrap();
    put(&tree, "into", Some("tree")).unwrap();
    put(&tree, "into/contents/", None).unwrap();
    put(&tree, "into", None).unwrap();
    put(&tree, "renamed", Some("tree")).unwrap();
    put(&file, "named", Some("file")).unwrap();
    for there in [
        "into/file",
        "into/also",
        "into/tree/f",
        "into/contents/f",
        "into/f",
        "renamed/f",
        "named",
    ] {
        assert!(at(there).is_file(), "{there}");
    }
    // Through a link to a file, as cp does; the link stays.
    fs::write(at("real"), b"old").unwrap();
    symlink("real", at("link")).unwrap();
    put(&file, "link", Some("file")).unwrap();
    assert_eq!(fs::read(at("real")).unwrap(), b"new");
    assert!(at("link").is_symlink());
    symlink("nowhere", at("dangling")).unwrap();
    for (bytes, to, name, says) in [
        (&file, "none/", Some("file"), "no directory"),
        (&file, "none/x", Some("file"), "none/'"),
        (&file, "named/", Some("file"), "Not a directory"),
        (&file, "named/x", Some("file"), "Not a directory"),
        (&tree, "named", Some("tree"), "onto a file"),
        (&file, "dangling", Some("file"), "no directory"),
        (&file, "into", Some("tree"), "Is a directory"),
        (&tree, "into", Some("file"), "Not a directory"),
        (&file, "into", Some("../x"), "no name"),
    ] {
        let refused = put(bytes, to, name).unwrap_err();
        assert!(refused.contains(says), "{to}: {refused}");
    }
    let names = fs::read_dir(at("into")).unwrap().count();
    assert_eq!(names, 5, "nothing temporary is left");
}

fn entry(path: &str, kind: Kind) -> Vec<u8> {
    let size = match kind {
        Kind::File { size, .. } => size,
        _ => 0,
    };
    let mut bytes = tar::header(&Entry {
        path: path.as_bytes().to_owned(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
    });
    let length = bytes.len() + usize::try_from(size).unwrap() + tar::padding(size);
    bytes.resize(length, b'!');
    bytes
}

fn file(path: &str) -> Vec<u8> {
    entry(
        path,
        Kind::File {
            size: 3,
            data: None,
        },
    )
}

fn link(path: &str, target: &str) -> Vec<u8> {
    entry(
        path,
        Kind::Symlink {
            target: target.as_bytes().to_owned(),
        },
    )
}

fn hard(path: &str, target: &str) -> Vec<u8> {
    entry(
        path,
        Kind::HardLink {
            target: target.as_bytes().to_owned(),
        },
    )
}

/// No stream writes, links or changes anything outside its destination, or through links that lead there.
#[test]
fn no_stream_leaves_its_destination() {
    let root = entry("./", Kind::Directory);
    let directory = |path| entry(path, Kind::Directory);
    let cases: [(&str, Vec<Vec<u8>>); 17] = [
        ("dots", vec![file("../victim")]),
        ("dots inside", vec![directory("a"), file("a/../../victim")]),
        ("absolute", vec![file("@/victim")]),
        ("absolute directory", vec![directory("@/new")]),
        ("through a link", vec![link("l", ".."), file("l/victim")]),
        (
            "through an absolute link",
            vec![link("l", "@"), file("l/victim")],
        ),
        (
            "through two links",
            vec![link("a", "b"), link("b", ".."), file("a/victim")],
        ),
        (
            "a directory at a link",
            vec![link("l", ".."), directory("l"), file("l/victim")],
        ),
        (
            "a new directory below a link",
            vec![link("l", ".."), directory("l/new")],
        ),
        (
            "a link below a link",
            vec![link("l", ".."), link("l/new", "x")],
        ),
        ("a link that is there", vec![file("there/victim")]),
        (
            "a directory at a link that is there",
            vec![directory("there"), file("there/victim")],
        ),
        ("a hard link out", vec![hard("h", "../victim"), file("h")]),
        ("an absolute hard link", vec![hard("h", "@/victim")]),
        (
            "a hard link through a link",
            vec![link("l", ".."), hard("h", "l/victim")],
        ),
        ("the root again", vec![file(".")]),
        ("a zero byte", vec![file("a\0../victim"), file("../victim")]),
    ];
    for (what, entries) in cases {
        for reach in [Reach::NoLinks, Reach::Below] {
            let dir = tempfile::tempdir().unwrap();
            let outside = dir.path().to_str().unwrap().to_owned();
            let to = dir.path().join("to");
            fs::create_dir(&to).unwrap();
            fs::write(dir.path().join("victim"), b"untouched").unwrap();
            symlink("..", to.join("there")).unwrap();
            touch(dir.path(), 5, 5);
            let mut bytes = root.clone();
            for entry in &entries {
                // The one absolute path of this test is known only now; it is short enough for a header of its own.
                bytes.extend_from_slice(&at_home(entry, &outside));
            }
            bytes.extend_from_slice(&tar::END);
            let mut how = how(&to, None);
            how.reach = reach;
            let refused = unpacked(&bytes, &how)
                .map(drop)
                .expect_err(what)
                .to_string();
            assert!(refused.contains("refused"), "{what}: {refused}");
            assert_eq!(
                fs::read(dir.path().join("victim")).unwrap(),
                b"untouched",
                "{what}"
            );
            assert_eq!(
                fs::metadata(dir.path().join("victim")).unwrap().nlink(),
                1,
                "{what}"
            );
            assert_eq!(fs::metadata(dir.path()).unwrap().mtime(), 5, "{what}");
            let left = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name());
            assert!(
                left.into_iter()
                    .all(|n| !n.to_str().unwrap().starts_with(".banger")),
                "{what}"
            );
        }
    }
}

/// Writes a header of a made-up path anew with the true one.
fn at_home(entry: &[u8], outside: &str) -> Vec<u8> {
    if !entry.contains(&b'@') {
        return entry.to_owned();
    }
    let mut bytes = entry.to_owned();
    bytes.extend_from_slice(&tar::END);
    let mut reader = tar::Reader::new(&bytes[..]);
    let mut read = reader.next_entry().unwrap().unwrap();
    let replaced = |path: &[u8]| {
        String::from_utf8(path.to_owned())
            .unwrap()
            .replace('@', outside)
            .into_bytes()
    };
    read.path = replaced(&read.path);
    if let Kind::Symlink { target } | Kind::HardLink { target } = &mut read.kind {
        *target = replaced(target);
    }
    let mut again = tar::header(&read);
    if matches!(read.kind, Kind::File { .. }) {
        again.extend_from_slice(&[b'!'; 512]);
    }
    again
}

/// In a guest, archives are unpacked over links that stay inside, such as `bin` of a root file system.
#[test]
fn links_that_stay_below_may_be_passed_in_a_guest() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
    symlink("usr/bin", dir.path().join("bin")).unwrap();
    let bytes = [
        entry("bin/", Kind::Directory),
        file("bin/tool"),
        tar::END.to_vec(),
    ]
    .concat();
    let mut how = how(dir.path(), None);
    how.archive = true;
    let refused = unpacked(&bytes, &how).unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    how.reach = Reach::Below;
    unpacked(&bytes, &how).unwrap();
    assert!(dir.path().join("usr/bin/tool").is_file());
    assert!(dir.path().join("bin").is_symlink());
}

/// A stream that ends early leaves what was there, and nothing temporary.
#[test]
fn a_cut_stream_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("new"), vec![1; 100_000]).unwrap();
    fs::write(dir.path().join("old"), b"old").unwrap();
    let bytes = packed(&dir.path().join("new"), b"").bytes;
    let cut = unpacked(&bytes[..50_000], &how(&dir.path().join("old"), None));
    assert!(cut.is_err());
    assert_eq!(fs::read(dir.path().join("old")).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// The numbers of a stream are set only when asked for, and only root can be asked.
#[test]
fn owners() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = [
        entry("./", Kind::Directory),
        tar::header(&Entry {
            path: b"f".to_vec(),
            kind: Kind::File {
                size: 0,
                data: None,
            },
            mode: 0o6755,
            uid: 12_345,
            gid: 54_321,
            mtime: Time::default(),
        }),
        tar::END.to_vec(),
    ]
    .concat();
    let us = rustix::process::geteuid().as_raw();
    unpacked(&bytes, &how(&dir.path().join("ours"), None)).unwrap();
    let ours = fs::metadata(dir.path().join("ours/f")).unwrap();
    assert_eq!((ours.uid(), ours.mode() & 0o7777), (us, 0o755));
    let mut keep = how(&dir.path().join("kept"), None);
    keep.owner = Owner::AsInStream;
    if us != 0 {
        assert!(unpacked(&bytes, &keep).is_err());
        return;
    }
    unpacked(&bytes, &keep).unwrap();
    let seen = fs::metadata(dir.path().join("kept/f")).unwrap();
    assert_eq!(
        (seen.uid(), seen.gid(), seen.mode() & 0o7777),
        (12_345, 54_321, 0o6755)
    );
}
