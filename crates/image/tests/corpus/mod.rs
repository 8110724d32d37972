//! Archives of strangers that are refused, and what they aim at.

mod more;

use crate::archive::{Tar, header, names};
use std::{fs, os::unix::fs::MetadataExt, path::Path};
use tar::EntryType as T;

/// A directory of this machine with a file in it, which archives aim at by its real path.
pub struct Outside(tempfile::TempDir, Vec<(i64, i64)>);

impl Outside {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "untouched").unwrap();
        let changed = Outside::changed(dir.path());
        Outside(dir, changed)
    }

    /// The path of something in it, absolute.
    pub fn path(&self, name: &str) -> String {
        let path = self.0.path().canonicalize().unwrap().join(name);
        path.into_os_string().into_string().unwrap()
    }

    /// When anything was last done to it: content, mode, owner, names, also those that are gone again.
    fn changed(dir: &Path) -> Vec<(i64, i64)> {
        let of = |path: &Path| {
            let there = fs::symlink_metadata(path).unwrap();
            (there.ctime(), there.ctime_nsec())
        };
        vec![of(dir), of(&dir.join("file"))]
    }

    #[track_caller]
    pub fn is_untouched(&self, what: &str) {
        let dir = self.0.path();
        assert_eq!(names(dir), ["file"], "{what} reached outside");
        let content = fs::read_to_string(dir.join("file")).unwrap();
        assert_eq!(content, "untouched", "{what} reached outside");
        assert_eq!(Outside::changed(dir), self.1, "{what} reached outside");
    }
}

/// What it is, the archive, and what the error must say.
pub type Case = (&'static str, Vec<u8>, Words);
/// Parts of a message.
pub type Words = &'static [&'static str];

/// Archives that are refused for an entry.
pub fn corpus(outside: &Outside) -> Vec<Case> {
    let mut all = first(outside);
    all.extend(more::more(outside));
    all
}

