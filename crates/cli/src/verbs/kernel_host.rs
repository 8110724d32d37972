//! The kernels of this machine: where distributions keep them, and what belongs to the one that runs.
//!
//! Debian, Ubuntu and openSUSE have images in `/boot`, Arch and newer Fedora beside their modules in
//! `/usr/lib/modules/<release>/`, some in both places.

use super::import::{self, Opened};
use crate::{failure::Failure, spawn};
use banger_wire::api::KernelOffer;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Directories of trees of modules, each named after its release; often the same by a link.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// The kernel of a release, or the one that runs here, with its modules and its configuration.
pub(super) fn open(release: Option<&str>) -> Result<(PathBuf, Opened), Failure> {
    let release = release.map_or_else(running, str::to_owned);
    let found = HostKernel::find(Path::new("/"), &release)?;
    let tar = spawn::spawn_tar_of(Path::new("/"), &found.entries);
    let tar = tar.map_err(|e| import::no_tar(&e))?;
    Ok((Path::new("/").join(found.image), Opened::Archive(tar)))
}

fn running() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// What a kernel of this release is called here, where nobody says.
pub(super) fn name_of(release: &str) -> String {
    let legal = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
        _ => '-',
    };
    release.to_ascii_lowercase().chars().map(legal).collect()
}

/// What a host has of one release.
#[derive(Debug, PartialEq, Eq)]
struct HostKernel {
    /// The image.
    image: String,
    /// All of it: files, and the directory of its modules, which may have image and configuration in it.
    entries: Vec<String>,
}

impl HostKernel {
    fn find(root: &Path, release: &str) -> Result<HostKernel, Failure> {
        const WAYS: &str = "banger kernel pull PACKAGE, or banger kernel import DIRECTORY with a kernel and its modules";
        match HostKernel::look(root, release) {
            Some((kernel, Ok(()))) => Ok(kernel),
            Some((kernel, Err(error))) => {
                let what = format!("/{} cannot be read by you", kernel.image);
                let by_root = kernel.by_root(&name_of(release));
                let failure = Failure::new(what).caused_by(&error);
                Err(failure.hint(format!("{by_root}; {WAYS}")))
            }
            None => {
                let what =
                    format!("this machine keeps no kernel {release} in /boot or /usr/lib/modules");
                let hint = format!("banger kernel list --available tells which it keeps; {WAYS}");
                Err(Failure::new(what).hint(hint))
            }
        }
    }

    /// What there is of a release, if its image is anywhere, and whether that can be read.
    fn look(root: &Path, release: &str) -> Option<(HostKernel, io::Result<()>)> {
        let there: Vec<_> = images(release)
            .filter(|path| root.join(path).is_file())
            .collect();
        // Of two, one may be readable by root alone.
        let read = |path: &String| fs::File::open(root.join(path)).map(drop);
        let readable = there.iter().find(|path| read(path).is_ok());
        let image = readable.or(there.first())?;
        let modules = MODULES.map(|dir| format!("{dir}/{release}"));
        let modules = modules.into_iter().find(|dir| root.join(dir).is_dir());
        let config = format!("boot/config-{release}");
        let mut entries = Vec::new();
        if !modules.iter().any(|dir| within(image, dir)) {
            entries.push(image.clone());
        }
        entries.extend(Some(config).filter(|path| root.join(path).is_file()));
        entries.extend(modules);
        let readable = read(image);
        let image = image.clone();
        Some((HostKernel { image, entries }, readable))
    }

    /// What imports it where only root can read its image: without its modules no VM of most kernels would start.
    fn by_root(&self, name: &str) -> String {
        let entries = self.entries.join(" ");
        format!("sudo tar -C / -cf - {entries} | banger kernel import - --name {name}")
    }
}

fn within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Where the image of a release may be.
fn images(release: &str) -> impl Iterator<Item = String> + use<> {
    let beside = MODULES.map(|dir| format!("{dir}/{release}/vmlinuz"));
    [format!("boot/vmlinuz-{release}")]
        .into_iter()
        .chain(beside)
}

/// The kernels that this machine has.
pub(super) fn offers() -> Vec<KernelOffer> {
    offers_in(Path::new("/"), &running())
}

fn offers_in(root: &Path, running: &str) -> Vec<KernelOffer> {
    let names = |dir: &str| {
        let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let in_boot = names("boot");
    let in_boot = in_boot.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    // What is no plain word would be another command in a shell.
    let plain = |release: &String| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
        release.bytes().all(legal)
    };
    let beside_modules = MODULES.iter().flat_map(|dir| names(dir));
    let releases: BTreeSet<String> = in_boot.chain(beside_modules).filter(plain).collect();
    let offered = releases.into_iter().filter_map(|release| {
        let (kernel, readable) = HostKernel::look(root, &release)?;
        Some(offer(&kernel, release, running, readable.is_ok()))
    });
    offered.collect()
}

