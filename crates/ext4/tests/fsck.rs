//! What e2fsprogs says of file systems made here.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use common::{Builder, Image, everything, options};

#[test]
fn a_bit_of_everything_is_a_whole_file_system() {
    Image::new(&everything(), &options()).check();
}

#[test]
fn an_empty_tree_is_one_too() {
    let tree = Builder::new().0;
    Image::new(&tree, &options()).check();
}
