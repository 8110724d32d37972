//! Directories of many names, files of many groups, and much free space.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{InodeId, Kind};
use common::mounted::{Mounted, assert_equals, in_own_mounts};
use common::{Builder, Image, full, inode, options};

const ROOT: InodeId = InodeId::ROOT;

#[test]
fn a_directory_of_100_000_entries_has_two_levels_and_every_name_is_found() {
    in_own_mounts(|| {
        let mut tree = Builder::new();
        let large = tree.directory(ROOT, "large");
        let first = tree.file(large, "the first of them", 0);
        for at in 0..100_000 {
            tree.link(large, format!("entry {at:08} \u{e9}\u{fc}"), first);
            if at % 50_000 == 49_999 {
                tree.add(large, format!("fifo {at}"), inode(Kind::Fifo, 0o600));
            }
        }
        split_links(&mut tree, large);
        let image = Image::new(&tree.0, &options());
        image.check();
        let dump = image.debugfs("htree_dump large");
        assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..400]);
        let mounted = Mounted::new(&image, "ro");
        assert_equals(&tree.0, &mounted.0);
        mounted.unmount();
    });
}

/// Gives every 60 000 names of a directory's first file an inode of their own: files have 65 000 links at most.
fn split_links(tree: &mut Builder, directory: InodeId) {
    let another = InodeId(u32::try_from(tree.0.inodes.len()).unwrap());
    tree.0.inodes.push(inode(full(0), 0o400));
    let Kind::Directory(entries) = &mut tree.0.inodes[directory.0 as usize].kind else {
        panic!("no directory");
    };
    for entry in entries.iter_mut().skip(60_000) {
        entry.inode = another;
    }
}

#[test]
fn names_of_one_hash_in_two_blocks_are_both_found() {
    in_own_mounts(|| {
        // The last two have one hash, above those of the others, and the first of them is the last that fits into a block.
        let mut tree = Builder::new();
        for at in (0..144).chain([1_689_150, 1_947_263]) {
            tree.file(ROOT, format!("{at:020}"), 1);
        }
        tree.0.inodes.push(inode(Kind::Directory(vec![]), 0o700));
        let inside = InodeId(u32::try_from(tree.0.inodes.len() - 1).unwrap());
        let Kind::Directory(entries) =
            std::mem::replace(&mut tree.0.inodes[0].kind, Kind::Directory(Vec::new()))
        else {
            panic!("no directory");
        };
        tree.0.inodes[inside.0 as usize].kind = Kind::Directory(entries);
        tree.link(ROOT, "inside", inside);
        let image = Image::new(&tree.0, &options());
        image.check();
        let dump = image.debugfs("htree_dump inside");
        assert!(dump.contains("Hash 0xff7ae089"), "{dump}");
        let mounted = Mounted::new(&image, "ro");
        assert_equals(&tree.0, &mounted.0);
        mounted.unmount();
    });
}

#[test]
fn of_more_than_65_000_subdirectories_one_link_is_told() {
    in_own_mounts(|| {
        let mut tree = Builder::new();
        let most = tree.directory(ROOT, "most");
        for at in 0..64_998 {
            tree.directory(most, format!("{at}"));
        }
        let more = tree.directory(ROOT, "more");
        for at in 0..64_999 {
            tree.directory(more, format!("{at}"));
        }
        let image = Image::new(&tree.0, &options());
        image.check();
        let mounted = Mounted::new(&image, "ro");
        for (name, links) in [("most", 65_000), ("more", 1)] {
            use std::os::unix::fs::MetadataExt;
            let found = std::fs::metadata(mounted.0.join(name)).unwrap().nlink();
            assert_eq!(found, links, "{name}");
        }
        assert!(mounted.0.join("more/64998").is_dir());
        mounted.unmount();
    });
}

#[test]
fn ten_gib_with_50_mib_of_content_take_little_more_than_that() {
    let mut tree = Builder::new();
    for at in 0..50 {
        tree.file(ROOT, format!("{at}"), 1 << 20);
    }
    let mut options = options();
    options.size = Some(10 << 30);
    let image = Image::new(&tree.0, &options);
    image.check();
    assert_eq!(std::fs::metadata(&image.path).unwrap().len(), 10 << 30);
    let used = image.used() >> 10;
    assert!(used < 54 << 10, "{used} KiB");
    let said = image.dumpe2fs();
    let untouched = "[INODE_UNINIT, BLOCK_UNINIT, ITABLE_ZEROED]";
    assert!(said.matches(untouched).count() > 70, "{said}");
    assert!(said.contains("Inode count:              655360"), "{said}");
}

#[test]
fn content_goes_around_the_copies_of_superblocks() {
    // Its data is left zero, so that 3 GiB cost nothing.
    let mut tree = Builder::new();
    tree.file(ROOT, "large", 3 << 30);
    for at in 0..100 {
        tree.file(ROOT, format!("{at}"), 40 << 20);
    }
    let image = Image::without_content(&tree.0, &options());
    image.check();
    assert!(image.used() < 8 << 20, "{}", image.used());
    let said = image.dumpe2fs();
    assert!(said.contains("Backup superblock at 884736,"), "{said}");
    // Copies are as good as the first.
    for superblock in ["32768", "98304", "884736"] {
        let copied = image.debugfs_from(superblock, "stat large");
        assert!(copied.contains("Size: 3221225472"), "{copied}");
    }
}

#[test]
fn what_has_more_inodes_than_blocks_gets_more_groups() {
    let mut tree = Builder::new();
    for at in 0..70_000 {
        tree.add(ROOT, format!("{at}"), inode(Kind::Fifo, 0o600));
    }
    let image = Image::new(&tree.0, &options());
    image.check();
    assert!(image.used() < 30 << 20, "{}", image.used());
}

#[test]
fn one_tree_gives_the_same_bytes_every_time() {
    let tree = common::everything();
    let mut options = options();
    options.journal = true;
    let [first, second] = [(); 2].map(|()| Image::new(&tree, &options).bytes());
    assert!(first == second);
}
