//! Images that nobody keeps, made of layers in any files: for who looks for bytes that break the making (`fuzz/`).

use crate::flatten::Flatten;
use crate::layer::{self, Blob, Content, End, Form, Watch};
use crate::place::place_hashed;
use crate::{Error, Limits, Result, Silent};
use banger_ext4::{Layout, Options, Tree};
use std::{fs::File, sync::Arc};

/// A file system that was made.
#[derive(Debug)]
pub struct Dry {
    /// What is in it.
    pub tree: Tree,
    /// sha256 of its file, where it was made while that was written.
    pub digest: Option<String>,
}

/// Makes a file system of these layers, oldest first, in `into`, just as an import would.
///
/// # Errors
/// A layer is none, or is refused.
pub fn image(layers: &[Arc<File>], flat: bool, limits: &Limits, into: &File) -> Result<Dry> {
    let room = || Ok(());
    let watch = Watch::new(limits, &room, &Silent);
    let (form, end) = match flat {
        true => (Form::Flat, End::Marked),
        false => (Form::Layer, End::Open),
    };
    let mut root = Flatten::new(limits, form);
    let mut blobs = Vec::new();
    for (n, file) in layers.iter().enumerate() {
        let len = file.metadata().map_err(Error::damaged)?.len();
        let file = Arc::clone(file);
        let blob = Blob {
            file,
            start: 0,
            len,
        };
        if n > 0 {
            root.next_layer();
        }
        let mut reader = blob.reader();
        let Content::Tar(stream) = layer::open(&mut reader)? else {
            return Err(Error::BadArchive("a layer is no tar".to_owned()));
        };
        layer::index(stream, form, end, &watch, &mut |entry| root.take(entry))?;
        blobs.push(blob);
    }
    let made = root.finish();
    let mut options = Options::new([7; 16]);
    options.bytes_per_inode = 0;
    options.grow_to = 0;
    let layout = Layout::new(&made.tree, &options)?;
    into.set_len(0).map_err(Error::unwritten)?;
    into.set_len(layout.size()).map_err(Error::unwritten)?;
    layout
        .write_metadata(&made.tree, into)
        .map_err(Error::unwritten)?;
    let digest = place_hashed(&blobs, &made.winners, (&layout, into), &watch)?;
    let tree = made.tree;
    Ok(Dry { tree, digest })
}
