//! `manifest.json`: what an image is.

use crate::{Error, External, Result};
use banger_model::{ImageConfig, ImageOrigin, ImageReference};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// File name of the root file system inside an image's directory.
pub const ROOTFS_FILE: &str = "rootfs.ext4";
/// File name of the archive of the image's `/root` inside an image's directory.
pub(crate) const HOME_FILE: &str = "home.tar";
/// File name of the manifest inside an image's directory.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// Description of one image. What it describes never changes: a new build is a new image, and the name moves to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file; 1.
    pub format: u32,
    /// First 12 hex digits of the digest.
    pub id: String,
    /// Name it was given first; empty when its names were taken away.
    pub name: String,
    /// Distribution and release, `debian-bookworm`.
    pub distro: String,
    /// Architecture as `uname -m` calls it.
    pub arch: String,
    /// `sha256:` and 64 hex digits: of the root file system's file.
    pub digest: String,
    /// Size of that file in bytes.
    pub size: u64,
    /// Unix time in seconds.
    pub created: u64,
    /// Kernel that suits it, as a reference to a kernel directory; `None`: any.
    pub kernel: Option<String>,
    /// Every name it was given with its turn: of several images with one name, the name means the one with the highest.
    /// Empty in a manifest that has just `name`, whose turn is 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, u64>,
    /// Where it came from, for a person: a file's name, a package source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Digests it has in registries, `docker.io/library/alpine@sha256:…`: what was pulled.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub repo_digests: BTreeSet<String>,
    /// How it is run where nothing else is asked for; only what came as an image archive says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ImageConfig>,
    /// The layers it was made of, its history and labels; only of what came as an image archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ImageOrigin>,
    /// The file outside that it is, where it is not kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

impl Manifest {
    /// Format this program writes and reads.
    pub const FORMAT: u32 = 1;
    /// Digits of an image id.
    pub const ID_DIGITS: usize = 12;

    /// Every name it was given and still has a turn with.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (&str, u64)> {
        let only =
            (self.names.is_empty() && !self.name.is_empty()).then_some((self.name.as_str(), 0));
        let named = self.names.iter().map(|(name, turn)| (name.as_str(), *turn));
        named.chain(only)
    }
}

/// Refuses names that could be an id or a path, and lets those pass that registries give, whole (`ghcr.io/a/b:tag`).
///
/// # Errors
/// It cannot name an image.
pub fn check_name(name: &str) -> Result<()> {
    let good = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && !is_id(name);
    if good || pulled_name(name).as_deref() == Some(name) {
        Ok(())
    } else {
        Err(Error::BadName(name.to_owned()))
    }
}

/// What an image is called that comes from a registry by this reference; `None` if it is none.
pub(crate) fn pulled_name(reference: &str) -> Option<String> {
    let read: ImageReference = reference.parse().ok()?;
    Some(read.familiar())
}

/// Whether a text has the form of an image id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == Manifest::ID_DIGITS && is_hex(text)
}

/// Whether a text is lower-case hex.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_ids_and_not_paths() {
        for good in [
            "debian",
            "debian-12",
            "a",
            "img_1.2",
            "0123456789a",
            "a:latest",
            "a/b:1",
            "q.io:5/a:1",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "A",
            "0123456789ab",
            "a b",
            "../a:1",
            "docker.io/library/a:1",
            "q.io/a",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