fn offer(kernel: &HostKernel, release: String, running: &str, readable: bool) -> KernelOffer {
    let name = name_of(&release);
    let (what, command) = match readable {
        true if release == running => (
            "what this machine runs",
            "banger kernel import --from-host".to_owned(),
        ),
        true => (
            "installed on this machine",
            format!("banger kernel import --from-host={release} --name {name}"),
        ),
        false => (
            "installed on this machine, and not for you to read",
            kernel.by_root(&name),
        ),
    };
    KernelOffer {
        kind: "host".to_owned(),
        name: release,
        version: None,
        description: what.to_owned(),
        command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        root
    }

    fn found(root: &tempfile::TempDir) -> HostKernel {
        HostKernel::find(root.path(), "6.1").unwrap()
    }

    fn of(image: &str, entries: &[&str]) -> HostKernel {
        HostKernel {
            image: image.to_owned(),
            entries: entries.iter().map(|e| (*e).to_owned()).collect(),
        }
    }

    #[test]
    fn a_hosts_kernel_is_found_where_distributions_keep_it() {
        let none = HostKernel::find(tree(&["boot/vmlinuz-5.10"]).path(), "6.1").unwrap_err();
        assert!(format!("{none:?}").contains("kernel pull"), "{none:?}");
        // Debian: several kernels, of which one runs.
        let debian = tree(&[
            "boot/vmlinuz-6.1",
            "boot/vmlinuz-6.9",
            "boot/config-5.10",
            "boot/config-6.1",
            "usr/lib/modules/6.1/kernel/x.ko",
            "usr/lib/modules/6.9/kernel/x.ko",
        ]);
        std::os::unix::fs::symlink("usr/lib", debian.path().join("lib")).unwrap();
        let all = ["boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1"];
        assert_eq!(found(&debian), of("boot/vmlinuz-6.1", &all));
        // Arch, Fedora: image and configuration beside the modules, no /lib or one that leads to /usr/lib.
        let arch = tree(&[
            "usr/lib/modules/6.1/vmlinuz",
            "usr/lib/modules/6.1/config",
            "usr/lib/modules/6.1/kernel/x.ko.zst",
            "usr/lib/modules/6.9/vmlinuz",
        ]);
        let image = "usr/lib/modules/6.1/vmlinuz";
        assert_eq!(found(&arch), of(image, &["usr/lib/modules/6.1"]));
        std::os::unix::fs::symlink("usr/lib", arch.path().join("lib")).unwrap();
        let image = "lib/modules/6.1/vmlinuz";
        assert_eq!(found(&arch), of(image, &["lib/modules/6.1"]));
        // Without modules; a release that begins like another one is none of it.
        let bare = tree(&["boot/vmlinuz-6.1", "lib/modules/6.1.0/kernel/x.ko"]);
        assert_eq!(found(&bare), of("boot/vmlinuz-6.1", &["boot/vmlinuz-6.1"]));
    }

    #[test]
    fn what_is_installed_is_offered_once() {
        let root = tree(&[
            "boot/vmlinuz-6.1",
            "boot/initrd.img-6.1",
            "usr/lib/modules/6.1/vmlinuz",
            "usr/lib/modules/6.9-Arch/vmlinuz",
            "usr/lib/modules/6.10/kernel/x.ko",
            "boot/vmlinuz-7.2+deb14",
            "boot/config-7.2+deb14",
            "lib/modules/7.2+deb14/kernel/x.ko",
            "boot/vmlinuz-$(id)",
        ]);
        let offers = offers_in(root.path(), "6.1");
        let told: Vec<_> = offers
            .iter()
            .map(|o| (&o.name[..], &o.command[..]))
            .collect();
        assert_eq!(
            told,
            [
                ("6.1", "banger kernel import --from-host"),
                (
                    "6.9-Arch",
                    "banger kernel import --from-host=6.9-Arch --name 6.9-arch"
                ),
                (
                    "7.2+deb14",
                    "banger kernel import --from-host=7.2+deb14 --name 7.2-deb14"
                ),
            ]
        );
        // What is offered can be found again, and all of it comes along.
        for (release, _) in told {
            HostKernel::find(root.path(), release).unwrap();
        }
        let (kernel, _) = HostKernel::look(root.path(), "7.2+deb14").unwrap();
        let by_root = offer(&kernel, "7.2+deb14".to_owned(), "6.1", false);
        assert_eq!(
            by_root.command,
            "sudo tar -C / -cf - boot/vmlinuz-7.2+deb14 boot/config-7.2+deb14 lib/modules/7.2+deb14 \
             | banger kernel import - --name 7.2-deb14"
        );
    }
}
