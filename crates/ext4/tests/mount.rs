//! What the kernel says of file systems made here: mounted by it, they are the trees they were made of.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{InodeId, Kind, Meta, Time};
use common::mounted::{Mounted, assert_equals, in_own_mounts};
use common::{Builder, Image, acl, everything, full, inode, options, sparse, xattr};

/// Mounts it read-only, and it is the tree; e2fsck agrees.
fn judge(tree: Builder) {
    in_own_mounts(move || {
        let image = Image::new(&tree.0, &options());
        let mounted = Mounted::new(&image, "ro");
        assert_equals(&tree.0, &mounted.0);
        mounted.unmount();
        image.check();
    });
}

#[test]
fn a_bit_of_everything_is_mounted_as_it_is_in_the_tree() {
    judge(Builder(everything()));
}

const ANY: u32 = u32::MAX;

#[test]
fn access_control_lists_are_those_of_the_tree() {
    let access = acl(&[
        (1, 6, ANY),
        (2, 4, 1000),
        (2, 7, 70_000),
        (4, 4, ANY),
        (8, 5, 3_000_000_000),
        (16, 7, ANY),
        (32, 0, ANY),
    ]);
    let small = acl(&[(1, 7, ANY), (4, 5, ANY), (32, 5, ANY)]);
    let mut tree = Builder::new();
    let mut directory = inode(Kind::Directory(vec![]), 0o2770);
    directory.meta.xattrs = vec![
        xattr("system.posix_acl_default", &small),
        xattr("system.posix_acl_access", &access),
        xattr("user.x", "y"),
    ];
    let directory = tree.add(InodeId::ROOT, "directory", directory);
    let mut file = inode(full(10), 0o670);
    file.meta.xattrs = vec![xattr("system.posix_acl_access", &access)];
    tree.add(directory, "file", file);
    judge(tree);
}

#[test]
fn owners_modes_and_times_have_their_whole_range() {
    let mut tree = Builder::new();
    let ids = [0, 1, 65_534, 65_535, 65_536, 200_000, 4_000_000_000];
    for (at, uid) in ids.into_iter().enumerate() {
        for gid in ids {
            let mut file = inode(full(1), 0o7777 >> at);
            (file.meta.uid, file.meta.gid) = (uid, gid);
            tree.add(InodeId::ROOT, format!("{uid}:{gid}"), file);
        }
    }
    let seconds = [
        i64::from(i32::MIN),
        -1,
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x2_7fff_ffff,
    ];
    for seconds in seconds {
        for nanos in [0, 1, 999_999_999] {
            let mut file = inode(Kind::Fifo, 0o600);
            file.meta.mtime = Time { seconds, nanos };
            tree.add(InodeId::ROOT, format!("{seconds}.{nanos}"), file);
        }
    }
    let mtime = Time {
        seconds: 7,
        nanos: 8,
    };
    tree.0.inodes[0].meta = Meta {
        mode: 0o1777,
        uid: 70_000,
        gid: 70_001,
        mtime,
        xattrs: vec![xattr("user.root", "of all")],
    };
    judge(tree);
}

#[test]
fn devices_have_both_forms() {
    let mut tree = Builder::new();
    let numbers = [
        (0, 0),
        (1, 3),
        (255, 255),
        (256, 0),
        (0, 256),
        (4095, 1_048_575),
        (259, 0x12345),
    ];
    for (major, minor) in numbers {
        let character = Kind::CharDevice { major, minor };
        let block = Kind::BlockDevice { major, minor };
        tree.add(
            InodeId::ROOT,
            format!("c{major}:{minor}"),
            inode(character, 0o600),
        );
        tree.add(
            InodeId::ROOT,
            format!("b{major}:{minor}"),
            inode(block, 0o666),
        );
    }
    judge(tree);
}

#[test]
fn any_legal_name_is_stored() {
    let mut tree = Builder::new();
    for byte in (1..=255).filter(|&byte| byte != b'/' && byte != b'.') {
        tree.file(InodeId::ROOT, [byte], 3);
        tree.file(InodeId::ROOT, [byte; 255], 3);
    }
    let names = [
        "...",
        "-rf",
        "a\nb",
        r"system-systemd\x2dfsck.slice",
        "\"quoted\"",
        "\u{1f980}",
        "lost+found of mine",
    ];
    for name in names {
        tree.file(InodeId::ROOT, name, 3);
    }
    for length in 2..255 {
        tree.file(InodeId::ROOT, vec![b'n'; length], 1);
    }
    judge(tree);
}

#[test]
fn sparse_files_have_their_data_and_their_holes() {
    const GIB: u64 = 1 << 30;
    const LONGEST: u64 = u32::MAX as u64 * 4096;
    let mut tree = Builder::new();
    let mut add = |size, data: &[(u64, u64)]| {
        let name = format!("{size} of {}", data.len());
        tree.add(InodeId::ROOT, name, inode(sparse(size, data), 0o644));
    };
    add(5 * GIB, &[]);
    add(5 * GIB + 1, &[(0, 1), (4 * GIB - 10, 20), (5 * GIB, 1)]);
    add(LONGEST, &[(1, 1), (LONGEST - 1, 1)]);
    add(8192, &[(10, 10), (100, 4000), (4200, 1)]);
    // As many runs as the inode has, one more, a block full, one more, four blocks full, and a third level.
    for runs in [4, 5, 340, 341, 1360, 1361] {
        let data: Vec<_> = (0..runs).map(|at| (at * 16_384, 5)).collect();
        add(runs * 16_384, &data);
    }
    judge(tree);
}

#[test]
fn a_block_full_of_attributes_has_each_of_them() {
    let mut tree = Builder::new();
    let mut file = inode(full(1), 0o644);
    // Names of all lengths and prefixes, in no order, with values too long for the inode.
    for (at, length) in [9, 1, 30, 2, 17, 4, 3, 60].into_iter().enumerate() {
        for prefix in ["user.", "security.", "trusted."] {
            let letter = char::from(b'z' - u8::try_from(at).unwrap());
            let name = format!("{prefix}{}", letter.to_string().repeat(length));
            file.meta.xattrs.push(xattr(name, vec![b'v'; 81 + length]));
        }
    }
    tree.add(InodeId::ROOT, "file", file);
    judge(tree);
}
