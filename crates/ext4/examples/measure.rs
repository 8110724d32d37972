//! How long writing a file system takes, against copying the same bytes: `cargo run --release -p banger-ext4 --example measure`.
//!
//! Both end with fsync. The bytes come from memory in both, so that only writing is compared. Prints one line of figures.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

use banger_ext4::{Entry, Extent, Inode, InodeId, Kind, Layout, Meta, Options, Placer, Tree};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Bytes of content, in files as a Debian root has them: 20 000, most of them small.
const CONTENT: u64 = 300 << 20;
const FILES: u64 = 20_000;
const PIECE: usize = 256 << 10;

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = tempfile::tempdir_in(dir).unwrap();
    let bytes: Vec<u8> = (0..PIECE * 4).map(|at| (at * 7 % 251) as u8).collect();
    let tree = tree();
    let mut figures = Vec::new();
    for round in 0..5 {
        let copied = copy(&dir.path().join("copy"), &bytes);
        let (planned, metadata, written, size) = write(&dir.path().join("image"), &tree, &bytes);
        // The first round warms up.
        if round > 0 {
            figures.push((
                written.as_secs_f64() / copied.as_secs_f64(),
                copied,
                written,
            ));
        }
        println!(
            "copy {copied:.0?}; layout {planned:.1?}, metadata {metadata:.1?}, all {written:.0?}, {} MiB",
            size >> 20
        );
    }
    figures.sort_by(|one, other| one.0.total_cmp(&other.0));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "median ratio {:.2}, {}",
        figures[figures.len() / 2].0,
        peak.unwrap_or_default()
    );
}

/// Directories of 100 files; sizes from few bytes to megabytes.
fn tree() -> Tree {
    let meta = || Meta {
        mode: 0o755,
        ..Meta::default()
    };
    let mut inodes = vec![Inode {
        meta: meta(),
        kind: Kind::Directory(vec![]),
    }];
    let mut add = |parent: u32, kind: Kind| {
        let id = u32::try_from(inodes.len()).unwrap();
        inodes.push(Inode { meta: meta(), kind });
        if let Kind::Directory(entries) = &mut inodes[parent as usize].kind {
            entries.push(Entry {
                name: format!("name-{id:06}").into_bytes().into(),
                inode: InodeId(id),
            });
        }
        id
    };
    let mut left = CONTENT;
    let mut directory = 0;
    for at in 0..FILES {
        if at % 100 == 0 {
            directory = add(0, Kind::Directory(vec![]));
        }
        let wanted = if at % 50 == 49 {
            500_000
        } else {
            at % 37 * 300 + 1
        };
        let len = if at + 1 == FILES {
            left
        } else {
            wanted.min(left)
        };
        left -= len;
        let data = if len == 0 {
            vec![]
        } else {
            vec![Extent { offset: 0, len }]
        };
        add(directory, Kind::File { size: len, data });
    }
    Tree { inodes }
}

/// Writes as many bytes into one file, as `cp` does.
fn copy(path: &std::path::Path, bytes: &[u8]) -> Duration {
    let _ = std::fs::remove_file(path);
    let started = Instant::now();
    let file = File::create(path).unwrap();
    for offset in (0..CONTENT).step_by(PIECE) {
        file.write_all_at(&bytes[..PIECE], offset).unwrap();
    }
    file.sync_all().unwrap();
    started.elapsed()
}

fn write(path: &std::path::Path, tree: &Tree, bytes: &[u8]) -> (Duration, Duration, Duration, u64) {
    let _ = std::fs::remove_file(path);
    let started = Instant::now();
    let layout = Layout::new(tree, &Options::new([7; 16])).unwrap();
    let planned = started.elapsed();
    let file = File::create(path).unwrap();
    file.set_len(layout.size()).unwrap();
    let metadata = Instant::now();
    layout.write_metadata(tree, &file).unwrap();
    let metadata = metadata.elapsed();
    let mut placer = Placer::new(&layout, &file);
    for (id, inode) in (0..).map(InodeId).zip(&tree.inodes) {
        if let Kind::File { size, .. } = inode.kind {
            for offset in (0..size).step_by(PIECE) {
                let len = usize::try_from(size - offset).unwrap().min(PIECE);
                placer.place(id, offset, &bytes[..len]).unwrap();
            }
        }
    }
    placer.finish().unwrap();
    file.sync_all().unwrap();
    (planned, metadata, started.elapsed(), layout.size())
}
