//! Finds an image in an archive that lies unpacked in a file, by the archive's own index.

use super::documents::{
    Configuration, DOCUMENT_MAX, Descriptor, Document, LAYERS_MAX, Platform, Saved, named_by,
    parse, sha256_of,
};
use crate::flatten::Flatten;
use crate::layer::Blob;
use crate::{Error, Result, digest};
use banger_model::{ImageConfig, ImageOrigin, ImageReference};
use std::{fs::File, sync::Arc};

/// How deep indices may refer to indices.
const DEPTH: usize = 4;
/// Names of the root directory that an archive of layers has not.
const OF_ROOTS: [&str; 5] = ["bin", "sbin", "usr", "etc", "init"];

/// An image in an archive.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Its layers, oldest first.
    pub layers: Vec<Layer>,
    /// How it is run.
    pub config: ImageConfig,
    /// How it was built; its layers are told by whoever reads them.
    pub origin: ImageOrigin,
}

/// What a configuration says.
#[derive(Debug)]
pub(super) struct Configured {
    /// How the image is run.
    pub config: ImageConfig,
    /// How it was built, without layers.
    pub origin: ImageOrigin,
    /// sha256 of each layer unpacked, in hex, oldest first.
    pub diff_ids: Vec<String>,
}

/// A layer of it.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Its bytes.
    pub blob: Blob,
    /// sha256 of these, in hex, where the archive says it.
    pub sha256: Option<String>,
    /// sha256 of what they are unpacked, in hex.
    pub diff_id: String,
}

/// Whether an archive is one of image layers, and no root file system.
pub(crate) fn is_archive(archive: &Flatten) -> bool {
    has_any(archive, &["oci-layout", "manifest.json"]) && !is_root(archive)
}

/// Whether an archive has what root file systems have.
pub(crate) fn is_root(archive: &Flatten) -> bool {
    has_any(archive, &OF_ROOTS)
}

fn has_any(archive: &Flatten, names: &[&str]) -> bool {
    names.iter().any(|name| archive.has(name.as_bytes()))
}

/// Finds the image for this machine; of several the one that is called `only`.
///
/// # Errors
/// There is none or are several, or what the archive says of it contradicts itself.
pub(crate) fn read(archive: &Flatten, file: &Arc<File>, only: Option<&str>) -> Result<Archive> {
    let source = Source {
        archive,
        file,
        only,
    };
    if archive.has(b"index.json") {
        source.layout()
    } else {
        source.saved()
    }
}

pub(super) fn bad(why: impl Into<String>) -> Error {
    Error::BadArchive(why.into())
}

fn prove(bytes: &[u8], sha256: &str, what: &str) -> Result<()> {
    if digest::sha256(bytes) == sha256 {
        return Ok(());
    }
    Err(bad(format!(
        "the bytes of {what} are not those of its digest"
    )))
}

/// The archive's entries and where its bytes are.
struct Source<'a> {
    archive: &'a Flatten,
    file: &'a Arc<File>,
    /// What the image is called that is wanted.
    only: Option<&'a str>,
}

