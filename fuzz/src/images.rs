//! Images of strangers: layers, the documents of registries, references.

use banger_ext4::{FileSystem, Inode, InodeId, Kind, Node, Tree};
use banger_image::{Limits, RemoteDocument, dry, layers_of, read_remote};
use banger_model::{ImageReference, hex};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};
use std::{fs::File, io::Write, os::unix::fs::FileExt, sync::Arc};

const BLOCK: usize = 512;

fn memory(bytes: &[u8]) -> File {
    let file = memfd_create("layer", MemfdFlags::CLOEXEC).expect("memory");
    let mut file = File::from(file);
    file.write_all(bytes).expect("memory");
    file
}

fn limits() -> Limits {
    Limits {
        entries: 4000,
        bytes: 16 << 20,
        kept: 4 << 20,
        in_directory: 500,
        devices: 20,
        ratio: 1000,
        ratio_from: 1 << 20,
    }
}

/// The byte that every byte of the n-th entry's file is; its time is `n`.
fn content(n: i64) -> u8 {
    u8::try_from(n % 250).unwrap_or(0) + 1
}

/// A header in the form of POSIX, with its checksum right.
fn header(kind: u8, name: &[u8], target: &[u8], size: usize, n: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}", n % 0o10000).as_bytes());
    put(108, format!("{n:07o}").as_bytes());
    put(116, b"0000007");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{n:011o}").as_bytes());
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000001");
    put(337, b"0000003");
    mended(&mut header);
    header
}

fn mended(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A path of few names, so that entries meet; some are names of whiteouts, some lead out.
fn path(byte: u8, more: u8) -> Vec<u8> {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "l", ".wh.a", ".wh..wh..opq", ".."];
    let name = |n: u8| NAMES[usize::from(n % 8)];
    let deep = byte / 64;
    let first = [name(byte % 4), name(byte / 4 % 4), name(byte / 16 % 4)];
    let mut parts: Vec<_> = first[..usize::from(deep)].to_vec();
    parts.push(name(more));
    parts.join("/").into_bytes()
}

/// Layers from bytes: each five say what an entry is, where, and what it has.
fn tars(data: &[u8]) -> Vec<Vec<u8>> {
    let mut tars = vec![Vec::new()];
    for (n, step) in data.chunks_exact(5).take(200).enumerate() {
        let [what, byte, more, target, size] = [step[0], step[1], step[2], step[3], step[4]];
        if what >= 240 && tars.len() < 5 {
            tars.push(Vec::new());
            continue;
        }
        let (name, target) = (path(byte, more), path(target, target >> 3));
        // Some that fill blocks, and some that are holes for the most part.
        let size = usize::from(size) * 61;
        let (kind, target, size) = match what % 8 {
            0 => (b'5', vec![], 0),
            1 => (
                b'2',
                [b"../".repeat(usize::from(what / 8 % 3)), target].concat(),
                0,
            ),
            2 => (b'1', target, 0),
            3 => (b'6', vec![], 0),
            4 if what % 16 == 4 => (b'3', vec![], 0),
            _ => (b'0', vec![], size),
        };
        let tar = tars.last_mut().expect("one");
        tar.extend_from_slice(&header(kind, &name, &target, size, n));
        let end = tar.len() + size;
        tar.resize(end, content(i64::try_from(n).unwrap_or(0)));
        if what & 0x20 != 0 && size > 9000 {
            tar[end - 8000..end - 100].fill(0);
        }
        tar.resize(end.next_multiple_of(BLOCK), 0);
    }
    for tar in &mut tars {
        tar.resize(tar.len() + 2 * BLOCK, 0);
    }
    tars
}

/// Layers on top of each other: refused in words, or a file system in which everything is what the tree says, and each
/// file has the bytes of the entry whose time it has.
pub fn layers(data: &[u8]) {
    let Some((flat, steps)) = data.split_first() else {
        return;
    };
    let tars = tars(steps);
    let flat = flat % 4 == 0;
    let count = if flat { 1 } else { tars.len() };
    let files: Vec<_> = tars[..count]
        .iter()
        .map(|tar| Arc::new(memory(tar)))
        .collect();
    let into = memory(b"");
    match dry::image(&files, flat, &limits(), &into) {
        Err(refused) => in_words(&refused),
        Ok(made) => {
            digest_is_of(&made, &into, flat);
            same(&made.tree, into, true);
        }
    }
}

/// Any bytes as a layer, with the checksum of every block made right: most would not be looked at.
pub fn layer_tar(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    if how & 1 != 0 {
        for block in bytes.chunks_exact_mut(BLOCK) {
            // Where a checksum would be; content that looks so changes, and nobody minds.
            if block[148..154]
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0))
            {
                mended(block);
            }
        }
    }
    let into = memory(b"");
    let file = Arc::new(memory(&bytes));
    match dry::image(&[file], how & 2 != 0, &limits(), &into) {
        Err(refused) => in_words(&refused),
        Ok(made) => {
            digest_is_of(&made, &into, false);
            same(&made.tree, into, false);
        }
    }
}

