//! What a bundle is: an archive of exactly two files, one of which says what the other is (R-IMG-1).

use crate::Manifest;
use banger_model::{ImageConfig, ImageOrigin};
use serde::{Deserialize, Serialize};

/// The file system in a bundle.
pub(crate) const ROOTFS_NAME: &str = "rootfs.ext4";
/// What is said of it.
pub(crate) const MANIFEST_NAME: &str = "manifest.json";

/// `manifest.json` of a bundle: what it says of the image and of nothing else on the machine where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleManifest {
    /// Format of this file; 1.
    pub format: u32,
    /// What the image is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `sha256:` and 64 hex digits: of `rootfs.ext4`.
    pub digest: String,
    /// Length of that file in bytes.
    pub size: u64,
    /// Distribution and release, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub distro: String,
    /// Architecture as `uname -m` calls it.
    pub arch: String,
    /// Kernel that suits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// How it is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ImageConfig>,
    /// How it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ImageOrigin>,
}

impl BundleManifest {
    /// Format this program writes and reads.
    pub(crate) const FORMAT: u32 = 1;

    /// What is said of an image that goes by this name.
    pub(crate) fn of(image: &Manifest, name: Option<&str>) -> Self {
        BundleManifest {
            format: Self::FORMAT,
            name: name.map(str::to_owned),
            digest: image.digest.clone(),
            size: image.size,
            distro: image.distro.clone(),
            arch: image.arch.clone(),
            kernel: image.kernel.clone(),
            config: image.config.clone(),
            origin: image.origin.clone(),
        }
    }
}
