//! More archives that are refused for an entry, by what they go for: numbers, names and targets, places, maps of holes.

use super::{Case, Outside, Words};
use crate::archive::{Tar, header};
use tar::{EntryType as T, Header};

/// A header with these bytes in one of its fields.
fn with_field(kind: T, name: &str, at: usize, bytes: &[u8]) -> Header {
    let mut header = header(kind, name, 0);
    header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
    header.set_cksum();
    header
}

/// A POSIX header, whose name has a part before it.
fn ustar(prefix: &str, name: &str) -> Header {
    let mut header = Header::new_ustar();
    let bytes = header.as_mut_bytes();
    bytes[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(T::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    header
}

/// All of them.
pub fn more(outside: &Outside) -> Vec<Case> {
    let mut all = numbers();
    all.extend(names(outside));
    all.extend(places(outside));
    all.extend(maps());
    all
}

/// Numbers that are none, or too large for what they are.
fn numbers() -> Vec<Case> {
    let field = |what, at, bytes: &[u8], words: Words| {
        (
            what,
            Tar::new()
                .raw(with_field(T::Regular, "f", at, bytes), b"")
                .done(),
            words,
        )
    };
    let pax = |what, records: &[(&str, &[u8])], words: Words| {
        (what, Tar::new().pax(records).file("f", b"x").done(), words)
    };
    let device = |what, kind, major: &[u8; 8], minor: &[u8; 8], words: Words| {
        let numbers = [&major[..], minor].concat();
        let tar = Tar::new().raw(with_field(kind, "d", 329, &numbers), b"");
        (what, tar.done(), words)
    };
    let one = b"0000001\0";
    // Base 256, as GNU tar writes what octal digits have no room for.
    let large = [0x80, 0, 0, 1, 0, 0, 0, 0];
    vec![
        field("an owner of 33 bits", 108, &large, &["'f'", "user id"]),
        field("a group of 33 bits", 116, &large, &["'f'", "user id"]),
        field(
            "an owner that is no number",
            108,
            b"nobody\0\0",
            &["'f'", "user id"],
        ),
        field(
            "a mode that is no number",
            100,
            b"rwxrwxr\0",
            &["'f'", "number"],
        ),
        pax(
            "a PAX owner of 41 bits",
            &[("uid", b"1099511627776")],
            &["'f'", "user id"],
        ),
        pax(
            "a PAX group of 41 bits",
            &[("gid", b"1099511627776")],
            &["'f'", "user id"],
        ),
        pax(
            "a name of an attribute of 300 bytes",
            &[(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), b"v")],
            &["f'", "255 bytes"],
        ),
        pax(
            "an ACL that is none",
            &[("SCHILY.xattr.system.posix_acl_access", b"junk")],
            &["f'", "not a POSIX ACL"],
        ),
        device(
            "a device of major number 4096",
            T::Char,
            b"0010000\0",
            one,
            &["'d'", "device"],
        ),
        device(
            "a device of minor number 2^20",
            T::Block,
            one,
            b"4000000\0",
            &["'d'", "device"],
        ),
        device(
            "a device without a number",
            T::Char,
            b"seven\0\0\0",
            one,
            &["'d'", "number"],
        ),
    ]
}

/// Names and targets that lead out, or are none.
fn names(outside: &Outside) -> Vec<Case> {
    let up = "../".repeat(40);
    let there = outside.path("file");
    let long = "t".repeat(5000);
    vec![
        (
            "a POSIX name with .. before it",
            Tar::new().raw(ustar("a/../..", "evil"), b"").done(),
            &["'a/../../evil'", "'..'"],
        ),
        (
            "a PAX name that is a component too long",
            Tar::new()
                .pax(&[("path", "p".repeat(256).as_bytes())])
                .file("f", b"")
                .done(),
            &["longer"],
        ),
        (
            "a GNU long name of 1 MiB",
            Tar::new().long(&"a/".repeat(1 << 19)).file("f", b"").done(),
            &["longer"],
        ),
        (
            "a PAX hard link out",
            Tar::new()
                .pax(&[("linkpath", format!("{up}{there}").as_bytes())])
                .link(T::Link, "b", "a")
                .done(),
            &["'b'", "target", "'..'"],
        ),
        (
            "a PAX hard link to what is only on the host",
            Tar::new()
                .pax(&[("linkpath", there.as_bytes())])
                .link(T::Link, "b", "a")
                .done(),
            &["'b'", "/file'", "no entry"],
        ),
        (
            "a PAX hard link with NUL",
            Tar::new()
                .file("a", b"")
                .pax(&[("linkpath", b"a\0b")])
                .link(T::Link, "b", "a")
                .done(),
            &["'b'", "NUL"],
        ),
        (
            "a GNU hard link out",
            Tar::new()
                .link(T::Link, "b", &format!("{}{up}{there}", "a/".repeat(60)))
                .done(),
            &["'b'", "target", "'..'"],
        ),
        (
            "a symlink with NUL",
            Tar::new()
                .pax(&[("linkpath", b"a\0b")])
                .link(T::Symlink, "s", "a")
                .done(),
            &["'s'", "NUL"],
        ),
        (
            "a symlink of 5000 bytes",
            Tar::new().link(T::Symlink, "s", &long).done(),
            &["'s'", "longer"],
        ),
        (
            "a hard link of 5000 bytes",
            Tar::new().link(T::Link, "b", &long).done(),
            &["'b'", "longer"],
        ),
        (
            "a name with a newline and ..",
            Tar::new().file("a\nb/../c", b"").done(),
            &["'a\\nb/../c'", "'..'"],
        ),
        (
            "a name that is no UTF-8 and ..",
            Tar::new().bytes_name(b"\xff\xfe/../c", b"").done(),
            &["\\xff\\xfe/../c", "'..'"],
        ),
    ]
}

/// Entries where nothing can be, or something else is.
fn places(outside: &Outside) -> Vec<Case> {
    let dir = outside.path("");
    let full = || Tar::new().file("d/x", b"x");
    let out = || Tar::new().link(T::Symlink, "out", &dir);
    let chain = (0..42).fold(Tar::new().directory("l0"), |tar, n| {
        tar.link(T::Symlink, &format!("l{}", n + 1), &format!("l{n}"))
    });
    vec![
        (
            "a device through a symlink out",
            out().device("out/null", 1, 3).done(),
            &["'out/null'", "no directory"],
        ),
        (
            "a pipe through a symlink out",
            out().raw(header(T::Fifo, "out/pipe", 0), b"").done(),
            &["'out/pipe'", "no directory"],
        ),
        (
            "a symlink through a symlink out",
            out().link(T::Symlink, "out/file", "x").done(),
            &["'out/file'", "no directory"],
        ),
        (
            "a hard link put through a symlink out",
            out().file("a", b"x").link(T::Link, "out/file", "a").done(),
            &["'out/file'", "no directory"],
        ),
        (
            "a file where a full directory is",
            full().file("d", b"x").done(),
            &["'d'", "directory with entries"],
        ),
        (
            "a device where a full directory is",
            full().device("d", 1, 3).done(),
            &["'d'", "directory with entries"],
        ),
        (
            "a hard link where a full directory is",
            full().file("a", b"").link(T::Link, "d", "a").done(),
            &["'d'", "directory with entries"],
        ),
        (
            "a symlink in the root's place",
            full().link(T::Symlink, "./", "d").done(),
            &["root directory"],
        ),
        (
            "a hard link to the root",
            full().link(T::Link, "b", "/").done(),
            &["'b'", "directory"],
        ),
        (
            "a file below itself by a hard link",
            Tar::new()
                .file("a", b"")
                .link(T::Link, "b", "a")
                .file("b/c", b"")
                .done(),
            &["b/c", "no directory"],
        ),
        (
            "a file below 42 symlinks in a row",
            chain.file("l42/x", b"").done(),
            &["l42/x", "circle"],
        ),
        (
            "a file that is called lost+found",
            Tar::new().file("lost+found", b"x").done(),
            &["lost+found"],
        ),
    ]
}

/// Maps of holes that are none.
fn maps() -> Vec<Case> {
    let one = |what, map: &str, words: Words| {
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"4096"),
        ];
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        (
            what,
            Tar::new()
                .pax(&records)
                .file("GNUSparseFile.0/s", &content)
                .done(),
            words,
        )
    };
    let records = |what, map: &[u8], words: Words| {
        (
            what,
            Tar::new()
                .pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", b"4096")])
                .file("s", b"12345")
                .done(),
            words,
        )
    };
    let mut old = header(T::GNUSparse, "s", 5);
    old.as_mut_bytes()[386..410].copy_from_slice(b"00000000100\x0000000000005\0");
    old.as_mut_bytes()[410..434].copy_from_slice(b"00000000000\x0000000000005\0");
    old.as_mut_bytes()[483..495].copy_from_slice(b"00000010000\0");
    old.set_cksum();
    vec![
        one("a map of 2^40 pieces", "1099511627776\n", &["'s'", "holes"]),
        one("a map of words", "one\n", &["'s'", "holes"]),
        one("a map without an end", "2\n0\n", &["'s'", "holes"]),
        one(
            "a number of holes that overflows",
            "99999999999999999999999\n",
            &["'s'", "holes"],
        ),
        records("a map of an odd number", b"0,1,2", &["'s'", "holes"]),
        records("a map of more than there is", b"0,4096", &["'s'", "holes"]),
        (
            "an old map that goes back",
            Tar::new().raw(old, b"12345").done(),
            &["'s'", "holes"],
        ),
    ]
}
