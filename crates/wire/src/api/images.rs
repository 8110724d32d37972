//! Requests and answers about images.

pub use banger_model::{ImageConfig, ImageLayer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `image.import`: makes an image of the body of the request: a tar (plain or packed with gzip, xz or zstd) of a root file
/// system or of an image's layers (an OCI layout, `docker save`), or an ext4 file system. This object comes in the header `banger-request` ([`super::REQUEST_HEADER`]).
/// Streams events; the image is told by [`super::Event::Image`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageImport {
    /// Names of the new image, at least one.
    pub names: Vec<String>,
    /// Names that other images have move to the new one.
    #[serde(default)]
    pub replace: bool,
    /// Of an archive of several images the one that is called so there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// Where it comes from, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Length of the body in bytes, where it is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// `image.list`: all images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageList {}

/// `image.show`: one image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageShow {
    /// Reference: name, id, or unique id prefix.
    pub image: String,
}

/// `image.delete`: takes a name from an image that has several; removes one that has no other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageDelete {
    /// Reference: name, id, or unique id prefix.
    pub image: String,
    /// Removes it whatever other names it has. An image that a VM uses stays.
    #[serde(default)]
    pub force: bool,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageView {
    /// Identity: the head of the digest.
    pub id: String,
    /// Names that mean it now; none if all have moved to others.
    pub names: Vec<String>,
    /// `sha256:` and 64 hex digits: of the root file system's file.
    pub digest: String,
    /// Length of that file in bytes.
    pub size: u64,
    /// Bytes it takes on the disk, with what is kept beside it.
    pub disk_usage: u64,
    /// Bytes that would be free without it: of its files what nobody shares, and of its layers in the cache what no other
    /// image has.
    #[serde(default)]
    pub own: u64,
    /// Bytes that others have as well: blocks of its files (disks and templates cloned from it, images cloned from one
    /// file), and layers in the cache that other images have.
    #[serde(default)]
    pub shared: u64,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Digests it has in registries: what was pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repo_digests: Vec<String>,
    /// Distribution and release, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distro: Option<String>,
    /// The file outside that it is (`image.register`); none if it is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// Architecture as `uname -m` calls it.
    pub arch: String,
    /// Kernel that suits it; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// How it is run where nothing else is asked for; only what came as an image archive says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ImageConfig>,
    /// sha256 of its configuration, in hex: what Docker calls the image's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
    /// When its builder made it (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The layers it was made of, oldest first; none if it came as one file system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ImageLayer>,
    /// Names of the VMs that use it.
    pub used_by: Vec<String>,
}

/// Answer of `image.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageDeleted {
    /// The image.
    pub id: String,
    /// Names that mean it no more.
    pub names: Vec<String>,
    /// Whether the image itself is gone; false if it has other names.
    pub gone: bool,
}
