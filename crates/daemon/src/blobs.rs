//! The cache behind pulled images: which image needs what of it, and what goes when it is pruned.

use crate::catalogue::{Catalogue, told};
use banger_image::{Manifest, Named};
use banger_registry::{Cached, Error, Prune};
use banger_wire::api::{self, ApiError, BlobView, Code, HistoryView};
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, ApiError>;

/// Blobs in the cache by their sha256: their bytes, and how many images need each.
#[derive(Debug, Default)]
pub struct BlobUsers(BTreeMap<String, (u64, usize)>);

impl BlobUsers {
    /// Counts who needs what is here.
    fn count<'a>(cached: Vec<Cached>, images: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let whole = cached.into_iter().filter(|cached| cached.whole);
        let mut users: BTreeMap<_, _> = whole.map(|c| (c.sha256, (c.size, 0))).collect();
        for image in images {
            for blob in needed_by(image) {
                if let Some((_, count)) = users.get_mut(blob) {
                    *count += 1;
                }
            }
        }
        BlobUsers(users)
    }

    /// Bytes of an image's blobs that other images need too, and of those that it needs alone.
    pub fn of(&self, image: &Manifest) -> (u64, u64) {
        let mut sums = (0, 0);
        for blob in needed_by(image) {
            match self.0.get(blob) {
                Some((size, 0 | 1)) => sums.1 += size,
                Some((size, _)) => sums.0 += size,
                None => {}
            }
        }
        sums
    }
}

/// sha256 of the blobs that an image was made of, each once.
fn needed_by(image: &Manifest) -> BTreeSet<&str> {
    let origin = image.origin.iter();
    origin
        .flat_map(|origin| {
            let layers = origin.layers.iter().map(|layer| &*layer.sha256);
            layers.chain([&*origin.config])
        })
        .collect()
}

/// An error of the cache.
struct Failed(ApiError);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let told = ApiError::of(Code::OperationFailed, &error);
        Failed(match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        })
    }
}

impl Catalogue {
    /// Who needs what is in the cache; where that cannot be read nothing is there.
    pub(crate) fn blob_users(&self, images: &[Named]) -> BlobUsers {
        let (cache, _) = self.registry();
        let cached = cache.list().unwrap_or_default();
        BlobUsers::count(cached, images.iter().map(|image| &image.manifest))
    }

    /// `blob.prune`.
    ///
    /// # Errors
    /// The images or the cache cannot be read, or a blob cannot be removed.
    pub fn prune_blobs(&self, request: &api::BlobPrune) -> Result<Vec<BlobView>> {
        self.writable()?;
        let (cache, _) = self.registry();
        let needed = || {
            let images = self.store().list().map_err(|error| Failed(told(&error)))?;
            let stays = |image: &&Named| !request.without.contains(&image.manifest.id);
            let needed = images.iter().filter(stays);
            let needed = needed.flat_map(|image| needed_by(&image.manifest));
            Ok(needed.map(str::to_owned).collect())
        };
        let prune = Prune {
            all: request.all,
            dry_run: request.dry_run,
        };
        let gone = cache.prune(prune, needed);
        let gone = gone.map_err(|Failed(error)| error)?.into_iter();
        let view = |cached: Cached| BlobView {
            digest: format!("sha256:{}", cached.sha256),
            size: cached.size,
            whole: cached.whole,
        };
        Ok(gone.map(view).collect())
    }

    /// `image.history`.
    ///
    /// # Errors
    /// No such image.
    pub fn history(&self, reference: &str) -> Result<Vec<HistoryView>> {
        let image = self.find(reference)?;
        let origin = image.origin.unwrap_or_default();
        let view =
            |(step, layer): (&banger_model::ImageStep, Option<&banger_model::ImageLayer>)| {
                HistoryView {
                    step: step.clone(),
                    size: layer.map_or(0, |layer| layer.unpacked),
                    layer: layer.cloned(),
                }
            };
        Ok(origin.steps().into_iter().rev().map(view).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(id: &str, config: &str, layers: &[&str]) -> Manifest {
        let layer =
            |sha256: &&str| json!({"sha256": sha256, "diff_id": "", "size": 0, "unpacked": 0});
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let origin = json!({"config": config, "layers": layers});
        let manifest = json!({
            "format": 1, "id": id, "name": "", "distro": "", "arch": "", "digest": "", "size": 0, "created": 0,
            "kernel": null, "origin": origin,
        });
        serde_json::from_value(manifest).unwrap()
    }

    #[test]
    fn a_blob_is_shared_by_those_who_need_it_and_counted_once_each() {
        let cached = |sha256: &str, size, whole| Cached {
            sha256: sha256.to_owned(),
            size,
            whole,
        };
        let (one, two) = (
            image("1", "c1", &["base", "own", "own"]),
            image("2", "c2", &["base", "away"]),
        );
        let here = vec![
            cached("c1", 1, true),
            cached("c2", 2, true),
            cached("base", 100, true),
            cached("own", 10, true),
            cached("away", 1000, false),
            cached("nobodys", 5000, true),
        ];
        let users = BlobUsers::count(here, [&one, &two]);
        assert_eq!(users.of(&one), (100, 11));
        assert_eq!(users.of(&two), (100, 2));
    }
}
