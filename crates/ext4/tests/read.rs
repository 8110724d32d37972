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
        self.0.read_exact_at(bytes, offset)?;
        let from = usize::try_from(offset).expect("it was read");
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

/// A small file system with a journal, without checksums so that damage is seen where it is used.
fn unchecked() -> Vec<u8> {
    let mut options = options();
    options.size = Some(16 << 20);
    options.journal = true;
    let mut tree = Builder::new();
    let a = tree.directory(InodeId::ROOT, "a");
    tree.directory(a, "b");
    let mut bytes = Image::without_content(&tree.0, &options).bytes();
    bytes[1024 + 0x65] &= !0x4;
    bytes
}

const BLOCK: usize = 4096;
const MAGIC: u32 = 0xc03b_3998;

fn le(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn be(bytes: &mut [u8], words: &[(usize, u32)]) {
    for &(at, word) in words {
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
}

/// Where an inode is: the table of the first group, whose descriptor is in the second block.
fn inode_at(bytes: &[u8], number: usize) -> usize {
    let table = u32::from_le_bytes(bytes[BLOCK + 8..BLOCK + 12].try_into().unwrap());
    table as usize * BLOCK + (number - 1) * 256
}

/// Where the journal begins; it is to be replayed from its first block on.
fn unwritten(bytes: &mut [u8]) -> usize {
    let begins = |block: &[u8]| block[..8] == [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    let log = BLOCK * bytes.chunks(BLOCK).position(begins).unwrap();
    bytes[1024 + 0x60] |= 0x4;
    be(&mut bytes[log..], &[(0x18, 1), (0x1c, 1)]);
    log
}

/// A file system whose journal has another superblock of later date.
fn rewritten(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = unchecked();
    let log = unwritten(&mut bytes);
    let mut first = bytes[..BLOCK].to_vec();
    change(&mut first[1024..]);
    // One tag: block 0, its UUID that of the tag before, the last one.
    let descriptor = [(0, MAGIC), (4, 1), (8, 1), (12, 0), (16, 2 | 8)];
    be(&mut bytes[log + BLOCK..], &descriptor);
    bytes[log + 2 * BLOCK..][..BLOCK].copy_from_slice(&first);
    be(&mut bytes[log + 3 * BLOCK..], &[(0, MAGIC), (4, 2), (8, 1)]);
    bytes
}

#[test]
fn a_superblock_of_the_journal_is_looked_at_as_the_first_is() {
    let whole = rewritten(|_| {});
    assert!(visit(&FileSystem::open(Bytes(&whole, None)).unwrap()) > 5);
    for (at, value, what) in [
        (0x28, 0, "no inodes in a group"),
        (0x20, 0, "no blocks in a group"),
        (0x18, 1, "blocks of another size"),
        (0x18, 77, "blocks of no size"),
        (0x58, 0, "inodes without a size"),
        (0xfc, 3 << 16, "descriptors of no size"),
        (0x60, u32::MAX, "features of its own"),
        (0x38, 0, "no mark"),
    ] {
        let bytes = rewritten(|superblock| le(superblock, at, value));
        match FileSystem::open(Bytes(&bytes, None)) {
            Err(ReadError::Damaged(_) | ReadError::Unsupported(_)) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(view) => panic!("{what} is {} things", visit(&view)),
        }
    }
}

#[test]
fn groups_beyond_all_numbers_are_errors() {
    let mut bytes = unchecked();
    let superblock = &mut bytes[1024..];
    superblock[0x60] |= 0x10; // each group's descriptors are at its beginning
    for (at, value) in [(0x00, u32::MAX), (0x20, u32::MAX), (0x28, 1), (0x104, 0)] {
        le(superblock, at, value);
    }
    let view = FileSystem::open(Bytes(&bytes, None)).unwrap();
    for number in [1 << 20, u32::MAX / 2, u32::MAX] {
        let found = view.node(number);
        assert!(matches!(found, Err(ReadError::Damaged(_))), "{found:?}");
    }
}

/// Bytes in memory, and behind them one block again and again.
struct Endless<'a>(&'a [u8], Vec<u8>);

impl ReadAt for Endless<'_> {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        if usize::try_from(offset).is_ok_and(|from| from < self.0.len()) {
            return Bytes(self.0, None).read_exact_at(bytes, offset);
        }
        bytes.copy_from_slice(&self.1);
        Ok(())
    }
}

/// A small file can have a large journal: all its blocks may be one.
#[test]
fn a_flood_of_revoked_blocks_is_an_error() {
    let mut bytes = unchecked();
    let log = unwritten(&mut bytes);
    let blocks = 8192;
    be(&mut bytes[log..], &[(0x10, blocks)]);
    le(&mut bytes, 1024 + 0x04, 1 << 20);
    let behind = u32::try_from(bytes.len() / BLOCK).unwrap();
    let inode = inode_at(&bytes, 8);
    le(&mut bytes, inode + 0x04, blocks * 4096);
    // Two extents: the journal's first block, and what lies behind the end.
    le(&mut bytes, inode + 0x28, 0x0002_f30a);
    let log = u32::try_from(log / BLOCK).unwrap();
    let words = [0, 1, log, 1, blocks - 1, behind];
    for (at, word) in words.into_iter().enumerate() {
        le(&mut bytes, inode + 0x28 + 12 + at * 4, word);
    }
    let mut revokes = vec![0; BLOCK];
    be(&mut revokes, &[(0, MAGIC), (4, 5), (8, 1), (12, 4096)]);
    let opened = FileSystem::open(Endless(&bytes, revokes));
    let error = opened.map(drop).unwrap_err();
    assert!(error.to_string().contains("revokes too many"), "{error}");
}

#[test]
fn ways_have_an_end() {
    let mut bytes = unchecked();
    let open = |bytes: &[u8], path: &[u8]| {
        let view = FileSystem::open(Bytes(bytes, None)).unwrap();
        view.resolve(path, true).map(|node| node.number)
    };
    let b = open(&bytes, b"a/b").unwrap();
    let long = "a/../".repeat(818);
    assert_eq!(open(&bytes, format!("{long}a/b").as_bytes()).unwrap(), b);
    let longer = open(&bytes, format!("{long}a/../a/b").as_bytes());
    assert!(matches!(longer, Err(ReadError::NameTooLong)), "{longer:?}");
    // A directory of holes behind its only block, read once for each time it is passed.
    let a = open(&bytes, b"a").unwrap();
    let size = inode_at(&bytes, a as usize) + 0x04;
    le(&mut bytes, size, 600 << 20);
    assert_eq!(open(&bytes, b"a/b").unwrap(), b);
    let again = open(&bytes, b"a/b/../b/../b");
    assert!(matches!(again, Err(ReadError::Unsupported(_))), "{again:?}");
}
