//! Images as other tools save them: an OCI image layout, or what `docker save` and `podman save` write; both as a tar.

mod archive;
mod config;
mod documents;

pub(crate) use archive::{Archive, Layer, is_archive, read};
