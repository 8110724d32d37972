//! Images (root file systems to boot) and the templates empty disks are copied from.
//!
//! An image is a directory `images/<id>/` with a read-only ext4 file and a manifest; the directories
//! are the truth, there is no other catalogue. The id is the head of the file's digest, so an image
//! never changes under a VM that pins it. Publishing is stage, fsync, rename (R-IMG-5).

mod bundle;
mod debian;
mod digest;
#[doc(hidden)]
pub mod dry;
mod error;
mod export;
mod ext4;
mod external;
mod flatten;
mod home;
mod import;
mod layer;
mod lock;
mod manifest;
mod oci;
mod owners;
mod place;
mod sources;
mod staging;
mod store;
mod tarball;
pub mod template;
mod watermark;

pub use debian::{DebianBuild, Taken};
pub use error::{Error, Result, UNSHARED};
pub use export::{Exported, Format};
pub use ext4::pack;
pub use external::External;
pub use import::{Import, Moves};
pub use layer::Limits;
pub use manifest::check_name;
pub use manifest::{Manifest, ROOTFS_FILE};
pub use oci::{Fetched, RemoteBlob, RemoteDocument, layers_of, read_remote};
pub use owners::NoNamespace;
pub use store::{Deleted, ImageStore, Named};

/// What building reports and asks while it runs.
///
/// Methods take `&self`: a line is reported while cancelling is asked about, and from several threads.
pub trait Progress: Sync {
    /// A new stage begins: one short sentence for a person, without a full stop.
    fn stage(&self, text: &str);
    /// A line of detail from a program that was run.
    fn detail(&self, line: &str);
    /// So many bytes of what comes in were taken.
    fn moved(&self, _bytes: u64) {}
    /// Polled between and within steps: true ends the work, and nothing is left behind.
    fn cancelled(&self) -> bool;
}

/// Progress nobody looks at, never cancelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}
