//! From layers that came one by one, as a registry gives them, to an image: what an archive of the same layers makes.

use super::{Import, ROOM_MIB, archive};
use crate::layer::Watch;
use crate::oci::{self, Fetched};
use crate::{Error, ImageStore, Manifest, Progress, Result};
use banger_host::{Clock, Files, Tools};

impl<H: Files + Tools + Clock + Send + Sync> ImageStore<H> {
    /// Refuses what would fill the disk before it has come: layers of so many bytes, and what becomes of them.
    ///
    /// # Errors
    /// No room.
    pub fn check_layers(&self, bytes: u64) -> Result<()> {
        self.check_room((bytes >> 20) + ROOM_MIB)
    }

    /// Makes an image of a configuration and its layers, oldest first. Failed or cancelled, nothing is left behind.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub fn import_layers(
        &self,
        config: &[u8],
        layers: &[Fetched],
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Manifest> {
        self.check_import(import)?;
        let room = || self.check_room(ROOM_MIB);
        let watch = Watch::new(&self.limits, &room, progress);
        self.staged(|staging| {
            progress.stage("reading the image's layers");
            let opened = layers.iter().map(|layer| {
                let blob = archive::open(&layer.path)?;
                Ok((layer.sha256.clone(), blob))
            });
            let opened = opened.collect::<Result<_>>()?;
            let fetched = oci::fetched(config, opened)?;
            let mut assembled = archive::assemble(fetched, &watch)?;
            assembled.said.digest =
                self.write_image(staging, &assembled, &watch.again(), progress)?;
            self.import_staged(staging, assembled.said, import, progress)
        })
        .map_err(Error::of_registry)
    }
}
