//! Archives of strangers (R-IMG-4): each is refused naming its entry, registers nothing, leaves nothing, and touches
//! nothing outside the image; and what only looks hostile comes out as it went in.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod archive;
mod corpus;

use archive::{Tar, header, look, names, store, tool};
use banger_ext4::FileSystem;
use banger_image::{Error, Import, Limits, Progress, Silent};
use corpus::{Outside, corpus};
use std::{
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use tar::EntryType as T;

fn import(dir: &Path, bytes: &[u8]) -> Result<banger_image::Manifest, Error> {
    import_within(dir, bytes, Limits::default())
}

fn import_within(
    dir: &Path,
    mut bytes: &[u8],
    limits: Limits,
) -> Result<banger_image::Manifest, Error> {
    let import = Import {
        names: vec!["test".to_owned()],
        ..Import::default()
    };
    store(dir)
        .within(limits)
        .import(&mut bytes, &import, &Silent)
}

/// Imports what must be refused; what the error says is given back.
fn refused(what: &str, bytes: &[u8], limits: Limits) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = match import_within(dir.path(), bytes, limits) {
        Ok(image) => panic!("{what} was imported as {image:?}"),
        Err(error) => error,
    };
    assert!(
        names(&dir.path().join("images")).is_empty(),
        "{what} left something"
    );
    let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
    let text = format!("{error}{}", cause.unwrap_or_default());
    assert!(!text.contains('\n'), "{what}: {text}");
    println!("{what}: {text}");
    text
}

#[test]
fn what_is_hostile_is_refused_naming_the_entry() {
    let outside = Outside::new();
    assert_eq!(
        corpus(&outside).len(),
        80,
        "SPECIFICATION.md says another number"
    );
    for (what, bytes, words) in corpus(&outside) {
        let text = refused(what, &bytes, Limits::default());
        outside.is_untouched(what);
        for word in words {
            assert!(
                text.contains(word),
                "{what}: '{text}' does not say '{word}'"
            );
        }
    }
}

#[test]
fn what_is_broken_is_refused() {
    let whole = Tar::new().file("a", &[7; 3000]).file("b", b"x").done();
    let mut wrong_sum = whole.clone();
    wrong_sum[512 + 3072] ^= 1;
    let mut lying = header(T::Regular, "a", 1 << 40);
    lying.set_cksum();
    let mut negative = header(T::Regular, "a", 0);
    negative.as_mut_bytes()[124..136].copy_from_slice(b"-0000000001\0");
    negative.set_cksum();
    let mut flood = header(T::GNULongName, "././@LongLink", 8 << 30);
    flood.set_cksum();
    for (what, bytes, word) in [
        ("a tar cut in a file", whole[..2000].to_vec(), "cut short"),
        ("a tar cut in a header", whole[..3600].to_vec(), "cut short"),
        (
            "a tar without its end mark",
            whole[..whole.len() - 1024].to_vec(),
            "cut short",
        ),
        ("a header that was changed", wrong_sum, "checksum"),
        (
            "a size that lies",
            Tar::new().raw(lying, b"short").done(),
            "cut short",
        ),
        (
            "a negative size",
            Tar::new().raw(negative, b"").done(),
            "damaged",
        ),
        (
            "a name of 8 GiB",
            Tar::new().raw(flood, b"n").done(),
            "extended header",
        ),
        (
            "records that are none",
            Tar::new().raw(header(T::XHeader, "x", 4), b"junk").done(),
            "damaged",
        ),
        ("an archive of nothing", vec![0; 10240], "no entries"),
        (
            "docker save of nothing",
            Tar::new()
                .file("manifest.json", b"[]")
                .file("abc/layer.tar", b"x")
                .done(),
            "no image",
        ),
        (
            "text",
            b"#!/bin/sh\necho hello\n".repeat(100),
            "something else",
        ),
        ("nothing", Vec::new(), "empty"),
    ] {
        let text = refused(what, &bytes, Limits::default());
        assert!(
            text.contains(word),
            "{what}: '{text}' does not say '{word}'"
        );
    }
    // Cut anywhere, it is never an image.
    for cut in (0..whole.len() - 1024).step_by(97) {
        refused("a cut tar", &whole[..cut], Limits::default());
    }
}

