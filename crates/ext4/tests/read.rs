//! The reader: what it finds of file systems that the kernel wrote to, with a journal that was never written back; and what it
//! does with file systems that are damaged.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{FileSystem, InodeId, Kind, ReadAt, ReadError};
use common::mounted::{Mounted, in_own_mounts};
use common::{Builder, Image, e2fsck, everything, inode, options, reread};
use std::fs::{self, File};
use std::process::Command;

#[test]
fn a_bit_of_everything_is_read_back() {
    let tree = everything();
    reread::assert_equals(&tree, &Image::new(&tree, &options()));
}

#[test]
fn what_only_the_journal_has_is_read() {
    in_own_mounts(|| {
        let mut options = options();
        options.size = Some(200 << 20);
        options.journal = true;
        let image = Image::new(&everything(), &options);
        let mounted = Mounted::new(&image, "rw,commit=1");
        for at in 0..500 {
            let name = mounted.0.join(format!("big/written by the kernel {at}"));
            fs::write(&name, format!("number {at}")).unwrap();
            if at % 3 == 0 {
                fs::remove_file(name).unwrap();
            }
        }
        fs::remove_dir_all(mounted.0.join("etc")).unwrap();
        let root = File::open(&mounted.0).unwrap();
        rustix::fs::syncfs(&root).unwrap();
        // As if the power had gone.
        let torn = image.path.with_extension("torn");
        common::said(
            Command::new("cp")
                .arg("--sparse=always")
                .args([&image.path, &torn]),
        );
        drop(root);
        mounted.unmount();
        let unclean = e2fsck(&torn);
        assert!(
            String::from_utf8_lossy(&unclean.stdout).contains("skipping journal recovery")
                || String::from_utf8_lossy(&unclean.stderr).contains("skipping journal recovery")
        );
        let before = reread::read(&torn).0;
        let view = FileSystem::open(File::open(&torn).unwrap()).unwrap();
        let written = view
            .resolve(b"big/written by the kernel 100", true)
            .unwrap();
        let mut bytes = [0; 20];
        let read = view
            .read(&view.content(&written).unwrap(), 0, &mut bytes)
            .unwrap();
        assert_eq!(&bytes[..read], b"number 100");
        for gone in [&b"big/written by the kernel 99"[..], b"/etc"] {
            assert!(matches!(view.resolve(gone, true), Err(ReadError::NotFound)));
        }
        // The same is found when e2fsck has written the journal back.
        let status = Command::new("/usr/sbin/e2fsck")
            .arg("-fy")
            .arg(&torn)
            .output()
            .unwrap()
            .status;
        assert!(status.code().unwrap() <= 1, "{status}");
        assert!(before == reread::read(&torn).0);
    });
}

#[test]
fn paths_are_followed_inside_the_file_system() {
    let mut tree = Builder::new();
    let a = tree.directory(InodeId::ROOT, "a");
    let b = tree.directory(a, "b");
    tree.file(b, "file", 10);
    let link = |target: &str| inode(Kind::Symlink(target.as_bytes().into()), 0o777);
    tree.add(InodeId::ROOT, "absolute", link("/a/b"));
    tree.add(b, "relative", link("../../../../a/./b/file"));
    tree.add(b, "round", link("round"));
    let image = Image::new(&tree.0, &options());
    let view = FileSystem::open(File::open(&image.path).unwrap()).unwrap();
    let file = view.resolve(b"/a/b/file", true).unwrap();
    for path in [
        "a/b/../b//file",
        "absolute/file",
        "/absolute/relative",
        "../absolute/../b/file",
    ] {
        assert_eq!(view.resolve(path.as_bytes(), true).unwrap(), file, "{path}");
    }
    assert_ne!(view.resolve(b"a/b/relative", false).unwrap(), file);
    assert!(matches!(
        view.resolve(b"a/b/round", true),
        Err(ReadError::TooManyLinks)
    ));
    assert!(matches!(
        view.resolve(b"a/b/file/x", true),
        Err(ReadError::NotADirectory)
    ));
    assert!(matches!(
        view.resolve(b"a/none", true),
        Err(ReadError::NotFound)
    ));
}

/// Bytes in memory.
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        let end = std::io::ErrorKind::UnexpectedEof;
        let from = usize::try_from(offset).map_err(|_| end)?;
        let found = self.0.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(end)?);
        Ok(())
    }
}

/// Reads everything there is, and counts it; errors are what is expected, but no panic and no end that does not come.
fn visit(view: &FileSystem<Bytes>) -> usize {
    let mut seen = 0;
    for number in 1..200 {
        let Ok(node) = view.node(number) else {
            continue;
        };
        seen += 1;
        seen += view.entries(&node).map_or(0, |entries| entries.len());
        seen += view.xattrs(&node).map_or(0, |all| all.len());
        seen += view.target(&node).map_or(0, |target| target.len());
        if let Ok(content) = view.content(&node) {
            seen += view.data(&content).len();
            let _ = view.read(&content, node.size / 2, &mut [0; 5000]);
        }
    }
    let _ = view.resolve(b"big/attributes/../etc/one", true);
    seen
}

#[test]
fn damaged_file_systems_are_errors() {
    let mut options = options();
    options.bytes_per_inode = 0;
    options.grow_to = 0;
    options.size = Some(12 << 20);
    let mut tree = everything();
    // What is large is of no use here.
    if let Kind::Directory(entries) = &mut tree.inodes[0].kind {
        entries.retain(|entry| *entry.name != *b"big");
    }
    let image = Image::without_content(&tree, &options);
    let bytes = image.bytes();
    let whole = visit(&FileSystem::open(Bytes(bytes.clone())).unwrap());
    assert!(whole > 3000, "{whole}");
    let used: Vec<usize> = (1024..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let mut random = 1u64;
    for checksums in [true, false] {
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            if !checksums {
                // Without checksums the damage is not seen before it is used.
                damaged[1024 + 0x65] &= !0x4;
            }
            for _ in 0..20 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = used[usize::try_from(random >> 33).unwrap() % used.len().min(60_000)];
                damaged[at] = (random >> 20) as u8;
            }
            if let Ok(view) = FileSystem::open(Bytes(damaged)) {
                visit(&view);
            }
        }
    }
    assert!(matches!(
        FileSystem::open(Bytes(vec![0; 4096])),
        Err(ReadError::NotExt4)
    ));
    assert!(matches!(
        FileSystem::open(Bytes(vec![0; 10])),
        Err(ReadError::Io(_))
    ));
}
