//! `image build`, `image register` and `image promote`: images of what is not sent.

use super::{print_json, print_text};
use crate::{
    args::{ImageBuildArgs, ImagePromoteArgs, ImageRegisterArgs},
    connection::Daemon,
    failure::Failure,
    progress::Progress,
};
use banger_wire::api::{Event, ImageBuild, ImagePromote, ImageRegister, Method};
use std::process::ExitCode;

/// Makes an image of packages.
pub async fn build(args: ImageBuildArgs) -> Result<ExitCode, Failure> {
    let request = ImageBuild {
        name: args.name,
        from: args.from,
        packages: args.packages,
        replace: args.replace,
    };
    made(&request, args.json).await
}

/// Makes an image of a file that stays where it is.
pub async fn register(args: ImageRegisterArgs) -> Result<ExitCode, Failure> {
    let shown = args.path.display().to_string();
    // Made absolute without following anything: the daemon's directory is not ours.
    let path = std::path::absolute(&args.path)
        .map_err(|e| Failure::new(format!("'{shown}' is no path")).caused_by(&e))?;
    let path = path.to_str().ok_or_else(|| {
        Failure::new(format!("'{shown}' is not UTF-8")).hint("rename the file, or import it")
    })?;
    let request = ImageRegister {
        name: args.name,
        path: path.to_owned(),
        replace: args.replace,
    };
    made(&request, args.json).await
}

/// Copies the file of a registered image in.
pub async fn promote(args: ImagePromoteArgs) -> Result<ExitCode, Failure> {
    let request = ImagePromote { image: args.image };
    made(&request, args.json).await
}

async fn made<M: Method>(request: &M, json: bool) -> Result<ExitCode, Failure> {
    let mut events = Daemon::of_this_user()?.events(request).await?;
    let mut progress = Progress::default();
    let mut made = None;
    while let Some(event) = events.next().await? {
        match event {
            Event::Image { image } => made = Some(*image),
            other => progress.event(&other),
        }
    }
    let image = made.ok_or_else(|| {
        Failure::new("the daemon did not say which image it is").hint("banger image list")
    })?;
    match json {
        true => print_json(&image)?,
        false => print_text(&format!("{}\n", image.id))?,
    }
    Ok(ExitCode::SUCCESS)
}
