//! The JSON of image archives: the OCI image specification 1.1 (index, manifest, configuration, descriptor), and the
//! `manifest.json` of Docker's own archives. Fields that nothing here needs are not read.

use super::config::{Step, Told};
use crate::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// The most bytes one document may have: what registries allow a manifest.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// The most layers an image may have: more than any builder makes.
pub(super) const LAYERS_MAX: usize = 1024;

/// Says where content is, and what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What machine something is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    pub architecture: String,
    pub os: String,
    pub variant: String,
}

/// An index or a manifest: one has `manifests`, the other `layers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

/// An image's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Configuration {
    pub architecture: String,
    pub os: String,
    pub created: Option<String>,
    pub config: Option<Told>,
    pub rootfs: RootFs,
    pub history: Option<Vec<Step>>,
}

/// What the layers are when unpacked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RootFs {
    pub diff_ids: Vec<String>,
}

/// One image of Docker's archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// Reads a document.
///
/// # Errors
/// It is none.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::BadArchive(format!("{what} cannot be read: {error}")))
}

/// Whether a text is a sha256 in lower-case hex.
fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The sha256 that Docker's archives call a document by: `<hex>.json`, or `blobs/sha256/<hex>`.
pub(super) fn named_by(path: &str) -> Option<&str> {
    let hex = path
        .strip_suffix(".json")
        .or_else(|| path.strip_prefix("blobs/sha256/"));
    hex.filter(|hex| is_sha256(hex))
}

/// The hex of a sha256 digest.
///
/// # Errors
/// It is no such digest.
pub(super) fn sha256_of<'a>(digest: &'a str, what: &str) -> Result<&'a str> {
    let hex = digest.strip_prefix("sha256:");
    hex.filter(|hex| is_sha256(hex)).ok_or_else(|| {
        let digest = crate::layer::shown(digest.as_bytes());
        Error::BadArchive(format!(
            "{what} has the digest '{digest}', which is no sha256"
        ))
    })
}
