//! `image list|show|delete`.

use super::{Several, print_json, print_text};
use crate::{
    args::{ImageDeleteArgs, ImageListArgs, ImagesArgs},
    connection::Daemon,
    failure::Failure,
    render,
};
use banger_model::{ByteSize, CatalogKind};
use banger_wire::api::{
    CatalogView, ImageCatalog, ImageConfig, ImageDelete, ImageDeleted, ImageList, ImageShow,
    ImageView,
};
use std::process::ExitCode;

/// Lists images.
pub async fn list(args: ImageListArgs) -> Result<ExitCode, Failure> {
    if args.available {
        return available(args.json).await;
    }
    let images = Daemon::of_this_user()?.call(&ImageList {}).await?;
    if args.json {
        print_json(&images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| row(image, render::now()))
        .collect();
    let header = [
        "NAME", "ID", "SIZE", "OWN", "SHARED", "CREATED", "VMS", "SOURCE",
    ];
    print_text(&render::table(&header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the images that the catalog offers; its kernels are only in the JSON.
async fn available(json: bool) -> Result<ExitCode, Failure> {
    let offered = Daemon::of_this_user()?.call(&ImageCatalog {}).await?;
    if json {
        print_json(&offered)?;
        return Ok(ExitCode::SUCCESS);
    }
    let images = offered
        .iter()
        .filter(|o| o.entry.kind == CatalogKind::Image);
    let row = |offered: &CatalogView| {
        let entry = &offered.entry;
        vec![
            entry.name.clone(),
            entry.distro.escape_debug().to_string(),
            entry.arch.escape_debug().to_string(),
            render::size(entry.size),
            if offered.here { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = images.map(row).collect();
    let header = ["NAME", "DISTRIBUTION", "ARCHITECTURE", "SIZE", "HERE"];
    print_text(&render::table(&header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(image: &ImageView, now: u64) -> Vec<String> {
    vec![
        names(image),
        image.id.clone(),
        mib(image.size),
        mib(image.own),
        mib(image.shared),
        render::age(now, image.created_at),
        image.used_by.len().to_string(),
        image.source.clone().unwrap_or_default(),
    ]
}

pub(super) fn names(image: &ImageView) -> String {
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
    let mut shown = Several::new();
    for image in unique(&args.images) {
        shown.add(daemon.call(&ImageShow { image }).await);
    }
    if args.json {
        print_json(&shown.good)?;
    } else {
        let texts: Vec<_> = shown.good.iter().map(text).collect();
        print_text(&texts.join("\n"))?;
    }
    Ok(shown.status)
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
        ("own", mib(image.own)),
        ("shared", mib(image.shared)),
        (
            "created",
            format!("{} ago", render::age(render::now(), image.created_at)),
        ),
        ("built", or_none(&image.built)),
        ("file", or_none(&image.external)),
        ("source", or_none(&image.source)),
        ("distribution", or_none(&image.distro)),
        ("architecture", image.arch.clone()),
        ("kernel", or_none(&image.kernel)),
        ("used by", used_by),
    ];
    let line = |(key, value): &(&str, String)| format!("{key:<13} {value}\n");
    let run = image.config.as_ref().map(run_as).unwrap_or_default();
    let rows = rows.into_iter().chain(run).chain(made_of(image));
    // Much of it is foreign text.
    rows.map(|(key, text)| line(&(key, render::plain(&text))))
        .collect()
}

/// What an image came from, each on a line of its own; what it does not say is left out.
fn made_of(image: &ImageView) -> Vec<(&'static str, String)> {
    let config = image.config_sha256.iter();
    let config = config.map(|hex| ("configuration", format!("sha256:{hex}")));
    let registry = image.repo_digests.iter();
    let registry = registry.map(|digest| ("pulled as", digest.clone()));
    let labels = image.labels.iter();
    let labels = labels.map(|(key, value)| ("label", format!("{key}={value}")));
    let layers = image.layers.iter().map(|layer| {
        let text = format!("sha256:{} {}", layer.sha256, render::size(layer.size));
        ("layer", text)
    });
    let rows = config.chain(registry).chain(labels).chain(layers);
    rows.collect()
}

/// How an image is run; what it does not say is left out.
pub(super) fn run_as(config: &ImageConfig) -> Vec<(&'static str, String)> {
    let words = |words: &[String]| serde_json::to_string(words).unwrap_or_default();
    let rows = [
        (
            "entrypoint",
            (!config.entrypoint.is_empty()).then(|| words(&config.entrypoint)),
        ),
        (
            "command",
            (!config.cmd.is_empty()).then(|| words(&config.cmd)),
        ),
        (
            "environment",
            (!config.env.is_empty()).then(|| words(&config.env)),
        ),
        ("directory", config.workdir.clone()),
        ("user", config.user.clone()),
        ("stop signal", config.stop_signal.clone()),
        (
            "ports",
            (!config.exposed_ports.is_empty()).then(|| config.exposed_ports.join(", ")),
        ),
    ];
    let said = |(key, value): (&'static str, Option<String>)| Some((key, value?));
    rows.into_iter().filter_map(said).collect()
}

/// Deletes images.
pub async fn delete(args: ImageDeleteArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let force = args.force;
    let mut all = Several::new();
    for image in unique(&args.images) {
        match all.add(daemon.call(&ImageDelete { image, force }).await) {
            Some(deleted) if !args.json => print_text(&told(deleted))?,
            _ => {}
        }
    }
    if args.json {
        print_json(&all.good)?;
    }
    Ok(all.status)
}

fn told(deleted: &ImageDeleted) -> String {
    let ImageDeleted { id, names, .. } = deleted;
    if deleted.gone {
        return format!("{id}\n");
    }
    format!("{id} keeps its other names; {} is free\n", names.join(", "))
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