impl Source<'_> {
    fn blob(&self, path: &str, what: &str) -> Result<Blob> {
        let blob = self.archive.blob(path.as_bytes(), self.file);
        blob.ok_or_else(|| {
            let path = crate::layer::shown(path.as_bytes());
            bad(format!("{what} is missing: it has no file '{path}'"))
        })
    }

    fn document(&self, path: &str) -> Result<Vec<u8>> {
        self.blob(path, path)?.bytes(DOCUMENT_MAX, path)
    }

    /// What a descriptor speaks of, not yet proven but for its length.
    fn described(&self, descriptor: &Descriptor, what: &str) -> Result<(Blob, String)> {
        let hex = sha256_of(&descriptor.digest, what)?;
        let blob = self.blob(&format!("blobs/sha256/{hex}"), what)?;
        if blob.len != descriptor.size {
            return Err(bad(format!(
                "{what} has {} bytes and should have {}",
                blob.len, descriptor.size
            )));
        }
        Ok((blob, hex.to_owned()))
    }

    /// A document that a descriptor speaks of, proven.
    fn proven(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let (blob, hex) = self.described(descriptor, what)?;
        let bytes = blob.bytes(DOCUMENT_MAX, what)?;
        prove(&bytes, &hex, what)?;
        Ok(bytes)
    }

    /// An OCI image layout.
    fn layout(&self) -> Result<Archive> {
        let mut document: Document = parse(&self.document("index.json")?, "index.json")?;
        if let (Some(only), Some(all)) = (self.only, &document.manifests) {
            let called = |d: &&Descriptor| is_called(&name(d), only);
            let named: Vec<_> = all.iter().filter(called).cloned().collect();
            if named.is_empty() {
                let all: Vec<_> = all.iter().collect();
                return Err(not_in_archive(only, &names(&all)));
            }
            document.manifests = Some(named);
        }
        for _ in 0..DEPTH {
            if let Some(layers) = document.layers {
                let config = document
                    .config
                    .ok_or_else(|| bad("its manifest has no config"))?;
                return self.image(&config, &layers);
            }
            let manifests = document.manifests.unwrap_or_default();
            // Archives of one platform keep the index of all.
            let there = |d: &Descriptor| self.described(d, "a manifest").is_ok();
            let chosen = choose(&manifests, &there)?;
            document = parse(&self.proven(&chosen, "a manifest")?, "a manifest")?;
        }
        Err(bad("its indices refer to each other too deep"))
    }

    fn image(&self, config: &Descriptor, layers: &[Descriptor]) -> Result<Archive> {
        let bytes = self.proven(config, "the configuration")?;
        let told = configured(&bytes, layers.len())?;
        let layers = stacked(layers, told.diff_ids, |n, descriptor| {
            let what = format!("layer {}", n + 1);
            if descriptor.media_type.contains("encrypted") {
                return Err(bad(format!("{what} is encrypted")));
            }
            let (blob, hex) = self.described(descriptor, &what)?;
            Ok((blob, Some(hex)))
        })?;
        Ok(Archive {
            layers,
            config: told.config,
            origin: told.origin,
        })
    }

    /// Docker's own form.
    fn saved(&self) -> Result<Archive> {
        let saved: Vec<Saved> = parse(&self.document("manifest.json")?, "manifest.json")?;
        let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let wanted = |saved: &&Saved| {
            self.only
                .is_none_or(|only| tags(saved).iter().any(|tag| is_called(tag, only)))
        };
        let found: Vec<_> = saved.iter().filter(wanted).collect();
        let all: Vec<_> = saved.iter().flat_map(tags).collect();
        let [saved] = found[..] else {
            return Err(match (saved.is_empty(), self.only) {
                (true, _) => bad("its manifest.json has no image"),
                (_, Some(only)) if found.is_empty() => not_in_archive(only, &all),
                _ => Error::SeveralImages(shown_list(&all)),
            });
        };
        let bytes = self.document(&saved.config)?;
        if let Some(hex) = named_by(&saved.config) {
            prove(&bytes, hex, "the configuration")?;
        }
        let told = configured(&bytes, saved.layers.len())?;
        let find = |_, path: &String| Ok((self.blob(path, "a layer")?, None));
        let layers = stacked(&saved.layers, told.diff_ids, find)?;
        Ok(Archive {
            layers,
            config: told.config,
            origin: told.origin,
        })
    }
}

/// Layers that are found one by one, each with what the configuration says of it.
fn stacked<T>(
    told: &[T],
    diff_ids: Vec<String>,
    find: impl Fn(usize, &T) -> Result<(Blob, Option<String>)>,
) -> Result<Vec<Layer>> {
    let found = told.iter().zip(diff_ids).enumerate();
    let found = found.map(|(n, (told, diff_id))| {
        let (blob, sha256) = find(n, told)?;
        Ok(Layer {
            blob,
            sha256,
            diff_id,
        })
    });
    found.collect()
}