fn first(outside: &Outside) -> Vec<Case> {
    // From wherever it is looked at.
    let up = "../".repeat(40);
    let (evil, there) = (outside.path("evil"), outside.path("file"));
    let dir = outside.path("");
    vec![
        (
            "a name with ..",
            Tar::new().file(&format!("a/{up}{evil}"), b"x").done(),
            &["a/../../", "/evil'", "'..'"],
        ),
        (
            "a name that begins with ..",
            Tar::new().file(&format!("{up}{evil}"), b"x").done(),
            &["'../../", "/evil'", "'..'"],
        ),
        (
            "an absolute name with ..",
            Tar::new().file(&format!("/{up}{evil}"), b"x").done(),
            &["'/../../", "/evil'", "'..'"],
        ),
        (
            "a directory called ..",
            Tar::new().directory("usr/..").done(),
            &["usr/.."],
        ),
        (
            "a PAX name with ..",
            Tar::new()
                .pax(&[("path", format!("x/{up}{evil}").as_bytes())])
                .file("fine", b"x")
                .done(),
            &["'x/../../", "/evil'", "'..'"],
        ),
        (
            "a PAX name with NUL",
            Tar::new()
                .pax(&[("path", b"x\0y")])
                .file("fine", b"x")
                .done(),
            &["NUL", "x\\u{0}y"],
        ),
        (
            "a name of 300 bytes",
            Tar::new().long(&"n".repeat(300)).file("x", b"x").done(),
            &["longer"],
        ),
        (
            "a path of 5000 bytes",
            Tar::new().long(&"dir/".repeat(1250)).file("x", b"x").done(),
            &["longer"],
        ),
        (
            "a hard link out",
            Tar::new()
                .file("a", b"x")
                .link(T::Link, "b", &format!("{up}{there}"))
                .done(),
            &["'b'", "target"],
        ),
        (
            "a hard link to what is only on the host",
            Tar::new().link(T::Link, "b", &there).done(),
            &["'b'", "/file'", "no entry"],
        ),
        (
            "a hard link through a symlink out",
            Tar::new()
                .link(T::Symlink, "out", &dir)
                .link(T::Link, "b", "out/file")
                .done(),
            &["'b'", "'out/file'", "no entry"],
        ),
        (
            "a hard link through a relative symlink out",
            Tar::new()
                .link(T::Symlink, "out", &format!("{up}{dir}"))
                .link(T::Link, "b", "out/file")
                .done(),
            &["'b'", "'out/file'", "no entry"],
        ),
        (
            "a file through a symlink out",
            Tar::new()
                .link(T::Symlink, "out", &dir)
                .file("out/evil", b"x")
                .done(),
            &["'out/evil'", "no directory"],
        ),
        (
            "a file through a relative symlink out",
            Tar::new()
                .link(T::Symlink, "out", &format!("{up}{dir}"))
                .file("out/file", b"x")
                .done(),
            &["'out/file'", "no directory"],
        ),
        (
            "a file through a hard link to a symlink out",
            Tar::new()
                .link(T::Symlink, "out", &dir)
                .link(T::Link, "also", "out")
                .file("also/evil", b"x")
                .done(),
            &["'also/evil'", "no directory"],
        ),
        (
            "a directory through a symlink out",
            Tar::new()
                .link(T::Symlink, "out", &dir)
                .directory("out/evil")
                .done(),
            &["'out/evil'", "no directory"],
        ),
        (
            "a hard link to a directory",
            Tar::new().directory("d").link(T::Link, "b", "d").done(),
            &["'b'", "directory"],
        ),
        (
            "a hard link to itself",
            Tar::new().link(T::Link, "b", "b").done(),
            &["'b'", "no entry"],
        ),
        (
            "a hard link to what comes later",
            Tar::new().link(T::Link, "b", "a").file("a", b"x").done(),
            &["'b'", "no entry"],
        ),
        (
            "a file below a file",
            Tar::new().file("a", b"x").file("a/b", b"x").done(),
            &["a/b", "no directory"],
        ),
        (
            "a file below a dangling symlink",
            Tar::new()
                .link(T::Symlink, "a", "nowhere")
                .file("a/b", b"x")
                .done(),
            &["a/b", "no directory"],
        ),
        (
            "a file below symlinks in a circle",
            Tar::new()
                .link(T::Symlink, "a", "b")
                .link(T::Symlink, "b", "a")
                .file("a/c", b"x")
                .done(),
            &["a/c", "circle"],
        ),
        (
            "a file below a device",
            Tar::new().device("null", 1, 3).file("null/x", b"x").done(),
            &["null/x", "no directory"],
        ),
        (
            "a symlink where a full directory is",
            Tar::new()
                .file("lib/x", b"x")
                .link(T::Symlink, "lib", "usr/lib")
                .done(),
            &["'lib'", "directory with entries"],
        ),
        (
            "a file in the root's place",
            Tar::new()
                .file("./", b"")
                .raw(header(T::Fifo, "/", 0), b"")
                .done(),
            &["root directory"],
        ),
        (
            "a symlink without a target",
            Tar::new().link(T::Symlink, "s", "").done(),
            &["'s'", "target"],
        ),
        (
            "an entry of an unknown kind",
            Tar::new().raw(header(T::new(b'Q'), "q", 0), b"").done(),
            &["'q'", "unknown kind"],
        ),
        (
            "a map of holes behind the end",
            Tar::new()
                .pax(&[("GNU.sparse.map", b"9,5"), ("GNU.sparse.size", b"10")])
                .file("s", b"12345")
                .done(),
            &["'s'", "holes"],
        ),
        (
            "a map of holes that overlaps",
            Tar::new()
                .pax(&[("GNU.sparse.map", b"0,3,2,2"), ("GNU.sparse.size", b"10")])
                .file("s", b"12345")
                .done(),
            &["'s'", "holes"],
        ),
        (
            "a map of holes that goes round",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", b"18446744073709551615,2"),
                    ("GNU.sparse.size", b"10"),
                ])
                .file("s", b"12")
                .done(),
            &["'s'", "holes"],
        ),
        (
            "a file of 16 EiB made of holes",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", b"0,0"),
                    ("GNU.sparse.size", b"18446744073709551615"),
                ])
                .file("s", b"")
                .done(),
            &["'s'", "longer"],
        ),
        (
            "an extended attribute of 64 KiB",
            Tar::new()
                .pax(&[("SCHILY.xattr.user.big", &[b'x'; 60_000])])
                .file("f", b"x")
                .done(),
            &["'f'", "extended attributes"],
        ),
        (
            "a thousand extended attributes",
            (0..1000)
                .fold(Tar::new(), |tar, n| {
                    tar.pax(&[(&format!("SCHILY.xattr.user.{n}"), b"")])
                })
                .file("f", b"x")
                .done(),
            &["'f'", "extended attributes"],
        ),
        (
            "extended attributes of everything",
            Tar::new()
                .global(&[("SCHILY.xattr.user.x", b"x")])
                .file("f", b"x")
                .done(),
            &["'pax_global_header'", "every entry"],
        ),
        (
            "a time of everything with 20000 digits",
            Tar::new()
                .global(&[("mtime", &[b'1'; 20_000])])
                .file("f", b"x")
                .done(),
            &["'pax_global_header'", "too long"],
        ),
        (
            "a name of everything",
            Tar::new().global(&[("path", b"x")]).file("f", b"x").done(),
            &["'pax_global_header'", "every entry"],
        ),
        (
            "a target of everything",
            Tar::new()
                .global(&[("linkpath", b"x")])
                .file("f", b"x")
                .done(),
            &["'pax_global_header'", "every entry"],
        ),
        (
            "an entry with headers of 4 MB",
            (0..5)
                .fold(Tar::new(), |tar, _| {
                    tar.pax(&[("linkpath", &[b'x'; 900_000])])
                })
                .file("f", b"x")
                .done(),
            &["'f'", "too long"],
        ),
    ]
}
