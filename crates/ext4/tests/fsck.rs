//! What e2fsprogs says of file systems made here.

mod common;

use banger_ext4::{InodeId, Kind, Tree};
use common::{Builder, Image, full, inode, options, sparse, xattr};

/// A bit of everything.
fn everything() -> Tree {
    let mut tree = Builder::new();
    let root = InodeId::ROOT;
    let etc = tree.directory(root, "etc");
    tree.file(etc, "empty", 0);
    tree.file(etc, "one", 1);
    let linked = tree.file(etc, "block", 4096);
    tree.link(root, "linked", linked);
    tree.file(etc, "more", 4097);
    tree.add(
        root,
        "sparse",
        inode(
            sparse(1 << 30, &[(5000, 10), (6000, 5000), (999_999_999, 1)]),
            0o600,
        ),
    );
    let many: Vec<(u64, u64)> = (0..3000).map(|at| (at * 8192, 100)).collect();
    tree.add(root, "holes", inode(sparse(3000 * 8192, &many), 0o600));
    tree.add(
        root,
        "short",
        inode(Kind::Symlink(b"etc"[..].into()), 0o777),
    );
    tree.add(
        root,
        "fast",
        inode(Kind::Symlink([b'x'; 59][..].into()), 0o777),
    );
    tree.add(
        root,
        "slow",
        inode(Kind::Symlink([b'x'; 60][..].into()), 0o777),
    );
    tree.add(
        root,
        "slowest",
        inode(Kind::Symlink([b'x'; 4095][..].into()), 0o777),
    );
    tree.add(
        root,
        "null",
        inode(Kind::CharDevice { major: 1, minor: 3 }, 0o666),
    );
    tree.add(
        root,
        "disk",
        inode(
            Kind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
            0o660,
        ),
    );
    tree.add(root, "fifo", inode(Kind::Fifo, 0o600));
    tree.add(root, "socket", inode(Kind::Socket, 0o600));
    let mut capable = inode(full(100), 0o4755);
    capable.meta.xattrs = vec![
        xattr("security.capability", [1; 20]),
        xattr("user.empty", ""),
    ];
    tree.add(root, "capable", capable);
    let mut large = inode(full(100), 0o644);
    large.meta.xattrs = vec![
        xattr("user.large", [b'v'; 3000]),
        xattr("trusted.b", "second"),
        xattr("user.\u{fc}ber", "name beyond ASCII"),
        xattr("user.none", ""),
        xattr("user.a", "1"),
    ];
    tree.add(root, "attributes", large);
    let big = tree.directory(root, "big");
    for at in 0..2000 {
        tree.file(big, format!("a name of some length {at}"), 10);
    }
    tree.0
}

#[test]
fn a_bit_of_everything_is_a_whole_file_system() {
    Image::new(&everything(), &options()).check();
}

#[test]
fn an_empty_tree_is_one_too() {
    let tree = Builder::new().0;
    Image::new(&tree, &options()).check();
}