#[test]
fn floods_stop_at_their_limits() {
    let few = Limits {
        entries: 50,
        bytes: 1 << 20,
        kept: 64 << 10,
        in_directory: 20,
        devices: 5,
        ratio: 100,
        ratio_from: 64 << 10,
    };
    let mut devices = Tar::new();
    let (mut crowd, mut many) = (Tar::new(), Tar::new());
    for n in 0..60 {
        devices = devices.device(&format!("dev{n}"), 1, 3);
        crowd = crowd.file(&format!("d/{n}"), b"");
        many = many.file(&format!("d{}/{n}", n % 10), b"");
    }
    let large = Tar::new().file("large", &vec![1; 2 << 20]).done();
    // Each is well within the limits of one entry.
    let (long, value) = (format!("{}/", "x".repeat(250)).repeat(12), [b'v'; 3000]);
    let (mut names, mut texts, mut marks) = (Tar::new(), Tar::new(), Tar::new());
    let (mut pieces, mut map) = (Tar::new(), String::from("0,1"));
    (1..200).for_each(|n| map.push_str(&format!(",{},1", n * 2)));
    for n in 0..49 {
        names = names.file(&format!("{long}{}", n % 10), b"");
        texts = texts.link(T::Symlink, &format!("d{}/{n}", n % 10), &long);
        marks = marks.pax(&[("SCHILY.xattr.user.x", &value)]);
        marks = marks.file(&format!("d{}/{n}", n % 10), b"");
        let records = [
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", b"400"),
        ];
        pieces = pieces
            .pax(&records)
            .file(&format!("d{}/{n}", n % 10), &[1; 200]);
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&Tar::new().file("zeros", &vec![0; 900 << 10]).done())
        .unwrap();
    // Behind the end mark as well.
    let mut tail = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    tail.write_all(&Tar::new().file("a", b"x").done()).unwrap();
    tail.write_all(&vec![0; 900 << 10]).unwrap();
    for (what, bytes, word) in [
        ("a flood of devices", devices.done(), "dev5"),
        ("a crowded directory", crowd.done(), "d/20"),
        ("a flood of entries", many.done(), "d0/40"),
        ("a large archive", large, "more than"),
        ("a flood of long names", names.done(), "64 KiB of memory"),
        ("a flood of long links", texts.done(), "64 KiB of memory"),
        ("a flood of attributes", marks.done(), "64 KiB of memory"),
        ("a flood of holes", pieces.done(), "64 KiB of memory"),
        ("a bomb", gzip.finish().unwrap(), "each of its bytes"),
        (
            "a bomb behind the end",
            tail.finish().unwrap(),
            "each of its bytes",
        ),
    ] {
        let text = refused(what, &bytes, few);
        assert!(
            text.contains(word),
            "{what}: '{text}' does not say '{word}'"
        );
    }
}

/// An archive with every kind of entry and header, cut behind each of its blocks and in the middle of each: never an
/// image, however it is packed.
#[test]
fn what_is_cut_at_any_block_is_refused() {
    let whole = Tar::new()
        .global(&[("comment", b"an archive")])
        .directory("etc/")
        .file("etc/passwd", &[b'x'; 1300])
        .long(&"long/".repeat(30))
        .file("long", b"by its long name")
        .pax(&[("SCHILY.xattr.user.note", b"kept"), ("mtime", b"1.5")])
        .file("noted", &[7; 600])
        .link(T::Symlink, "bin", &"usr/".repeat(40))
        .link(T::Link, "again", "etc/passwd")
        .device("null", 1, 3)
        .raw(header(T::Fifo, "pipe", 0), b"")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"1048580"),
        ])
        .file(
            "GNUSparseFile.0/holes",
            &sparse_1_0(&[(1 << 20, 4)], b"data"),
        )
        .file("last", b"x")
        .done();
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), &whole).unwrap();
    // Behind the first block of the end mark it is whole.
    let cuts = (0..whole.len() - 1024).step_by(256);
    assert!(cuts.len() > 50, "{} cuts", cuts.len());
    for cut in cuts {
        let text = refused(&format!("cut at {cut}"), &whole[..cut], Limits::default());
        assert!(
            text.contains("cut short") || cut < 512,
            "cut at {cut}: {text}"
        );
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    for packed in [
        gzip.finish().unwrap(),
        zstd::bulk::compress(&whole, 1).unwrap(),
    ] {
        for cut in (0..packed.len()).step_by(64).chain([packed.len() - 1]) {
            let what = format!("packed, cut at {cut}");
            refused(&what, &packed[..cut], Limits::default());
        }
    }
}

