//! What a view makes of disks that were made for it, and of damage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use banger_disks::{Disks, RootDisks, View, What, pack};
use banger_ext4::{Options, ReadAt};
use common::{Is, Maker, Sink, overlay, packed, told};
use proptest::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// What is in a view below a path, files with what they hold.
fn seen<R: ReadAt>(view: &View<R>, path: &str) -> Vec<String> {
    let sink = packed(view, path, false).unwrap();
    let told = told(&sink.bytes);
    let lines = told.iter().map(|(path, (_, bytes, _))| {
        let text = String::from_utf8_lossy(bytes);
        let path = path.strip_prefix("./").unwrap_or(path);
        if text.is_empty() {
            path.to_owned()
        } else {
            format!("{path}={text}")
        }
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn refused<R: ReadAt>(view: &View<R>, path: &str) -> String {
    let error = packed(view, path, false).err().expect("a refusal");
    error.to_string()
}

#[test]
fn changes_hide_replace_and_join() {
    let base = Maker::of(&[
        ("same/gone", Is::File("gone")),
        ("same/kept", Is::File("kept")),
        ("same/changed", Is::File("old")),
        ("whole/gone", Is::File("gone")),
        ("new/below", Is::File("below")),
        ("file-to-dir", Is::File("file")),
        ("dir-to-file/x", Is::File("x")),
        ("dir-to-link/x", Is::File("x")),
        ("odd", Is::Char(0, 0)),
    ]);
    let changes = Maker::of(&[
        ("upper/same/gone", Is::Char(0, 0)),
        ("upper/same/changed", Is::File("new")),
        ("upper/same/made", Is::File("made")),
        ("upper/whole", Is::Char(0, 0)),
        ("upper/new/above", Is::File("above")),
        ("upper/file-to-dir/y", Is::File("y")),
        ("upper/dir-to-file", Is::File("now")),
        ("upper/dir-to-link", Is::Link("same")),
        ("upper/never", Is::Char(0, 0)),
        ("work/work/x", Is::File("nobody's")),
    ])
    .mark("upper/new", "trusted.overlay.opaque", "y")
    .mark("upper/same", "trusted.overlay.origin", "whatever");
    let view = overlay(base.disk(), changes.disk());
    assert_eq!(
        seen(&view, "/"),
        [
            "dir-to-file=now",
            "dir-to-link",
            "file-to-dir/",
            "file-to-dir/y=y",
            "lost+found/",
            "new/",
            "new/above=above",
            "same/",
            "same/changed=new",
            "same/kept=kept",
            "same/made=made",
        ]
    );
    assert_eq!(
        refused(&view, "/whole/gone"),
        "cannot read '/whole/gone': No such file or directory"
    );
    assert_eq!(
        refused(&view, "/odd"),
        "cannot read '/odd': No such file or directory"
    );
}

#[test]
fn moved_directories_bring_what_was_below() {
    let base = Maker::of(&[
        ("a/old/x", Is::File("x")),
        ("a/old/deep/y", Is::File("y")),
        ("b/z", Is::File("z")),
        ("file", Is::File("file")),
    ]);
    let redirect = "trusted.overlay.redirect";
    let changes = Maker::of(&[
        ("upper/a/old", Is::Char(0, 0)),
        ("upper/a/new/own", Is::File("own")),
        ("upper/b/moved/x", Is::Char(0, 0)),
        ("upper/c/of-file", Is::Dir),
        ("upper/c/of-none", Is::Dir),
    ])
    .mark("upper/a/new", redirect, "old")
    .mark("upper/b/moved", redirect, "/a/old")
    .mark("upper/c/of-file", redirect, "/file")
    .mark("upper/c/of-none", redirect, "/no/such");
    let view = overlay(base.disk(), changes.disk());
    assert_eq!(
        seen(&view, "/a"),
        [
            "new/",
            "new/deep/",
            "new/deep/y=y",
            "new/own=own",
            "new/x=x"
        ]
    );
    assert_eq!(
        seen(&view, "/b"),
        ["moved/", "moved/deep/", "moved/deep/y=y", "z=z"]
    );
    // Two that lead to the same place: no kernel makes that, and a walk must end.
    assert!(refused(&view, "/").contains("in two others"));
    assert_eq!(seen(&view, "/c"), ["of-file/", "of-none/"]);
}

#[test]
fn links_are_followed_in_the_view() {
    let base = Maker::of(&[
        ("etc/passwd", Is::File("base's")),
        ("lower", Is::Link("/etc/passwd")),
        ("through", Is::Link("../../../../etc")),
        ("loop", Is::Link("loop")),
        ("target", Is::Char(0, 0)),
        ("into-upper", Is::Link("made/x")),
    ]);
    let changes = Maker::of(&[
        ("upper/etc/passwd", Is::File("changed")),
        ("upper/made/x", Is::File("x")),
        ("upper/abs", Is::Link("/made")),
        ("upper/nowhere", Is::Link("/etc/hostname-of-nobody")),
    ]);
    let view = overlay(base.disk(), changes.disk());
    let text = |path: &str| {
        let sink = packed(&view, path, true).map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8(told(&sink.bytes)["."].1.clone()).unwrap())
    };
    assert_eq!(text("/lower").unwrap(), "changed");
    assert_eq!(text("/through/passwd").unwrap(), "changed");
    assert_eq!(text("/into-upper").unwrap(), "x");
    assert_eq!(text("/abs/../etc/./passwd").unwrap(), "changed");
    for (path, why) in [
        ("/loop", "Too many levels of symbolic links"),
        ("/nowhere", "No such file or directory"),
        ("/target", "No such file or directory"),
        ("/etc/passwd/", "Not a directory"),
        ("/etc/passwd/..", "Not a directory"),
        ("/etc/passwd/x", "Not a directory"),
        ("/lower/.", "Not a directory"),
    ] {
        assert_eq!(text(path), Err(format!("cannot read '{path}': {why}")));
    }
    let long = format!("/{}", "n".repeat(256));
    assert!(text(&long).unwrap_err().ends_with("File name too long"));
    assert!(
        text(&"/x".repeat(2048))
            .unwrap_err()
            .ends_with("File name too long")
    );
    // A link itself is an entry, unless it is followed.
    assert_eq!(seen(&view, "/abs"), ["."]);
    assert_eq!(seen(&view, "/abs/"), ["x=x"]);
}

#[test]
fn what_the_agent_mounts_is_seen_and_what_is_below_is_not() {
    let base = Maker::of(&[
        ("root/image's", Is::File("")),
        ("run/left", Is::File("")),
        ("dev/null", Is::Char(1, 3)),
        ("lib", Is::Link("usr/lib")),
        ("usr/lib/modules/6.1/", Is::Dir),
        ("usr/lib/modules/6.2/own", Is::File("")),
        ("var/lib/docker/image's", Is::File("")),
        ("var/lib/containerd", Is::Dir),
    ]);
    let changes = Maker::of(&[
        ("upper/root/hidden", Is::File("")),
        ("engines/docker/overlay2/l", Is::Dir),
        ("engines/docker/overlay2/gone", Is::Char(0, 0)),
        ("engines/containerd.new/half", Is::File("")),
    ])
    .mark("engines/docker/overlay2", "trusted.overlay.opaque", "y");
    let work = Maker::of(&[
        ("root/.profile", Is::File("mine")),
        ("root.new/x", Is::File("")),
    ]);
    let modules = Maker::of(&[("kernel/x.ko", Is::File("elf"))]);
    let view = |release: &str| {
        View::open(Disks {
            root: RootDisks::Overlay {
                base: base.disk(),
                changes: changes.disk(),
            },
            work: Some(work.disk()),
            modules: Some((release.to_owned(), modules.disk())),
        })
        .unwrap()
    };
    let first = view("6.1");
    assert_eq!(seen(&first, "/root/."), [".profile=mine"]);
    assert_eq!(seen(&first, "/run/."), [""; 0]);
    assert_eq!(seen(&first, "/dev/."), [""; 0]);
    let modules = seen(&first, "/lib/modules/.");
    let with = [
        "6.1/",
        "6.1/kernel/",
        "6.1/kernel/x.ko=elf",
        "6.1/lost+found/",
        "6.2/",
        "6.2/own",
    ];
    assert_eq!(modules, with);
    assert_eq!(
        seen(&view("6.2"), "/lib/modules/."),
        ["6.1/", "6.2/", "6.2/own"]
    );
    // A whiteout of a container engine's own overlay is a device here.
    let docker = packed(&first, "/var/lib/docker", false).unwrap();
    assert_eq!(
        docker.warnings,
        ["'/var/lib/docker/overlay2/gone' is a device and left out"]
    );
    assert_eq!(seen(&first, "/var/lib/containerd/."), [""; 0]);
    assert_eq!(seen(&first, "/root/../root/.."), seen(&first, "/"));
}

#[test]
fn disks_that_were_never_formatted_are_empty() {
    let base = Maker::of(&[("root/image's", Is::File("x"))]);
    let blank = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file
    };
    for work in [blank(), tempfile::tempfile().unwrap()] {
        let root = RootDisks::Overlay {
            base: base.disk(),
            changes: blank(),
        };
        let (work, modules) = (Some(work), None);
        let view = View::open(Disks {
            root,
            work,
            modules,
        })
        .unwrap();
        assert_eq!(seen(&view, "/root"), ["image's=x"]);
    }
    let noise = blank();
    noise.write_all_at(b"noise", 1500).unwrap();
    let error = View::open(Disks {
        root: RootDisks::One(base.disk()),
        work: Some(noise),
        modules: None,
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the work disk cannot be read: this is no ext4 file system: its superblock has no mark"
    );
}

#[test]
fn names_of_one_file_and_what_is_left_out() {
    let base = Maker::of(&[
        ("d/a", Is::File("one")),
        ("d/b", Is::Same("d/a")),
        ("d/c", Is::Same("d/a")),
        ("d/socket", Is::Socket),
        ("d/pipe", Is::Fifo),
    ]);
    // One name was written to: it is a file of its own now.
    let changes = Maker::of(&[
        ("upper/d/b", Is::File("two")),
        ("upper/d/e", Is::Same("upper/d/b")),
    ]);
    let view = overlay(base.disk(), changes.disk());
    let sink = packed(&view, "/d", false).unwrap();
    let told = told(&sink.bytes);
    assert_eq!(told["c"].2, ["a", "c"]);
    assert_eq!(told["e"].2, ["b", "e"]);
    assert_eq!(
        sink.warnings,
        [
            "'/d/pipe' is a fifo and left out",
            "'/d/socket' is a socket and left out"
        ]
    );
    assert_eq!(
        refused(&view, "/d/pipe"),
        "this is neither file nor directory: '/d/pipe'"
    );
}

#[test]
fn what_cannot_be_told_is_refused_in_words() {
    let base = Maker::of(&[("d/x", Is::File("x"))]);
    for (path, name, value, says) in [
        (
            "upper/d",
            "trusted.overlay.redirect",
            "../x",
            "redirected to what is no path",
        ),
        (
            "upper/d",
            "trusted.overlay.opaque",
            "x",
            "start the VM and copy from there",
        ),
        ("upper/d/x", "trusted.overlay.metacopy", "", "metacopy"),
    ] {
        let changes = Maker::of(&[("upper/d/x", Is::File("x"))]).mark(path, name, value);
        let view = overlay(base.disk(), changes.disk());
        let why = refused(&view, "/");
        assert!(why.contains(says), "{why}");
    }
    // A directory that says it came from the root.
    let redirect = "trusted.overlay.redirect";
    let changes = Maker::of(&[("upper/e", Is::Dir), ("upper/f", Is::Dir)])
        .mark("upper/e", redirect, "/")
        .mark("upper/f", redirect, "/d");
    let view = overlay(base.disk(), changes.disk());
    assert!(refused(&view, "/").contains("no path"));
}

#[test]
fn a_copy_that_nobody_wants_ends() {
    let base = Maker::of(&[("d/x", Is::File("x"))]);
    let view = overlay(base.disk(), Maker::new().disk());
    let mut sink = Sink::default();
    let what = What {
        path: b"/",
        name: b"",
        follow: false,
    };
    let error = pack(&view, &what, &mut sink, &|| true).unwrap_err();
    assert!(error.is_lost_stream(), "{error}");
}

fn bytes_of(file: &File) -> Vec<u8> {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    ReadAt::read_exact_at(file, &mut bytes, 0).unwrap();
    // Checksums would keep damage from being looked at.
    let features = u32::from_le_bytes(bytes[1124..1128].try_into().unwrap()) & !0x400;
    bytes[1124..1128].copy_from_slice(&features.to_le_bytes());
    bytes
}

/// Base, changes, and where the changes have something: most of a disk is zeros.
type Pair = (Vec<u8>, Vec<u8>, Vec<usize>);

fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let base = Maker::of(&[
            ("a/b/c/file", Is::File("text")),
            ("a/link", Is::Link("b")),
            ("e/f", Is::File("more")),
        ]);
        let changes = Maker::of(&[
            ("upper/a/b/new", Is::File("new")),
            ("upper/e", Is::Char(0, 0)),
            ("upper/moved/g", Is::File("g")),
        ])
        .mark("upper/moved", "trusted.overlay.redirect", "/a/b/c");
        let mut options = Options::new(*b"banger-disks-tst");
        options.grow_to = 0;
        let of = |maker: &Maker| bytes_of(&maker.write(&options));
        let changes = of(&changes);
        let full = (0..changes.len()).filter(|at| changes[*at] != 0);
        let full = full.collect();
        (of(&base), changes, full)
    })
}

proptest! {
    /// Whatever a guest wrote, a copy ends without a panic.
    #[test]
    fn damage_ends_in_words(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let (base, mut changes, full) = pair().clone();
        for (index, byte) in places {
            changes[full[index.index(full.len())]] = byte;
        }
        let root = RootDisks::Overlay { base, changes };
        if let Ok(view) = View::open(Disks { root, work: None, modules: None }) {
            for path in ["/", "/a/link/c/file", "/moved/"] {
                let mut sink = Sink::default();
                let what = What { path: path.as_bytes(), name: b"", follow: true };
                if let Err(error) = pack(&view, &what, &mut Bounded(&mut sink), &|| false) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}

/// A file may say that it is of any size: nobody takes more than this.
struct Bounded<'a>(&'a mut Sink);

impl banger_tree::Output for Bounded<'_> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.0.bytes.len() > 1 << 20 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.space()
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.0.advance(count)
    }

    fn warn(&mut self, text: String) {
        self.0.warn(text);
    }
}