/// The digest that was made while the file was written is the file's. Of a flat archive there always is one: its bytes come in
/// the order of their places.
fn digest_is_of(made: &dry::Dry, file: &File, always: bool) {
    let Some(told) = &made.digest else {
        assert!(!always, "it was not written forwards");
        return;
    };
    let len = file.metadata().expect("a file in memory").len();
    let mut bytes = vec![0; usize::try_from(len).expect("a small file")];
    file.read_exact_at(&mut bytes, 0).expect("its bytes");
    assert_eq!(*told, hex::encode(&Sha256::digest(&bytes)));
}

fn in_words(refused: &banger_image::Error) {
    let told = refused.to_string();
    assert!(!told.is_empty() && !told.contains('\n'), "{told:?}");
}

/// The file system is the tree.
fn same(tree: &Tree, file: File, known: bool) {
    let view = FileSystem::open(file).expect("what was written is read");
    let mut left = vec![(
        InodeId::ROOT,
        view.node(FileSystem::<File>::ROOT).expect("a root"),
    )];
    let mut seen = 0;
    while let Some((id, node)) = left.pop() {
        let inode = &tree.inodes[id.0 as usize];
        seen += 1;
        assert!(seen <= 100_000, "a tree ends");
        assert_eq!(
            (node.mode, node.uid, node.gid),
            (inode.meta.mode, inode.meta.uid, inode.meta.gid)
        );
        match &inode.kind {
            Kind::Directory(entries) => {
                let found = view.entries(&node).expect("entries");
                for entry in entries {
                    let named = found.iter().find(|named| named.name == entry.name);
                    let below = named.expect("the name").inode;
                    left.push((entry.inode, view.node(below).expect("the inode")));
                }
            }
            Kind::Symlink(target) => assert_eq!(view.target(&node).expect("a target"), target[..]),
            Kind::File { size, .. } => {
                assert_eq!(node.size, *size);
                if known {
                    uniform(&view, &node, inode);
                }
            }
            _ => {}
        }
    }
}

fn uniform(view: &FileSystem<File>, node: &Node, inode: &Inode) {
    let map = view.content(node).expect("content");
    let mut bytes = vec![0; usize::try_from(node.size).expect("small")];
    view.read(&map, 0, &mut bytes).expect("bytes");
    let (own, len) = (content(inode.meta.mtime.seconds), bytes.len());
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    assert!(
        bytes.iter().all(|byte| [0, own].contains(byte)),
        "bytes of another file"
    );
    assert!(
        zeros == 0 || (zeros == 7900 && len > 9000),
        "{zeros} of {len} bytes are zeros"
    );
}

/// Manifests, indices and configurations: what is accepted is of a form that can be asked for.
pub fn documents(data: &[u8]) {
    let Some((&layers, text)) = data.split_first() else {
        return;
    };
    if let Err(refused) = layers_of(text, usize::from(layers)) {
        in_words(&refused);
    }
    let proven = |hex: &str| {
        let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        assert!(
            hex.len() == 64 && hex.bytes().all(lower),
            "'{hex}' is no sha256"
        );
    };
    match read_remote(text) {
        Err(refused) => in_words(&refused),
        Ok(RemoteDocument::Index(chosen)) => {
            proven(&chosen.sha256);
            assert!(chosen.size <= 4 << 20);
        }
        Ok(RemoteDocument::Image { config, layers }) => {
            proven(&config.sha256);
            assert!(config.size <= 4 << 20 && layers.len() <= 1024);
            layers.iter().for_each(|layer| proven(&layer.sha256));
        }
    }
}

/// A reference is refused in words, or means the same however it is written, and is a path of a URL and nothing else.
pub fn references(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read: ImageReference = match text.parse() {
        Ok(read) => read,
        Err(refused) => {
            let refused: banger_model::ReferenceError = refused;
            return assert!(!refused.to_string().is_empty());
        }
    };
    let shown = read.to_string();
    let again: ImageReference = shown.parse().expect("what is shown is read");
    assert_eq!(again, read, "'{text}' is shown as '{shown}'");
    let legal = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'.' | b'_' | b'-')
    };
    let repository = read.repository();
    assert!(repository.bytes().all(legal), "'{repository}'");
    let part = |part: &str| !part.is_empty() && !part.starts_with('.');
    assert!(repository.split('/').all(part), "'{repository}'");
    assert!(!read.registry().is_empty() && !read.registry().contains(['/', '@', ' ']));
}
