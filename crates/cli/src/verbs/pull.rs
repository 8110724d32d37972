//! `image pull`, and the same for a new VM whose image is not here.

use super::{print_json, print_text};
use crate::{
    args::PullArgs, connection::Daemon, credentials, failure::Failure, progress::Progress,
};
use banger_model::ImageReference;
use banger_wire::api::{Event, ImagePull, ImageView};
use std::{future::Future, process::ExitCode};

/// Fetches an image; prints its id.
pub async fn pull(args: PullArgs) -> Result<ExitCode, Failure> {
    let request = ImagePull {
        reference: args.reference,
        name: args.name,
        insecure: args.insecure,
        credentials: None,
    };
    let image = fetch(&Daemon::of_this_user()?, request).await?;
    if args.json {
        print_json(&image)?;
    } else {
        print_text(&format!("{}\n", image.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches an image with progress on stderr, as whom Docker's configuration says.
async fn fetch(daemon: &Daemon, mut request: ImagePull) -> Result<ImageView, Failure> {
    let reference: ImageReference = request.reference.parse().map_err(|error| {
        Failure::new(format!("{error}"))
            .hint("NAME[:TAG] or REGISTRY/PATH[:TAG|@sha256:DIGEST], as for docker pull")
    })?;
    request.credentials = credentials::for_image(&reference)?;
    let mut events = daemon.events(&request).await?;
    let mut progress = Progress::default();
    let mut pulled = None;
    while let Some(event) = events.next().await? {
        match event {
            Event::Image { image } => pulled = Some(*image),
            other => progress.event(&other),
        }
    }
    pulled.ok_or_else(|| {
        Failure::new("the daemon did not say which image it fetched").hint("banger image list")
    })
}

/// Asks for a new VM; where only its image is not here, fetches that and asks again (R-IMG-8).
pub async fn with_image<T, F>(daemon: &Daemon, ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let missing = match ask().await {
        Err(failure) => failure,
        done => return done,
    };
    let Some(reference) = missing.pullable().map(str::to_owned) else {
        return Err(missing);
    };
    let request = ImagePull {
        reference,
        ..ImagePull::default()
    };
    match fetch(daemon, request).await {
        Ok(_) => ask().await,
        Err(failure) => Err(missing.and(&failure)),
    }
}
