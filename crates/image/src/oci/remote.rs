//! What a registry's documents say, one at a time: who fetches them is told which to fetch next.

use super::Archive;
use super::archive::{bad, choose, configured};
use super::documents::{self, DOCUMENT_MAX, LAYERS_MAX, parse, sha256_of};
use crate::layer::Blob;
use crate::{Error, Result};
use std::path::PathBuf;

/// Something in a registry, by what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// sha256 in hex.
    pub sha256: String,
    /// Number of bytes.
    pub size: u64,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Of several machines; this is the one for ours.
    Index(Descriptor),
    /// Of an image.
    Image {
        /// How it is run, and what its layers are unpacked.
        config: Descriptor,
        /// Its layers, oldest first.
        layers: Vec<Descriptor>,
    },
}

/// Reads a document.
///
/// # Errors
/// It is none, or of no image for this machine.
pub fn read(bytes: &[u8]) -> Result<Document> {
    document(bytes).map_err(Error::of_registry)
}

fn document(bytes: &[u8]) -> Result<Document> {
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(bad("its manifest is longer than 4 MiB"));
    }
    let read: documents::Document = parse(bytes, "the manifest")?;
    let Some(layers) = read.layers else {
        let Some(manifests) = read.manifests else {
            return Err(bad(
                "it has neither layers nor manifests: it is of a kind that is out of use, or no image",
            ));
        };
        let chosen = choose(&manifests, &|_| true)?;
        return Ok(Document::Index(descriptor(
            &chosen,
            "a manifest",
            Some(DOCUMENT_MAX),
        )?));
    };
    if layers.len() > LAYERS_MAX {
        return Err(bad(format!("it has {} layers", layers.len())));
    }
    let config = read
        .config
        .ok_or_else(|| bad("its manifest has no config"))?;
    let config = descriptor(&config, "the configuration", Some(DOCUMENT_MAX))?;
    let layers = layers.iter().enumerate().map(|(n, layer)| {
        let what = format!("layer {}", n + 1);
        match layer.media_type.contains("encrypted") {
            true => Err(bad(format!("{what} is encrypted"))),
            false => descriptor(layer, &what, None),
        }
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(Document::Image { config, layers })
}

fn descriptor(read: &documents::Descriptor, what: &str, most: Option<u64>) -> Result<Descriptor> {
    if most.is_some_and(|most| read.size > most) {
        return Err(bad(format!("{what} has {} bytes", read.size)));
    }
    Ok(Descriptor {
        sha256: sha256_of(&read.digest, what)?.to_owned(),
        size: read.size,
    })
}

/// Refuses a configuration that is not of this machine, or of another number of layers, before they are fetched.
///
/// # Errors
/// What is wrong.
pub fn layers_of(config: &[u8], layers: usize) -> Result<()> {
    configured(config, layers)
        .map(drop)
        .map_err(Error::of_registry)
}

/// An image whose configuration and layers have come: the layers as files, with their digests, oldest first.
pub(crate) fn fetched(config: &[u8], layers: Vec<(String, Blob)>) -> Result<Archive> {
    let told = configured(config, layers.len())?;
    let layers = layers.into_iter().zip(told.diff_ids);
    let layers = layers.map(|((sha256, blob), diff_id)| super::Layer {
        blob,
        sha256: Some(sha256),
        diff_id,
    });
    Ok(Archive {
        layers: layers.collect(),
        config: told.config,
        origin: told.origin,
    })
}

/// A layer that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// sha256 in hex.
    pub sha256: String,
    /// Where its bytes are.
    pub path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn index(platforms: &[(&str, &str)]) -> Vec<u8> {
        let manifests = platforms.iter().enumerate().map(|(n, (os, arch))| {
            let digest = format!("sha256:{n:064x}");
            serde_json::json!({"digest": digest, "size": 7, "platform": {"os": os, "architecture": arch}})
        });
        let manifests: Vec<_> = manifests.collect();
        serde_json::json!({"schemaVersion": 2, "manifests": manifests})
            .to_string()
            .into_bytes()
    }

    fn ours() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    #[test]
    fn the_manifest_of_this_machine_is_chosen_and_what_is_none_passed_over() {
        let all = index(&[
            ("linux", "s390x"),
            ("unknown", "unknown"),
            ("linux", ours()),
        ]);
        let chosen = Descriptor {
            sha256: format!("{:064x}", 2),
            size: 7,
        };
        assert_eq!(read(&all).unwrap(), Document::Index(chosen));
        let others = read(&index(&[("linux", "s390x"), ("windows", ours())]));
        assert!(matches!(others, Err(Error::OtherPlatform(told)) if told.contains("s390x")));
    }

    #[test]
    fn what_is_no_image_is_refused_as_a_registrys() {
        let digest = format!("sha256:{A}");
        let layer = serde_json::json!({"digest": digest, "size": 1, "mediaType": "x+encrypted"});
        let huge = serde_json::json!({"digest": digest, "size": DOCUMENT_MAX + 1});
        let fine = serde_json::json!({"digest": digest, "size": 2});
        for (bytes, why) in [
            (
                serde_json::json!({"schemaVersion": 1, "fsLayers": []}),
                "neither layers",
            ),
            (serde_json::json!({"layers": []}), "no config"),
            (
                serde_json::json!({"config": fine, "layers": [layer]}),
                "encrypted",
            ),
            (
                serde_json::json!({"config": huge, "layers": []}),
                "the configuration has",
            ),
            (
                serde_json::json!({"config": {"digest": "md5:1", "size": 1}, "layers": []}),
                "no sha256",
            ),
            (serde_json::json!([]), "neither layers"),
            (serde_json::json!(7), "cannot be read"),
        ] {
            let error = read(bytes.to_string().as_bytes()).unwrap_err();
            let told = error.to_string();
            assert!(
                matches!(error, Error::BadRemote(_)) && told.contains(why),
                "{told}"
            );
        }
        let image = serde_json::json!({"config": fine, "layers": [fine]}).to_string();
        let Document::Image { layers, .. } = read(image.as_bytes()).unwrap() else {
            panic!("no image");
        };
        assert_eq!(layers[0].sha256, A);
    }
}
