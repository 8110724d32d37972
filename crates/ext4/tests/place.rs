//! Bytes gathered by a placer: what lies between them is zeros, and nobody else's.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{InodeId, Placer};
use common::{Builder, Image, inode, options, sparse};
use std::fs::File;
use std::os::unix::fs::FileExt;

fn written(image: &Image, inode: InodeId, offset: u64, len: usize) -> Vec<u8> {
    let (position, _) = image.layout.position(inode, offset).unwrap();
    let mut bytes = vec![0; len];
    let file = File::open(&image.path).unwrap();
    file.read_exact_at(&mut bytes, position).unwrap();
    bytes
}

#[test]
fn behind_the_end_of_a_file_there_are_zeros() {
    let mut tree = Builder::new();
    let files = ["a", "b", "c"].map(|name| tree.file(InodeId::ROOT, name, 5000));
    let image = Image::without_content(&tree.0, &options());
    let out = File::options().write(true).open(&image.path).unwrap();
    let mut placer = Placer::new(&image.layout, &out);
    for file in files {
        placer.place(file, 0, &[7; 5000]).unwrap();
    }
    placer.finish().unwrap();
    for file in files {
        let bytes = written(&image, file, 0, 8192);
        assert!(bytes[..5000].iter().all(|&byte| byte == 7));
        assert!(bytes[5000..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn what_another_has_placed_in_the_same_block_stays() {
    let mut tree = Builder::new();
    let data = [(0, 100), (200, 50), (4096, 10)];
    let file = tree.add(InodeId::ROOT, "a", inode(sparse(5000, &data), 0o644));
    let image = Image::without_content(&tree.0, &options());
    let out = File::options().write(true).open(&image.path).unwrap();
    image.layout.place(file, 200, &[5; 50], &out).unwrap();
    let mut placer = Placer::new(&image.layout, &out);
    placer.place(file, 0, &[7; 100]).unwrap();
    placer.place(file, 4096, &[9; 10]).unwrap();
    placer.finish().unwrap();
    assert_eq!(written(&image, file, 0, 100), [7; 100]);
    assert_eq!(written(&image, file, 200, 50), [5; 50]);
    assert_eq!(written(&image, file, 4096, 10), [9; 10]);
}
