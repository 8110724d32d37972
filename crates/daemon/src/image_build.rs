//! `image.build`: images of a distribution's packages (R-IMG-1).

use crate::catalogue::{Catalogue, Told, image_failed, moves, told};
use crate::ops::{Operation, Why};
use banger_image::{DebianBuild, Error, Import, Taken};
use banger_wire::api::{self, ApiError, Code, ImageView};

impl Catalogue {
    /// `image.build`.
    ///
    /// # Errors
    /// The request is wrong or the name taken, something is missing on this machine to build with, or the build failed.
    pub fn build(&self, request: &api::ImageBuild, op: &Operation) -> Result<ImageView, ApiError> {
        self.writable()?;
        let refused = |error: Error| told(&error);
        let taken = match request.replace {
            true => Taken::Replace,
            false => Taken::Refuse,
        };
        let build = DebianBuild::of(&request.name, &request.from, &request.packages, taken);
        let build = build.map_err(refused)?;
        let import = Import {
            names: vec![request.name.clone()],
            moves: moves(request.replace),
            ..Import::default()
        };
        self.store().check_import(&import).map_err(refused)?;
        // Everything that is missing, before minutes are spent.
        let missing = self.store().build_obstacles().into_iter();
        ApiError::all(missing.map(|missing| image_failed(Code::Precondition, &missing)))?;
        let progress = Told {
            op,
            stage: "image",
            total: None,
        };
        let made = self.store().build_debian(&build, &progress);
        // What breaks because it was cancelled says nothing of the packages.
        let made =
            made.map_err(|error| op.cancel.why().map_or_else(|| told(&error), Why::error))?;
        self.tell_made(&made.id, &[made.name]);
        self.show(&made.id)
    }
}
