//! `kernel import`, `kernel pull`: the source is opened and read here; the daemon is sent its bytes and opens no path of
//! ours (R-OPS-3).

use super::{
    import::{self, Opened},
    kernel::text,
    print_json, print_text,
};
use crate::{
    args::{KernelBuildArgs, KernelImportArgs, KernelPullArgs},
    connection::Daemon,
    failure::Failure,
    progress::Progress,
    spawn,
};
use banger_wire::api::{
    Event, KernelBuild, KernelImport, KernelOffer, KernelPull, KernelView, Method,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Imports a kernel; prints its name.
pub(super) async fn import(args: KernelImportArgs) -> Result<ExitCode, Failure> {
    let (source, opened) = match &args.source {
        Some(source) => (source.clone(), open(source)?),
        None => open_host()?,
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
        (None, None) => "host".to_owned(),
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

/// The kernel that runs here, and its modules.
fn open_host() -> Result<(PathBuf, Opened), Failure> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let entries = host_entries(Path::new("/"), &release)?;
    let tar = spawn::spawn_tar_of(Path::new("/"), &entries).map_err(|e| import::no_tar(&e))?;
    let kernel = Path::new("/").join(&entries[0]);
    Ok((kernel, Opened::Archive(tar)))
}

/// What a host has of a release, the kernel first.
fn host_entries(root: &Path, release: &str) -> Result<Vec<String>, Failure> {
    let image = [
        format!("boot/vmlinuz-{release}"),
        format!("lib/modules/{release}/vmlinuz"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ];
    let ways = "banger kernel pull PACKAGE, or banger kernel import DIRECTORY with a kernel and its modules";
    let image = image.into_iter().find(|path| root.join(path).is_file());
    let image = image.ok_or_else(|| {
        Failure::new(format!(
            "this machine keeps no kernel {release} in /boot or /lib/modules"
        ))
        .hint(ways)
    })?;
    fs::File::open(root.join(&image)).map_err(|error| {
        Failure::new(format!("/{image} cannot be read by you"))
            .caused_by(&error)
            .hint(format!(
                "sudo cp /{image} . && banger kernel import FILE; {ways}"
            ))
    })?;
    let mut entries = vec![image];
    for more in [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}"),
    ] {
        if root.join(&more).exists() && !entries[0].starts_with(&more) {
            entries.push(more);
        }
    }
    Ok(entries)
}

/// The kernels in this machine's /boot.
pub(super) fn of_host() -> Vec<KernelOffer> {
    let running = rustix::system::uname();
    let running = running.release().to_string_lossy().into_owned();
    let mut offers: Vec<_> = fs::read_dir("/boot")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| offer(Path::new("/boot"), &name, &running))
        .collect();
    offers.sort_by(|a, b| a.name.cmp(&b.name));
    offers
}

fn offer(boot: &Path, file: &str, running: &str) -> Option<KernelOffer> {
    let release = file.strip_prefix("vmlinuz-")?;
    let path = boot.join(file);
    let (what, command) = match fs::File::open(&path) {
        Ok(_) if release == running => (
            "what this machine runs",
            "banger kernel import --from-host".to_owned(),
        ),
        Ok(_) => (
            "installed on this machine",
            format!("banger kernel import {}", path.display()),
        ),
        Err(_) => (
            "installed on this machine, and not for you to read",
            format!(
                "sudo cp {} . && banger kernel import {file}",
                path.display()
            ),
        ),
    };
    Some(KernelOffer {
        kind: "host".to_owned(),
        name: release.to_owned(),
        version: None,
        description: what.to_owned(),
        command,
    })
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

    #[test]
    fn a_hosts_kernel_comes_with_its_modules_and_its_configuration() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("boot")).unwrap();
        let none = host_entries(root.path(), "6.1").unwrap_err();
        assert!(format!("{none:?}").contains("kernel pull"), "{none:?}");
        fs::write(at("boot/vmlinuz-6.1"), "x").unwrap();
        assert_eq!(
            host_entries(root.path(), "6.1").unwrap(),
            ["boot/vmlinuz-6.1"]
        );
        fs::write(at("boot/config-6.1"), "x").unwrap();
        fs::create_dir_all(at("lib/modules/6.1")).unwrap();
        let all = ["boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1"];
        assert_eq!(host_entries(root.path(), "6.1").unwrap(), all);
        let offered = offer(&at("boot"), "vmlinuz-6.1", "6.1").unwrap();
        assert_eq!(offered.command, "banger kernel import --from-host");
        assert!(offer(&at("boot"), "initrd.img-6.1", "6.1").is_none());
    }
}