/// Names are bytes: whatever a file system takes comes out as it went in, and so does what they lead to.
#[test]
fn any_name_is_the_name_it_was() {
    let names: [&[u8]; 14] = [
        b"new\nline",
        b"tab\there",
        b"quote'single",
        b"quote\"double",
        b"back\\slash",
        b"back\\x41slash",
        b"esc\x1b[31mred",
        b"bell\x07del\x7f",
        b"\xff\xfe no UTF-8",
        b"\xc3\x28 half",
        b" blanks ",
        b"-rf",
        b"*?[a-z]$(id)`id`;&|",
        b"...",
    ];
    let longest = [b'n'; 255];
    let names = names.into_iter().chain([&longest[..]]);
    let mut tar = Tar::new();
    for name in names.clone() {
        tar = tar.pax(&[("path", name)]).file("x", name);
        let below = [b"d", name, name].join(&b'/');
        tar = tar.pax(&[("path", &below)]).file("x", b"below");
        let link = [b"links/", name].concat();
        let records: [(&str, &[u8]); 2] = [("path", &link), ("linkpath", name)];
        tar = tar.pax(&records).link(T::Symlink, "x", "y");
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let image = import(dir.path(), &tar.done()).unwrap();
    let view = FileSystem::open(std::fs::File::open(store.rootfs(&image)).unwrap()).unwrap();
    let root = view.node(FileSystem::<std::fs::File>::ROOT).unwrap();
    let known = [&b"d"[..], b"links", b"lost+found"];
    let mut seen: Vec<_> = view
        .entries(&root)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    seen.retain(|name| !known.contains(&&name[..]));
    assert_eq!(seen.len(), names.clone().count());
    for name in names {
        let read = |path: &[u8], len: usize| {
            let node = view.resolve(path, false).unwrap();
            let mut bytes = vec![0; len];
            view.read(&view.content(&node).unwrap(), 0, &mut bytes)
                .unwrap();
            (node.size, bytes)
        };
        let told = String::from_utf8_lossy(name);
        assert_eq!(
            read(name, name.len()),
            (name.len() as u64, name.to_vec()),
            "{told:?}"
        );
        let below = [b"d", name, name].join(&b'/');
        assert_eq!(read(&below, 5).1, b"below", "{told:?}");
        let link = view.resolve(&[b"links/", name].concat(), false).unwrap();
        assert_eq!(view.target(&link).unwrap(), name, "{told:?}");
    }
}

/// The same bytes again and again.
struct Endless(Vec<u8>, usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = (&self.0[self.1..]).read(buffer)?;
        self.1 = (self.1 + n) % self.0.len();
        Ok(n)
    }
}

/// Is cancelled when it was asked so often.
struct CancelledAt(AtomicUsize);

impl Progress for CancelledAt {
    fn stage(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) > 100
    }
}

