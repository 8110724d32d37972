//! `kernel import`, `kernel pull`: the source is opened and read here; the daemon is sent its bytes and opens no path of
//! ours (R-OPS-3).

use super::{
    import::{self, Opened},
    kernel::text,
    kernel_host, print_json, print_text,
};
use crate::{
    args::{KernelBuildArgs, KernelImportArgs, KernelPullArgs},
    connection::Daemon,
    failure::Failure,
    progress::Progress,
    spawn,
};
use banger_wire::api::{Event, KernelBuild, KernelImport, KernelPull, KernelView, Method};
use std::{fs, path::Path, process::ExitCode};

/// Imports a kernel; prints its name.
pub(super) async fn import(args: KernelImportArgs) -> Result<ExitCode, Failure> {
    let release = args.from_host.as_ref().and_then(Option::as_deref);
    let (source, opened) = match &args.source {
        Some(source) => (source.clone(), open(source)?),
        None => kernel_host::open(release)?,
    };
    let name = match (&args.name, &args.source) {
        (Some(name), _) => name.clone(),
        (None, Some(source)) if import::is_stdin(source) => {
            return Err(Failure::new("a kernel from stdin needs a name").hint("--name NAME"));
        }
        (None, Some(source)) => name_of(source).ok_or_else(|| {
            let what = format!("'{}' gives no name for the kernel", source.display());
            Failure::new(what).hint("--name NAME")
        })?,
        (None, None) => release.map_or("host".to_owned(), kernel_host::name_of),
    };
    let request = KernelImport {
        name,
        replace: args.replace,
        force: args.force,
        source: Some(import::told(&source)),
        size: opened.size(),
    };
    let daemon = Daemon::of_this_user()?;
    let made = import::upload(&daemon, &request, opened, &source, kernel_of).await?;
    told(made, args.json)
}

/// Fetches a package; prints the kernel's name.
pub(super) async fn pull(args: KernelPullArgs) -> Result<ExitCode, Failure> {
    let short = args.package.strip_prefix("linux-image-");
    let request = KernelPull {
        name: args
            .name
            .unwrap_or_else(|| short.unwrap_or(&args.package).to_owned()),
        package: args.package,
        replace: args.replace,
        force: args.force,
    };
    told(follow(&request).await?, args.json)
}

/// Builds a kernel; prints its name.
pub(super) async fn build(args: KernelBuildArgs) -> Result<ExitCode, Failure> {
    let config = args.config.map(|path| {
        fs::read_to_string(&path).map_err(|error| {
            Failure::new(format!("cannot read '{}'", path.display())).caused_by(&error)
        })
    });
    let request = KernelBuild {
        name: args.name,
        config: config.transpose()?,
        jobs: args.jobs,
    };
    told(follow(&request).await?, args.json)
}

async fn follow<M: Method>(request: &M) -> Result<Option<KernelView>, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mut events = daemon.events(request).await?;
    let mut progress = Progress::default();
    let mut made = None;
    while let Some(event) = events.next().await? {
        match kernel_of(event) {
            Ok(kernel) => made = Some(kernel),
            Err(other) => progress.event(&other),
        }
    }
    Ok(made)
}

fn kernel_of(event: Event) -> Result<KernelView, Event> {
    match event {
        Event::Kernel { kernel } => Ok(*kernel),
        other => Err(other),
    }
}

fn told(made: Option<KernelView>, json: bool) -> Result<ExitCode, Failure> {
    let kernel = made.ok_or_else(|| {
        Failure::new("the daemon did not say which kernel it made").hint("banger kernel list")
    })?;
    if json {
        print_json(&kernel)?;
        return Ok(ExitCode::SUCCESS);
    }
    // What it lacks is worth more than a name.
    let lacks: String = text(&kernel)
        .lines()
        .filter(|line| line.starts_with("lacks ") || line.starts_with("not told "))
        .map(|line| format!("{line}\n"))
        .collect();
    eprint!("{lacks}");
    print_text(&format!("{}\n", kernel.name))?;
    Ok(ExitCode::SUCCESS)
}

fn open(source: &Path) -> Result<Opened, Failure> {
    let archive = |dir: &Path| spawn::spawn_tar_of(dir, &[".".to_owned()]);
    import::open(source, "banger kernel import FILE", archive)
}

/// The last component without what tells its kind.
fn name_of(source: &Path) -> Option<String> {
    let name = match source.file_name() {
        Some(name) => name.to_owned(),
        // `.` and `..`: the directory's own name.
        None => source.canonicalize().ok()?.file_name()?.to_owned(),
    };
    let mut name = name.to_str()?;
    if let Some(package) = name.strip_suffix(".deb") {
        let package = package.split('_').next().unwrap_or(package);
        name = package.strip_prefix("linux-image-").unwrap_or(package);
    }
    for end in [".gz", ".xz", ".zst", ".tgz", ".tar"] {
        name = name.strip_suffix(end).unwrap_or(name);
    }
    let name = name.to_ascii_lowercase();
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    (!name.is_empty() && name.chars().all(legal)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_its_kernel() {
        for (source, name) in [
            ("/b/vmlinuz-6.1.0-1", Some("vmlinuz-6.1.0-1")),
            (
                "linux-image-6.1.0-9-cloud-amd64_6.1.9-1_amd64.deb",
                Some("6.1.0-9-cloud-amd64"),
            ),
            ("x/bzImage", Some("bzimage")),
            ("kernel.tar.zst", Some("kernel")),
            ("/", None),
        ] {
            assert_eq!(name_of(Path::new(source)).as_deref(), name, "{source}");
        }
    }
}
