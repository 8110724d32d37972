//! Layers on top of each other, as one tree of inodes: what a later layer has takes the place of what is below it. No
//! I/O: a layer comes as its entries, and what goes out says where every file's bytes are to be fetched.
//!
//! Every path is resolved in this tree, as if it were `/`: a symlink on the way leads to where it would lead there.

mod apply;
mod finish;
mod nodes;

#[cfg(test)]
mod tests;

pub(crate) use apply::Flatten;
pub(crate) use finish::{Flattened, Winner};
