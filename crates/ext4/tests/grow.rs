//! File systems made here being used: grown, written to by the kernel, and checked after.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{InodeId, Tree};
use common::mounted::{Mounted, assert_equals, in_own_mounts};
use common::{Builder, Image, everything, options, said};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A tree with a directory of 10 000 names.
fn with_large() -> Tree {
    let mut tree = Builder(everything());
    let large = tree.directory(InodeId::ROOT, "large");
    for at in 0..10_000 {
        tree.file(large, format!("entry {at}"), u64::from(at % 2 == 0));
    }
    tree.0
}

/// What a guest does to a file system, in a large directory and out of it.
fn work(root: &Path) {
    let large = root.join("large");
    for at in 0..3000 {
        fs::write(large.join(format!("new {at}")), [7; 5000]).unwrap();
    }
    for at in 0..4000 {
        let from = large.join(format!("entry {at}"));
        fs::rename(from, large.join(format!("renamed {at}"))).unwrap();
    }
    for at in 5000..9000 {
        fs::remove_file(large.join(format!("entry {at}"))).unwrap();
    }
    for at in 0..100 {
        fs::create_dir(large.join(format!("directory {at}"))).unwrap();
    }
    fs::write(root.join("attributes"), [1; 100_000]).unwrap();
    fs::remove_file(root.join("holes")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(root.join("sparse"))
        .unwrap()
        .set_len(5_500)
        .unwrap();
    let value = [b'v'; 200];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("capable"), "user.more", &value, flags).unwrap();
}

#[test]
fn the_kernel_writes_to_it_and_it_stays_whole() {
    in_own_mounts(|| {
        for journal in [false, true] {
            let mut options = options();
            options.size = Some(400 << 20);
            options.journal = journal;
            let image = Image::new(&with_large(), &options);
            image.check();
            let features = image.dumpe2fs();
            assert_eq!(features.contains("has_journal"), journal);
            let mounted = Mounted::new(&image, "rw");
            work(&mounted.0);
            let listed = fs::read_dir(mounted.0.join("large")).unwrap().count();
            assert_eq!(listed, 10_000 + 3000 - 4000 + 100);
            mounted.unmount();
            image.check();
        }
    });
}

#[test]
fn it_grows_tenfold_and_is_the_same() {
    in_own_mounts(|| {
        let tree = with_large();
        for (size, journal) in [
            (None, false),
            (Some(200 << 20), true),
            (Some(1 << 30), false),
        ] {
            let mut options = options();
            options.size = size;
            options.journal = journal;
            let image = Image::new(&tree, &options);
            let size = image.layout.size() * 10;
            fs::File::options()
                .write(true)
                .open(&image.path)
                .unwrap()
                .set_len(size)
                .unwrap();
            said(Command::new("/usr/sbin/resize2fs").arg(&image.path));
            image.check();
            let blocks = format!("Block count:              {}\n", size / 4096);
            let grown = image.dumpe2fs();
            assert!(grown.contains(&blocks), "{blocks} in {grown}");
            let mounted = Mounted::new(&image, "ro");
            assert_equals(&tree, &mounted.0);
            mounted.unmount();
        }
    });
}

#[test]
fn it_grows_while_it_is_mounted() {
    if !may_grow_mounted() {
        banger_testkit::skip("growing a mounted file system needs CAP_SYS_RESOURCE");
        return;
    }
    in_own_mounts(|| {
        let tree = with_large();
        let image = Image::new(&tree, &options());
        let size = 20u64 << 30;
        fs::File::options()
            .write(true)
            .open(&image.path)
            .unwrap()
            .set_len(size)
            .unwrap();
        let mounted = Mounted::new(&image, "rw");
        let device = said(
            Command::new("findmnt")
                .args(["-no", "SOURCE"])
                .arg(&mounted.0),
        );
        said(Command::new("/usr/sbin/resize2fs").arg(device.trim()));
        work(&mounted.0);
        mounted.unmount();
        image.check();
        let blocks = format!("Block count:              {}\n", size / 4096);
        assert!(image.dumpe2fs().contains(&blocks));
    });
}

fn may_grow_mounted() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None)
        .unwrap()
        .effective
        .contains(CapabilitySet::SYS_RESOURCE)
}
