//! What is refused, before anything is written, and the words for it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{Entry, Extent, Inode, InodeId, Kind, Layout, Options, Tree, keeps_xattr};
use common::{Builder, acl, full, inode, options, sparse, xattr};

const ROOT: InodeId = InodeId::ROOT;

fn refusal(tree: &Tree, options: &Options) -> String {
    match Layout::new(tree, options) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What is said of a tree with one inode in `a/b`.
fn said_of(inode: Inode) -> String {
    let mut tree = Builder::new();
    let a = tree.directory(ROOT, "a");
    tree.add(a, "b", inode);
    refusal(&tree.0, &options())
}

fn with_xattrs(all: &[(&str, &[u8])]) -> Inode {
    let mut inode = inode(full(1), 0o644);
    let all = all.iter().map(|(name, value)| xattr(name, value));
    inode.meta.xattrs = all.collect();
    inode
}

#[test]
fn names_that_no_directory_can_have() {
    let long = "x".repeat(256);
    for (name, said) in [
        ("", "/a/: a name is not empty"),
        (".", "/a/.: every directory has this entry of its own"),
        ("..", "/a/..: every directory has this entry of its own"),
        ("a/b", "/a/a/b: a name has no '/'"),
        ("a\0b", "/a/a\\u{0}b: a name has no NUL byte"),
        (&long, &format!("/a/{long}: a name has at most 255 bytes")),
    ] {
        let mut tree = Builder::new();
        let a = tree.directory(ROOT, "a");
        tree.file(a, name, 1);
        assert_eq!(refusal(&tree.0, &options()), said);
    }
    let mut tree = Builder::new();
    for name in ["b", "a", "c", "a"] {
        tree.file(ROOT, name, 1);
    }
    assert_eq!(
        refusal(&tree.0, &options()),
        "/a: two entries have this name"
    );
}

#[test]
fn graphs_that_are_no_trees() {
    let again =
        ": this directory has another name or is one of its own parents; a directory has one name";
    let mut tree = Builder::new();
    let a = tree.directory(ROOT, "a");
    let b = tree.directory(a, "b");
    let mut twice = Builder(tree.0.clone());
    twice.link(ROOT, "z", b);
    assert!(refusal(&twice.0, &options()).ends_with(again));
    let mut looped = Builder(tree.0.clone());
    looped.link(b, "up", a);
    assert_eq!(refusal(&looped.0, &options()), format!("/a/b/up{again}"));
    let mut rooted = Builder(tree.0.clone());
    rooted.link(b, "root", ROOT);
    assert_eq!(refusal(&rooted.0, &options()), format!("/a/b/root{again}"));
    tree.link(b, "none", InodeId(17));
    assert_eq!(
        refusal(&tree.0, &options()),
        "/a/b/none: refers to inode 17 of a tree of 3"
    );
    let none = "the first inode of the tree is not a directory, so there is no root";
    assert_eq!(refusal(&Tree { inodes: vec![] }, &options()), none);
    let inodes = vec![inode(full(1), 0o644)];
    assert_eq!(refusal(&Tree { inodes }, &options()), none);
}

#[test]
fn what_the_root_does_not_lead_to_is_left_out() {
    let mut tree = Builder::new();
    let gone = InodeId(2);
    tree.file(ROOT, "there", 1);
    let entries = vec![Entry {
        name: b"loop"[..].into(),
        inode: gone,
    }];
    tree.0.inodes.push(inode(Kind::Directory(entries), 0o755));
    tree.0
        .inodes
        .push(inode(Kind::Symlink(b""[..].into()), 0o777));
    tree.file(ROOT, "after", 5000);
    let image = common::Image::new(
        &Tree {
            inodes: tree.0.inodes.clone(),
        },
        &options(),
    );
    image.check();
    assert!(image.debugfs("stat after").contains("Inode: 13 "));
    assert_eq!(image.layout.position(InodeId(3), 0), None);
}

#[test]
fn inodes_that_have_no_form() {
    let link = |target: &[u8]| inode(Kind::Symlink(target.into()), 0o777);
    let lengths = "bytes, a symbolic link's has 1 to 4095";
    assert_eq!(
        said_of(link(b"")),
        format!("/a/b: its target has 0 {lengths}")
    );
    assert_eq!(
        said_of(link(&[b'x'; 4096])),
        format!("/a/b: its target has 4096 {lengths}")
    );
    assert_eq!(said_of(link(b"a\0")), "/a/b: its target has a NUL byte");
    for (major, minor) in [(4096, 0), (0, 1 << 20)] {
        let said = said_of(inode(Kind::CharDevice { major, minor }, 0));
        assert_eq!(
            said,
            format!("/a/b: device {major}:{minor} is beyond 4095:1048575")
        );
    }
    assert_eq!(
        said_of(inode(Kind::Fifo, 0o10000)),
        "/a/b: mode 10000 has bits beyond 7777"
    );
    let mut late = inode(Kind::Fifo, 0);
    late.meta.mtime.nanos = 1_000_000_000;
    assert_eq!(
        said_of(late),
        "/a/b: the nanoseconds of its time are 1000000000, a second has 1000000000"
    );
    let size = u64::from(u32::MAX) * 4096 + 1;
    assert_eq!(
        said_of(inode(sparse(size, &[]), 0)),
        format!("/a/b: {size} bytes are more than a file has (16 TiB)")
    );
    for data in [
        [(0, 0), (1, 1)],
        [(5, 5), (9, 1)],
        [(9, 1), (0, 1)],
        [(0, 1), (5, 6)],
        [(0, 1), (u64::MAX, 1)],
    ] {
        let said = said_of(inode(sparse(10, &data), 0));
        assert!(
            said.ends_with("of its data are empty, out of order or beyond its size"),
            "{said}"
        );
    }
}

#[test]
fn attributes_that_have_no_form() {
    let kept =
        "ext4 keeps names that begin with user., trusted. or security., and the two POSIX ACLs";
    for name in [
        "user",
        "user.",
        "system.nfs4_acl",
        "com.apple.x",
        "",
        "system.posix_acl_accessx",
    ] {
        let said = said_of(with_xattrs(&[(name, b"x")]));
        assert_eq!(said, format!("/a/b: attribute {name}: {kept}"));
        assert!(!keeps_xattr(name.as_bytes()), "{name}");
    }
    for name in [
        "user.a",
        "security.capability",
        "trusted.x",
        "system.posix_acl_default",
    ] {
        assert!(keeps_xattr(name.as_bytes()), "{name}");
    }
    let said = said_of(with_xattrs(&[
        ("user.a", b"x"),
        ("user.b", b""),
        ("user.a", b"y"),
    ]));
    assert_eq!(said, "/a/b: attribute user.a: given twice");
    let said = said_of(with_xattrs(&[(&format!("user.{}", "n".repeat(256)), b"x")]));
    assert!(
        said.ends_with("the name is longer than 255 bytes or has a NUL"),
        "{said}"
    );
    let entries = acl(&[(1, 7, 0)]);
    let said = said_of(with_xattrs(&[("system.posix_acl_default", &entries)]));
    assert!(
        said.ends_with("only directories have a default ACL"),
        "{said}"
    );
    for bad in [
        &b""[..],
        b"\x02\0\0\0",
        &entries[..11],
        &acl(&[(3, 7, 0)]),
        &acl(&[(1, 8, 0)]),
        &[1; 12],
    ] {
        let said = said_of(with_xattrs(&[("system.posix_acl_access", bad)]));
        assert!(
            said.ends_with("not a POSIX ACL as getxattr gives it"),
            "{said}"
        );
    }
    // 4096 bytes of block less its header, an entry, its name, and the end.
    assert_eq!(
        said_of(with_xattrs(&[("user.abcd", &[1; 4096 - 32 - 16 - 4 - 4])])),
        "nothing"
    );
    assert_eq!(
        said_of(with_xattrs(&[(
            "user.abcd",
            &[1; 4096 - 32 - 16 - 4 - 4 + 1]
        )])),
        "/a/b: its extended attributes do not fit: attribute user.abcd would need 4 bytes more than inode and block have"
    );
    assert_eq!(
        said_of(with_xattrs(&[("user.abcd", &[1; 96 - 4 - 16 - 4 - 4])])),
        "nothing"
    );
}

#[test]
fn more_than_there_is_room_for() {
    let mut tree = Builder::new();
    tree.file(ROOT, "a", 100 << 20);
    let mut sized = options();
    sized.size = Some(100 << 20);
    let said = refusal(&tree.0, &sized);
    assert!(
        said.starts_with("the content needs 10") && said.ends_with("is to have 104857600"),
        "{said}"
    );
    sized.size = Some(1 << 45);
    assert!(refusal(&tree.0, &sized).contains("(16 TiB)"));
    for size in [0, 1, 4095, 4096, 100_000] {
        sized.size = Some(size);
        assert!(
            refusal(&tree.0, &sized).starts_with("the content needs"),
            "{size}"
        );
    }
    for at in 0..5 {
        let whole = sparse(4 << 40, &[(0, 4 << 40)]);
        tree.add(ROOT, format!("large {at}"), inode(whole, 0));
    }
    assert!(refusal(&tree.0, &options()).contains("(16 TiB)"));
    let mut linked = Builder::new();
    let file = linked.file(ROOT, "0", 1);
    (1..65_000).for_each(|at| linked.link(ROOT, format!("{at}"), file));
    assert_eq!(refusal(&linked.0, &options()), "nothing");
    linked.link(ROOT, "65000", file);
    assert_eq!(
        refusal(&linked.0, &options()),
        "/0: it has 65001 names, a file has at most 65000"
    );
    let mut none = options();
    none.uuid = [0; 16];
    assert_eq!(
        refusal(&linked.0, &none),
        "the UUID is all zeros, which means none"
    );
    let mut lost = Builder::new();
    lost.file(ROOT, "lost+found", 1);
    assert_eq!(
        refusal(&lost.0, &options()),
        "/lost+found: in the root directory this name must be a directory"
    );
}

#[test]
fn bytes_are_placed_where_the_tree_has_some() {
    let mut tree = Builder::new();
    let data = [(10_000, 10), (20_000, 10_000)];
    let file = tree.add(ROOT, "a", inode(sparse(29_999 + 1000, &data), 0));
    let directory = tree.directory(ROOT, "b");
    let layout = Layout::new(&tree.0, &options()).unwrap();
    let out = tempfile::tempfile().unwrap();
    for (inode, offset) in [
        (file, 0),
        (file, 8191),
        (file, 12_288),
        (file, 31_000),
        (InodeId(99), 0),
    ] {
        assert_eq!(layout.position(inode, offset), None, "{inode:?} {offset}");
        assert!(layout.place(inode, offset, b"x", &out).is_err());
    }
    let (at, length) = layout.position(file, 20_000).unwrap();
    assert_eq!((at % 4096, length), (20_000 % 4096, 30_999 - 20_000));
    assert!(layout.place(file, 30_000, &[0; 1000], &out).is_err());
    let _ = directory;
    let other = Builder::new().0;
    let refused = layout.write_metadata(&other, &out).unwrap_err();
    assert!(refused.to_string().contains("not the one"), "{refused}");
}

#[test]
fn lost_and_found_of_the_tree_is_used() {
    let mut tree = Builder::new();
    let lost = tree.directory(ROOT, "lost+found");
    tree.file(lost, "#12", 10);
    let image = common::Image::new(&tree.0, &options());
    image.check();
    assert!(image.debugfs("stat lost+found").contains("Inode: 11 "));
    let whole = Extent { offset: 0, len: 10 };
    assert!(image.layout.position(InodeId(2), 0).unwrap().1 == whole.len);
}
