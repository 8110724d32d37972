//! `image list|show|delete`.

use super::{print_json, print_text};
use crate::{
    args::{ImageDeleteArgs, ImagesArgs, JsonArgs},
    connection::Daemon,
    failure::{BANGER_FAILED, Failure},
    render,
};
use banger_model::ByteSize;
use banger_wire::api::{ImageDelete, ImageList, ImageShow, ImageView};
use std::process::ExitCode;

/// Lists images.
pub async fn list(args: JsonArgs) -> Result<ExitCode, Failure> {
    let images = Daemon::of_this_user()?.call(&ImageList {}).await?;
    if args.json {
        print_json(&images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| row(image, render::now()))
        .collect();
    let header = ["NAME", "ID", "SIZE", "ON DISK", "CREATED", "VMS", "SOURCE"];
    print_text(&render::table(&header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(image: &ImageView, now: u64) -> Vec<String> {
    vec![
        names(image),
        image.id.clone(),
        mib(image.size),
        mib(image.disk_usage),
        render::age(now, image.created_at),
        image.used_by.len().to_string(),
        image.source.clone().unwrap_or_default(),
    ]
}

fn names(image: &ImageView) -> String {
    match image.names[..] {
        [] => "-".to_owned(),
        _ => image.names.join(","),
    }
}

/// Whole MiB, rounded up: exact bytes are in the JSON.
fn mib(bytes: u64) -> String {
    ByteSize::mib(bytes.div_ceil(1 << 20)).to_string()
}

/// Shows images.
pub async fn show(args: ImagesArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let (mut images, mut status) = (Vec::new(), ExitCode::SUCCESS);
    for image in unique(&args.images) {
        match daemon.call(&ImageShow { image }).await {
            Ok(image) => images.push(image),
            Err(failure) => {
                failure.report();
                status = ExitCode::from(BANGER_FAILED);
            }
        }
    }
    if args.json {
        print_json(&images)?;
    } else {
        let texts: Vec<_> = images.iter().map(text).collect();
        print_text(&texts.join("\n"))?;
    }
    Ok(status)
}

fn text(image: &ImageView) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let used_by = match image.used_by[..] {
        [] => "-".to_owned(),
        _ => image.used_by.join(", "),
    };
    let rows = [
        ("names", names(image)),
        ("id", image.id.clone()),
        ("digest", image.digest.clone()),
        ("size", mib(image.size)),
        ("on disk", mib(image.disk_usage)),
        (
            "created",
            format!("{} ago", render::age(render::now(), image.created_at)),
        ),
        ("source", or_none(&image.source)),
        ("distribution", or_none(&image.distro)),
        ("architecture", image.arch.clone()),
        ("kernel", or_none(&image.kernel)),
        ("used by", used_by),
    ];
    let line = |(key, value): &(&str, String)| format!("{key:<13} {value}\n");
    rows.iter().map(line).collect()
}

/// Deletes images.
pub async fn delete(args: ImageDeleteArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let force = args.force;
    let (mut all, mut status) = (Vec::new(), ExitCode::SUCCESS);
    for image in unique(&args.images) {
        match daemon.call(&ImageDelete { image, force }).await {
            Ok(deleted) if args.json => all.push(deleted),
            Ok(deleted) if deleted.gone => print_text(&format!("{}\n", deleted.id))?,
            Ok(deleted) => print_text(&format!(
                "{} keeps its other names; {} is free\n",
                deleted.id,
                deleted.names.join(", ")
            ))?,
            Err(failure) => {
                failure.report();
                status = ExitCode::from(BANGER_FAILED);
            }
        }
    }
    if args.json {
        print_json(&all)?;
    }
    Ok(status)
}

fn unique(references: &[String]) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for reference in references {
        if !seen.contains(reference) {
            seen.push(reference.clone());
        }
    }
    seen
}