/// The manifest for this machine: one that says so before one that says nothing.
pub(super) fn choose(
    manifests: &[Descriptor],
    there: &dyn Fn(&Descriptor) -> bool,
) -> Result<Descriptor> {
    let ours = |d: &&Descriptor| d.platform.as_ref().is_none_or(is_ours);
    let mut found: Vec<&Descriptor> = manifests.iter().filter(ours).collect();
    if found.len() > 1 {
        found.retain(|d| there(d));
    }
    if found.iter().any(|d| d.platform.is_some()) {
        found.retain(|d| d.platform.is_some());
    }
    found.dedup_by(|a, b| a.digest == b.digest);
    match found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let platforms = manifests.iter().filter_map(|d| d.platform.as_ref());
            let told: Vec<_> = platforms
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .collect();
            Err(Error::OtherPlatform(shown_list(&told)))
        }
        _ => Err(Error::SeveralImages(shown_list(&names(&found)))),
    }
}

/// What a configuration says, if the image is for this machine.
pub(super) fn configured(bytes: &[u8], layers: usize) -> Result<Configured> {
    let read: Configuration = parse(bytes, "the configuration")?;
    let platform = Platform {
        os: read.os,
        architecture: read.architecture,
        variant: String::new(),
    };
    if !platform.os.is_empty() && !is_ours(&platform) {
        let told = format!("{}/{}", platform.os, platform.architecture);
        return Err(Error::OtherPlatform(shown_list(&[told])));
    }
    let told = read.rootfs.diff_ids;
    if layers == 0 || layers > LAYERS_MAX || told.len() != layers {
        let known = told.len();
        return Err(bad(format!(
            "it has {layers} layers, and its configuration knows {known}"
        )));
    }
    let ids = told
        .iter()
        .map(|id| sha256_of(id, "a layer").map(str::to_owned));
    let diff_ids = ids.collect::<Result<_>>()?;
    let mut config = read.config.unwrap_or_default();
    let history = read.history.unwrap_or_default();
    let origin = ImageOrigin {
        created: read.created.filter(|created| !created.is_empty()),
        config: digest::sha256(bytes),
        layers: Vec::new(),
        labels: config.labels.take().unwrap_or_default(),
        history: history.into_iter().map(Into::into).collect(),
    };
    Ok(Configured {
        config: config.into(),
        origin,
        diff_ids,
    })
}

/// Whether programs for it run here (the names are Go's).
fn is_ours(platform: &Platform) -> bool {
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    // `v1` is what every amd64 is, `v8` every arm64.
    let runs = matches!(platform.variant.as_str(), "" | "v1" | "v8");
    platform.os == "linux" && platform.architecture == ours && runs
}

/// What images of an index are called.
fn names(found: &[&Descriptor]) -> Vec<String> {
    found.iter().map(|descriptor| name(descriptor)).collect()
}

/// What an image of an index is called: by its builder, else by its digest.
fn name(descriptor: &Descriptor) -> String {
    let annotations = descriptor.annotations.as_ref();
    let name = [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ]
    .iter()
    .find_map(|key| annotations?.get(*key));
    name.unwrap_or(&descriptor.digest).clone()
}

/// Whether an image of this name is meant, in whatever way it is written.
fn is_called(name: &str, only: &str) -> bool {
    let read = |text: &str| text.parse::<ImageReference>().ok();
    name == only || read(name).is_some_and(|name| read(only) == Some(name))
}

fn not_in_archive(only: &str, has: &[String]) -> Error {
    Error::NotInArchive {
        wanted: crate::layer::shown(only.as_bytes()),
        has: shown_list(has),
    }
}

fn shown_list(names: &[String]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(20)
        .map(|n| crate::layer::shown(n.as_bytes()))
        .collect();
    match shown.is_empty() {
        true => "none that is named".to_owned(),
        false => shown.join(", "),
    }
}
