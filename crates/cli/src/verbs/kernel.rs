//! `kernel list|show|delete`.

use super::{Several, kernel_host, kernel_import, print_json, print_text};
use crate::{
    args::{ImageSetArgs, KernelCommand, KernelListArgs, KernelsArgs},
    connection::Daemon,
    failure::Failure,
    render,
};
use banger_model::ByteSize;
use banger_wire::api::{
    ImageSet, KernelAvailable, KernelDelete, KernelList, KernelOffer, KernelOption, KernelShow,
    KernelView,
};
use std::process::ExitCode;

/// `banger kernel …`
pub async fn kernel(command: KernelCommand) -> Result<ExitCode, Failure> {
    match command {
        KernelCommand::Import(args) => kernel_import::import(args).await,
        KernelCommand::Pull(args) => kernel_import::pull(args).await,
        KernelCommand::Build(args) => kernel_import::build(args).await,
        KernelCommand::List(args) if args.available => available(args).await,
        KernelCommand::List(args) => list(args).await,
        KernelCommand::Show(args) => show(args).await,
        KernelCommand::Delete(args) => delete(args).await,
    }
}

async fn list(args: KernelListArgs) -> Result<ExitCode, Failure> {
    let kernels = Daemon::of_this_user()?.call(&KernelList {}).await?;
    if args.form.json {
        print_json(&kernels)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |kernel: &KernelView| {
        vec![
            kernel.name.clone(),
            match kernel.release.as_str() {
                "" => "-".to_owned(),
                release => release.to_owned(),
            },
            mib(kernel.disk_usage),
            if kernel.default { "yes" } else { "" }.to_owned(),
            kernel.used_by.len().to_string(),
            origin(kernel),
        ]
    };
    let rows: Vec<_> = kernels.iter().map(row).collect();
    let header = ["NAME", "RELEASE", "ON DISK", "DEFAULT", "VMS", "SOURCE"];
    print_text(&render::table(&header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

async fn available(args: KernelListArgs) -> Result<ExitCode, Failure> {
    let mut offers = kernel_host::offers();
    let packages = Daemon::of_this_user()?.call(&KernelAvailable {}).await;
    let status = match packages {
        Ok(packages) => {
            offers.extend(packages);
            ExitCode::SUCCESS
        }
        // What the host has can be had without any package.
        Err(failure) => failure.report(),
    };
    if args.form.json {
        print_json(&offers)?;
        return Ok(status);
    }
    let row = |offer: &KernelOffer| {
        vec![
            offer.kind.clone(),
            offer.name.clone(),
            offer.description.clone(),
        ]
    };
    let rows: Vec<_> = offers.iter().map(row).collect();
    print_text(&render::table(&["KIND", "NAME", "WHAT"], &rows))?;
    Ok(status)
}

fn origin(kernel: &KernelView) -> String {
    let package = || format!("{} {}", kernel.package, kernel.version);
    let unusable = kernel.unusable.as_ref();
    let unusable = unusable.map(|why| format!("{why}: banger kernel delete {}", kernel.name));
    unusable
        .or_else(|| kernel.source.clone())
        .unwrap_or_else(package)
}

/// Whole MiB, rounded up: exact bytes are in the JSON.
fn mib(bytes: u64) -> String {
    ByteSize::mib(bytes.div_ceil(1 << 20)).to_string()
}

async fn show(args: KernelsArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mut shown = Several::new();
    for kernel in args.kernels {
        shown.add(daemon.call(&KernelShow { kernel }).await);
    }
    if args.json {
        print_json(&shown.good)?;
    } else {
        let texts: Vec<_> = shown.good.iter().map(text).collect();
        print_text(&texts.join("\n"))?;
    }
    Ok(shown.status)
}

pub(super) fn text(kernel: &KernelView) -> String {
    let listed = |names: &[String]| match names {
        [] => "-".to_owned(),
        names => names.join(", "),
    };
    let made = kernel
        .created_at
        .map(|at| format!("{} ago", render::age(render::now(), at)));
    let mut rows = vec![
        ("name", kernel.name.clone()),
        ("release", kernel.release.clone()),
        (
            "default",
            if kernel.default { "yes" } else { "no" }.to_owned(),
        ),
        ("package", format!("{} {}", kernel.package, kernel.version)),
        ("source", kernel.source.clone().unwrap_or("-".to_owned())),
        ("created", made.unwrap_or("-".to_owned())),
        ("digest", kernel.digest.clone()),
        ("on disk", mib(kernel.disk_usage)),
        (
            "modules",
            if kernel.modules {
                "yes"
            } else {
                "all built in"
            }
            .to_owned(),
        ),
        ("checked by", checked(kernel).to_owned()),
        ("used by", listed(&kernel.used_by)),
        ("images", listed(&kernel.images)),
    ];
    rows.extend(kernel.missing.iter().map(|o| ("lacks", lacks(o))));
    if !kernel.unknown.is_empty() {
        rows.push(("not told", kernel.unknown.join(", ")));
    }
    let line = |(key, value): &(&str, String)| format!("{key:<11} {value}\n");
    rows.iter().map(line).collect()
}

fn checked(kernel: &KernelView) -> &'static str {
    match kernel.checked_by.as_deref() {
        Some("config") => "its configuration",
        Some("modules") => "its list of modules",
        Some("symbols") => "its symbols",
        Some(_) => "nothing: it came without a configuration",
        None => "-",
    }
}

fn lacks(option: &KernelOption) -> String {
    let needed = if option.needed {
        "; no guest runs without it"
    } else {
        ""
    };
    format!("{} ({}{needed})", option.option, option.why)
}

/// `image set`: prints the image's id.
pub async fn set_image(args: ImageSetArgs) -> Result<ExitCode, Failure> {
    let request = ImageSet {
        image: args.image,
        kernel: args.kernel,
    };
    let image = Daemon::of_this_user()?.call(&request).await?;
    if args.json {
        print_json(&image)?;
    } else {
        print_text(&format!("{}\n", image.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: KernelsArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mut all = Several::new();
    for kernel in args.kernels {
        match all.add(daemon.call(&KernelDelete { kernel }).await) {
            Some(deleted) if !args.json => print_text(&format!("{}\n", deleted.name))?,
            _ => {}
        }
    }
    if args.json {
        print_json(&all.good)?;
    }
    Ok(all.status)
}
