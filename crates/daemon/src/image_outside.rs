//! `image.register` and `image.promote`: images whose file lies outside (R-IMG-6).

use crate::catalogue::{Catalogue, Told, moves, told};
use crate::ops::{Operation, Why};
use banger_image::Import;
use banger_wire::api::{self, ApiError, Code, ImageView};
use std::path::Path;

type Result<T> = std::result::Result<T, ApiError>;

impl Catalogue {
    /// `image.register`.
    ///
    /// # Errors
    /// It is no regular file with a clean ext4 file system, or the name is taken.
    pub fn register(&self, request: &api::ImageRegister, op: &Operation) -> Result<ImageView> {
        self.writable()?;
        let path = Path::new(&request.path);
        if !path.is_absolute() {
            let why = format!("'{}' is no absolute path", request.path);
            return Err(ApiError::new(Code::BadRequest, why));
        }
        let import = Import {
            names: vec![request.name.clone()],
            moves: moves(request.replace),
            source: Some(request.path.clone()),
            ..Import::default()
        };
        let made = self.store().register(path, &import, &told_of(op));
        let made = made.map_err(|error| why(op, &error))?;
        self.tell_made(&made.id, &import.names);
        self.show(&made.id)
    }

    /// `image.promote`.
    ///
    /// # Errors
    /// No such image, its file has changed, or copying failed.
    pub fn promote(&self, request: &api::ImagePromote, op: &Operation) -> Result<ImageView> {
        self.writable()?;
        let (image, _pinned) = self.pin(&request.image)?;
        let done = self.store().promote(&image, &told_of(op));
        done.map_err(|error| why(op, &error))?;
        self.show(&image.id)
    }
}

/// What breaks because it was cancelled says nothing of the file.
fn why(op: &Operation, error: &banger_image::Error) -> ApiError {
    op.cancel.why().map_or_else(|| told(error), Why::error)
}

fn told_of(op: &Operation) -> Told<'_> {
    Told {
        op,
        stage: "image",
        total: None,
    }
}
