//! Images as other tools save them: an OCI image layout, or what `docker save` and `podman save` write; both as a tar.

mod archive;
mod config;
mod documents;
mod remote;

pub(crate) use archive::{Archive, Layer, is_archive, is_root, read};
pub(crate) use documents::DOCUMENT_MAX;
pub(crate) use remote::fetched;
pub use remote::{
    Descriptor as RemoteBlob, Document as RemoteDocument, Fetched, layers_of, read as read_remote,
};
