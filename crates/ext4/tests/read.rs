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
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_bit_of_everything_is_read_back() {
    let tree = everything();
    reread::assert_equals(&tree, &Image::new(&tree, &options()));
}

/// Brings what was done to the journal, and no further: writing back is left for later.
fn commit(directory: &Path) {
    rustix::fs::fsync(File::open(directory).unwrap()).unwrap();
}

/// The file system as it would be found if the power went now.
fn torn(image: &Image) -> PathBuf {
    let torn = image.path.with_extension("torn");
    let copy = ["--sparse=always", "--reflink=never"];
    common::said(Command::new("cp").args(copy).args([&image.path, &torn]));
    let said = e2fsck(&torn);
    let said = [said.stdout, said.stderr].concat();
    let unclean = String::from_utf8_lossy(&said).contains("skipping journal recovery");
    assert!(unclean, "{}", String::from_utf8_lossy(&said));
    torn
}

/// The same is found when e2fsck has written the journal back.
fn assert_recovered_alike(torn: &Path) {
    let before = reread::read(torn).0;
    let mut e2fsck = Command::new("/usr/sbin/e2fsck");
    let status = e2fsck.arg("-fy").arg(torn).output().unwrap().status;
    assert!(status.code().unwrap() <= 1, "{status}");
    assert!(before == reread::read(torn).0);
}

#[test]
fn what_only_the_journal_has_is_read() {
    in_own_mounts(|| {
        let mut options = options();
        options.size = Some(200 << 20);
        options.journal = true;
        let image = Image::new(&everything(), &options);
        let mounted = Mounted::new(&image, "rw");
        for at in 0..500 {
            let name = mounted.0.join(format!("big/written by the kernel {at}"));
            fs::write(&name, format!("number {at}")).unwrap();
            if at % 3 == 0 {
                fs::remove_file(name).unwrap();
            }
        }
        fs::remove_dir_all(mounted.0.join("etc")).unwrap();
        // The bytes of a file are not in the journal.
        let written = File::open(mounted.0.join("big/written by the kernel 100")).unwrap();
        written.sync_all().unwrap();
        drop(written);
        commit(&mounted.0);
        let torn = torn(&image);
        mounted.unmount();
        let view = FileSystem::open(File::open(&torn).unwrap()).unwrap();
        let written = view
            .resolve(b"big/written by the kernel 100", true)
            .unwrap();
        let content = view.content(&written).unwrap();
        let mut bytes = [0; 20];
        let read = view.read(&content, 0, &mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"number 100");
        for gone in [&b"big/written by the kernel 99"[..], b"/etc"] {
            assert!(matches!(view.resolve(gone, true), Err(ReadError::NotFound)));
        }
        assert_recovered_alike(&torn);
    });
}

#[test]
fn blocks_that_the_journal_revoked_keep_what_they_have() {
    in_own_mounts(|| {
        let mut options = options();
        options.size = Some(16 << 20);
        options.journal = true;
        let image = Image::new(&Builder::new().0, &options);
        let mounted = Mounted::new(&image, "rw");
        // Directories, whose blocks are in the journal; then a file over all blocks that they had.
        let directory = mounted.0.join("directory");
        for at in 0..200 {
            fs::create_dir_all(directory.join(format!("{at}"))).unwrap();
        }
        commit(&mounted.0);
        fs::remove_dir_all(&directory).unwrap();
        commit(&mounted.0);
        let mut file = File::create(mounted.0.join("file")).unwrap();
        let piece = [0xa5; 4096];
        while file.write_all(&piece).is_ok() {}
        file.sync_all().unwrap();
        drop(file);
        commit(&mounted.0);
        let torn = torn(&image);
        mounted.unmount();
        let view = FileSystem::open(File::open(&torn).unwrap()).unwrap();
        let node = view.resolve(b"file", true).unwrap();
        assert!(node.size > 4 << 20, "{}", node.size);
        let mut bytes = vec![0; usize::try_from(node.size).unwrap()];
        view.read(&view.content(&node).unwrap(), 0, &mut bytes)
            .unwrap();
        let others = bytes.iter().filter(|&&byte| byte != 0xa5).count();
        assert_eq!(others, 0, "of {}", bytes.len());
        assert_recovered_alike(&torn);
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
    tree.add(b, "rooted", link("/a/b/file"));
    let image = Image::new(&tree.0, &options());
    let view = FileSystem::open(File::open(&image.path).unwrap()).unwrap();
    let file = view.resolve(b"/a/b/file", true).unwrap();
    for path in [
        "a/b/../b//file",
        "absolute/file",
        "/absolute/relative",
        "absolute/rooted",
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

/// Bytes in memory, one of them another.
struct Bytes<'a>(&'a [u8], Option<(usize, u8)>);

impl ReadAt for Bytes<'_> {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        let end = std::io::ErrorKind::UnexpectedEof;
        let from = usize::try_from(offset).map_err(|_| end)?;
        let found = self.0.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(end)?);
        if let Some((at, other)) = self.1
            && let Some(byte) = at.checked_sub(from).and_then(|at| bytes.get_mut(at))
        {
            *byte = other;
        }
        Ok(())
    }
}

/// Reads everything there is, and counts it; errors are what is expected, but no panic and no end that does not come.
fn visit(view: &FileSystem<Bytes<'_>>) -> usize {
    let mut seen = 0;
    for number in 1..45 {
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
    let mut bytes = image.bytes();
    let whole = visit(&FileSystem::open(Bytes(&bytes, None)).unwrap());
    assert!(whole > 3000, "{whole}");
    // With checksums it is seen when an inode is read, without when it is used.
    for flags in [bytes[1024 + 0x65], bytes[1024 + 0x65] & !0x4] {
        bytes[1024 + 0x65] = flags;
        // Some of everything, and closely where extents and attributes begin.
        let used = (1024..bytes.len()).filter(|&at| bytes[at] != 0);
        let mut places: Vec<usize> = used.step_by(23).take(300).collect();
        for (mark, count, length) in [(&b"\x0a\xf3"[..], 8, 24), (b"\0\0\x02\xea", 4, 60)] {
            let begin = bytes.windows(mark.len()).enumerate();
            let begins = begin
                .filter(|(_, window)| *window == mark)
                .map(|(at, _)| at);
            places.extend(begins.step_by(3).take(count).flat_map(|at| at..at + length));
        }
        for at in places {
            for other in [0xff, bytes[at] ^ 0x80] {
                if let Ok(view) = FileSystem::open(Bytes(&bytes, Some((at, other)))) {
                    visit(&view);
                }
            }
        }
    }
    let zeros = [0; 4096];
    assert!(matches!(
        FileSystem::open(Bytes(&zeros, None)),
        Err(ReadError::NotExt4)
    ));
    assert!(matches!(
        FileSystem::open(Bytes(&zeros[..10], None)),
        Err(ReadError::Io(_))
    ));
}
