//! `image.export`: which image goes out by which name.

use crate::catalogue::{Catalogue, Pinned, Told, told};
use crate::ops::{Operation, Why};
use banger_image::{Format, Manifest};
use banger_wire::api::{ApiError, Event, ExportFormat};
use std::io::Write;

type Result<T> = std::result::Result<T, ApiError>;

/// An image to be exported, which is not deleted meanwhile.
#[derive(Debug)]
pub struct ToExport {
    image: Manifest,
    name: Option<String>,
    _pinned: Pinned,
}

impl Catalogue {
    /// The image a reference means, and what an archive of it is to call it: the name it was asked for by, else its first.
    ///
    /// # Errors
    /// No such image.
    pub fn to_export(&self, reference: &str) -> Result<ToExport> {
        let (image, pinned) = self.pin(reference)?;
        let name = Some(image.name.clone()).filter(|name| *name != image.id && !name.is_empty());
        Ok(ToExport {
            image,
            name,
            _pinned: pinned,
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// What keeps the image from being told of in this format, or cancelled.
    pub fn export(
        &self,
        chosen: &ToExport,
        format: ExportFormat,
        out: &mut dyn Write,
        op: &Operation,
    ) -> Result<()> {
        let format = match format {
            ExportFormat::Oci => Format::Oci,
            ExportFormat::Bundle => Format::Bundle,
        };
        let progress = Told {
            op,
            stage: "image",
            total: None,
        };
        let exported = self.store().export(
            &chosen.image,
            chosen.name.as_deref(),
            format,
            out,
            &progress,
        );
        let cancelled = |error| op.cancel.why().map_or_else(|| told(&error), Why::error);
        let exported = exported.map_err(cancelled)?;
        if exported.sockets > 0 {
            op.tell(Event::Warning {
                message: format!("{} sockets are left out: no tar has them", exported.sockets),
                hint: None,
            });
        }
        Ok(())
    }
}
