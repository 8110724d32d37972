//! Requests and answers about what becomes of images: their history, their way out, and the cache behind them.

use super::ImageView;
use banger_model::{CatalogEntry, ImageLayer, ImageStep};
use serde::{Deserialize, Serialize};

/// `image.history`: how an image was built, newest step first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageHistory {
    /// Reference: name, id, or unique id prefix.
    pub image: String,
}

/// A step of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryView {
    /// What its builder said of it.
    #[serde(flatten)]
    pub step: ImageStep,
    /// Bytes of what it added, unpacked; 0 if it made no layer.
    pub size: u64,
    /// The layer it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<ImageLayer>,
}

/// `image.register`: an image of an ext4 file that stays where it is. The daemon opens this one path itself, with the rights of the
/// user that it runs for: a regular file, never through a symlink as its last component. Streams events; the image is told by
/// [`super::Event::Image`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageRegister {
    /// Name of the new image.
    pub name: String,
    /// Absolute path of the file.
    pub path: String,
    /// A name that another image has moves to this one.
    #[serde(default)]
    pub replace: bool,
}

/// `image.build`: an image of a distribution's packages, from this machine's package sources. Streams events; the image is told by
/// [`super::Event::Image`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageBuild {
    /// Name of the new image.
    pub name: String,
    /// What it is built from: `debian`, or `debian:SUITE`.
    pub from: String,
    /// Packages besides a small system's.
    #[serde(default)]
    pub packages: Vec<String>,
    /// A name that another image has moves to this one.
    #[serde(default)]
    pub replace: bool,
}

/// `image.promote`: copies the file of a registered image in. Streams events; the image is told by [`super::Event::Image`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImagePromote {
    /// Reference: name, id, or unique id prefix.
    pub image: String,
}

/// `image.catalog`: what the catalog of the configuration offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageCatalog {}

/// Something that a catalog offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CatalogView {
    /// What it is.
    #[serde(flatten)]
    pub entry: CatalogEntry,
    /// Whether it is here already.
    pub here: bool,
}

/// `image.export`: an image as an archive. Upgrades: events, then the archive's bytes as a copy's data, then its outcome. The
/// daemon writes no file of the client (R-OPS-3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageExport {
    /// Reference: name, id, or unique id prefix. A name is what the archive calls the image.
    pub image: String,
    /// What kind of archive.
    #[serde(default)]
    pub format: ExportFormat,
}

/// A kind of archive that an image can be exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A tar of an OCI image layout with one layer, which `docker load` and `podman load` read too.
    #[default]
    Oci,
    /// A tar, packed with zstd, of `manifest.json` and `rootfs.ext4`: the very same image.
    Bundle,
}

/// `blob.prune`: removes what registries sent and no image needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BlobPrune {
    /// Also what began to come within a day and is not whole.
    #[serde(default)]
    pub all: bool,
    /// Only tell what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Ids of images that need nothing: for a dry run, those that would go before.
    #[serde(default)]
    pub without: Vec<String>,
}

/// A blob of a registry in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BlobView {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes of it that are here.
    pub size: u64,
    /// Whether it is whole.
    pub whole: bool,
}

/// What `banger image prune --json` prints: what went, or would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImagesPruned {
    /// Images that nobody used.
    pub images: Vec<ImageView>,
    /// Blobs that no image needed.
    pub blobs: Vec<BlobView>,
    /// Bytes that all of it takes on the disk; what is shared with a disk or template goes with the last of them.
    pub bytes: u64,
}