/// What comes before an entry, or instead of one, has the same limits, and can be cancelled.
#[test]
fn what_is_no_entry_has_an_end_too() {
    let block = |tar: Tar| {
        let mut bytes = tar.done();
        bytes.truncate(bytes.len() - 1024);
        bytes
    };
    let global = block(Tar::new().global(&[("comment", b"again")]));
    let local = block(Tar::new().pax(&[("comment", b"again")]));
    let long = block(Tar::new().long("again"));
    let label = block(Tar::new().raw(header(T::new(b'V'), "label", 1 << 40), b""));
    let limited = |bytes: &[u8], limits: Limits, progress: &dyn Progress| {
        let dir = tempfile::tempdir().unwrap();
        let import = Import {
            names: vec!["test".to_owned()],
            ..Import::default()
        };
        let mut source = Endless(bytes.to_vec(), 0);
        let error = store(dir.path())
            .within(limits)
            .import(&mut source, &import, progress);
        let error = error.unwrap_err();
        assert!(names(&dir.path().join("images")).is_empty());
        error
    };
    let few = Limits {
        entries: 50,
        ..Limits::default()
    };
    for headers in [&global, &local, &long] {
        let error = limited(headers, few, &Silent).to_string();
        assert!(error.contains("extended header more than 150"), "{error}");
    }
    // What archivers write before each entry leaves it as many entries.
    let tar = (0..50).fold(Tar::new(), |tar, n| {
        let tar = tar.pax(&[("mtime", b"1.5")]).long(&format!("f{n}"));
        tar.file("long", b"x")
    });
    let dir = tempfile::tempdir().unwrap();
    import_within(dir.path(), &tar.done(), few).unwrap();
    let small = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let error = limited(&label, small, &Silent);
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    for bytes in [&global, &local, &long, &label] {
        let cancelled = CancelledAt(AtomicUsize::new(0));
        let error = limited(bytes, Limits::default(), &cancelled);
        assert!(matches!(error, Error::Cancelled), "{error}");
    }
}

/// What looks hostile and is not: names and links are data.
#[test]
fn what_is_only_odd_comes_out_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    let tar = Tar::new()
        .directory("./")
        .file("/absolute", b"inside")
        .file("./a\nb", b"newline")
        .raw(header(T::Regular, "x", 3), b"raw")
        .bytes_name(b"bad\xff\xfeutf8", b"bytes")
        .file("unit\\x2d.service", b"backslash")
        .link(T::Symlink, "etc/out", "/../../../../../../etc/passwd")
        .link(T::Symlink, "usr/lib/away", &outside.path(""))
        // What is there on this machine is there in the image too, and is another.
        .file(&outside.path("named"), b"by its path")
        .file("usr/lib/away/file", b"through a link")
        .link(T::Link, "linked", "usr/lib/away/file")
        // Through a symlink inside the image, absolute and relative: where they lead inside.
        .link(T::Symlink, "lib", "usr/lib")
        .file("lib/through", b"relative")
        .link(T::Symlink, "usr/lib64", "/usr/lib")
        .file("usr/lib64/absolute", b"rooted")
        .link(T::Symlink, "up", "../../../../../../usr")
        .file("up/clamped", b"clamped")
        // Twice: the last one stays, and a symlink is replaced, never written through.
        .file("twice", b"first")
        .link(T::Symlink, "twice", &outside.path("file"))
        .file("twice", b"last")
        .link(T::Link, "again", "./twice")
        .link(T::Link, "again", "twice")
        .directory("empty")
        .file("empty", b"now a file")
        .done();
    let store = store(dir.path());
    let image = import(dir.path(), &tar).unwrap();
    outside.is_untouched("what is only odd");
    let rootfs = store.rootfs(&image);
    for (path, content) in [
        ("/absolute", "inside"),
        ("\"/unit\\x2d.service\"", "backslash"),
        ("/usr/lib/through", "relative"),
        ("/usr/lib/absolute", "rooted"),
        ("/usr/clamped", "clamped"),
        ("/twice", "last"),
        ("/again", "last"),
        ("/empty", "now a file"),
        (&outside.path("named"), "by its path"),
        (&outside.path("file"), "through a link"),
        ("/linked", "through a link"),
    ] {
        assert_eq!(look(&rootfs, &format!("cat {path}")), content, "{path}");
    }
    let link = look(&rootfs, "stat /etc/out");
    assert!(
        link.contains("Fast link dest: \"/../../../../../../etc/passwd\""),
        "{link}"
    );
    let listed = look(&rootfs, "ls -p /");
    assert!(listed.contains("/a\nb/"), "{listed}");
    assert!(look(&rootfs, "stat /twice").contains("Links: 2"));
}

/// Setuid, owners, times, attributes, devices, holes.
#[test]
fn what_an_archive_says_is_in_the_image() {
    let dir = tempfile::tempdir().unwrap();
    // A capability as setcap(8) stores it: cap_net_raw+ep, revision 2 (capabilities(7)).
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut suid = header(T::Regular, "bin/su", 2);
    suid.set_mode(0o4755);
    suid.set_uid(1000);
    suid.set_gid(1001);
    suid.set_mtime(1_000_000_000);
    suid.set_cksum();
    let mut sticky = header(T::Directory, "tmp", 0);
    sticky.set_mode(0o1777);
    sticky.set_mtime(1_000_000_000);
    sticky.set_cksum();
    let tar = Tar::new()
        .raw(suid, b"su")
        .raw(sticky, b"")
        .file("tmp/in", b"x")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"kept"),
            // What other systems' archivers write, and ext4 has no form for: left out, as docker does.
            ("SCHILY.xattr.com.apple.provenance", b"\x01\x02"),
            ("SCHILY.xattr.btrfs.compression", b"zstd"),
            ("SCHILY.xattr.system.nfs4_acl", b"\0\0\0\x03"),
            ("mtime", b"1234567890.5"),
            ("uid", b"3000000"),
        ])
        .file("bin/ping", b"ping")
        .device("dev/null", 1, 3)
        .raw(header(T::Fifo, "run/pipe", 0), b"")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"1073741824"),
        ])
        .file(
            "GNUSparseFile.0/holes",
            &sparse_1_0(&[(1 << 20, 4)], b"data"),
        )
        .directory("root")
        .file("root/.profile", b"mine")
        .done();
    let store = store(dir.path());
    let image = import(dir.path(), &tar).unwrap();
    let rootfs = store.rootfs(&image);
    let stat = |path: &str| look(&rootfs, &format!("stat {path}"));
    let su = stat("/bin/su");
    assert!(
        su.contains("Mode:  04755") && su.contains("User:  1000") && su.contains("Group:  1001"),
        "{su}"
    );
    assert!(su.contains("mtime: 0x3b9aca00"), "{su}");
    let tmp = stat("/tmp");
    assert!(
        tmp.contains("Mode:  01777") && tmp.contains("mtime: 0x3b9aca00"),
        "{tmp}"
    );
    let ping = stat("/bin/ping");
    assert!(ping.contains("User: 3000000"), "{ping}");
    assert!(look(&rootfs, "ea_get /bin/ping user.note").contains("kept"));
    let attributes = look(&rootfs, "ea_list /bin/ping");
    assert!(attributes.contains("security.capability"), "{attributes}");
    assert!(
        !["apple", "btrfs", "nfs4"]
            .iter()
            .any(|name| attributes.contains(name)),
        "{attributes}"
    );
    assert!(stat("/dev/null").contains("Type: character special"));
    assert!(stat("/dev/null").contains("01:03"), "{}", stat("/dev/null"));
    assert!(stat("/run/pipe").contains("Type: FIFO"));
    let holes = stat("/holes");
    assert!(
        holes.contains("Size: 1073741824") && holes.contains("Blockcount: 8"),
        "{holes}"
    );
    assert!(image.size < 64 << 20, "holes stay holes: {}", image.size);
    // R-GUEST-7: /root lies beside the image for new work disks.
    assert_eq!(
        tool(
            "tar",
            &[
                "-xOf".as_ref(),
                &store.home(&image),
                "root/.profile".as_ref()
            ]
        ),
        "mine"
    );
}

/// The content of a PAX sparse file of form 1.0: its map, padded to a block, then the data.
fn sparse_1_0(pieces: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut content = map.into_bytes();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend_from_slice(data);
    content
}
