//! Kernels as banger keeps them: a directory with a manifest, the ELF, and the modules that a guest needs.
//!
//! ```text
//! kernels/<name>/manifest.json   what it is, and which modules in which order
//!                vmlinux         ELF with a PVH note
//!                config          what it was built with, where that is known
//!                modules.ext4    all modules and what depmod writes: the guest's /lib/modules/<release>, read-only;
//!                                not where everything is built in
//!                modules/*.ko    plain (never compressed), flat
//!                modules.builtin  what needs no loading, for who takes the directory for a source
//! ```

use std::path::{Path, PathBuf};

use banger_host::{Files, Tools};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::apt::{self, AptError};
use super::build::BuildError;
use super::bzimage::KernelImageError;
use super::modinfo::ModuleError;
use super::modules::ModulesError;
use super::needs::KernelCheck;
use super::package::NewKernel;
use super::shelf::{self, Shelf};
use super::source::{KernelSource, SourceError};

/// Debian's kernel for virtual machines; the name resolves to the newest one that the machine's sources have.
pub const DEBIAN_CLOUD: &str = "linux-image-cloud-amd64";

/// Bumped when the directory's layout or the lists of modules change; a kernel of another format is none (the default
/// one is fetched anew).
pub const KERNEL_FORMAT: u32 = 2;
/// File name of the modules disk.
pub(super) const MODULES_DISK: &str = "modules.ext4";
/// File name of what a kernel says of itself.
pub(super) const MANIFEST: &str = "manifest.json";

/// What a kernel directory says about itself (`manifest.json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    /// [`KERNEL_FORMAT`] of the writer.
    pub format: u32,
    /// Name under which VMs refer to it.
    pub name: String,
    /// Release as `uname -r` in the guest says it.
    pub release: String,
    /// Package it came from; of another origin, what it came in.
    pub package: String,
    /// That package's version; else the release.
    pub version: String,
    /// SHA-256 of `vmlinux`, hex.
    pub vmlinux_sha256: String,
    /// Module files to load before the agent's first word, in order, relative to `modules/`.
    pub first: Vec<String>,
    /// Module files to load after it, in order, relative to `modules/`.
    pub second: Vec<String>,
    /// Whether there is a disk with all modules beside it.
    pub modules_disk: bool,
    /// SHA-256 over the module files of the lists, hex; empty without any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modules_sha256: String,
    /// Where it came from, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Unix time in seconds; 0 if nobody wrote it down.
    #[serde(default)]
    pub created: u64,
    /// What it has of what banger needs; absent if nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<KernelCheck>,
    /// Digest of all it was built of, where banger built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_of: Option<String>,
}

/// Packs a directory tree into a file system that guests can mount: the tree, then the file to make.
pub type Pack<'a> =
    dyn Fn(&Path, &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// A kernel on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its directory.
    pub dir: PathBuf,
    /// What it says about itself.
    pub manifest: KernelManifest,
}

/// Why there is no usable kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The package could not be fetched.
    #[error("the kernel package could not be fetched")]
    Fetch {
        /// Why.
        #[source]
        source: AptError,
    },
    /// What it comes in could not be read.
    #[error("the kernel cannot be read from what it comes in")]
    Source {
        /// Why.
        #[source]
        source: SourceError,
    },
    /// Several kernels where one was asked for.
    #[error("there are several kernels: {}", .paths.join(", "))]
    Several {
        /// Their paths.
        paths: Vec<String>,
    },
    /// The name of a kernel, and not the file.
    #[error("{path} is a link, and the kernel that it leads to did not come along")]
    Linked {
        /// Its path.
        path: String,
    },
    /// Modules that the kernel would refuse.
    #[error("the kernel is of release {release}, and its modules are of {modules}")]
    OtherRelease {
        /// The kernel's.
        release: String,
        /// Those of the directories of modules.
        modules: String,
    },
    /// No guest of banger's would run.
    #[error("the kernel lacks what banger needs: {}", .lacks.join(", "))]
    Lacks {
        /// Options, each with its reason.
        lacks: Vec<String>,
    },
    /// The name is taken.
    #[error("there is a kernel '{name}' already")]
    Exists {
        /// The name.
        name: String,
    },
    /// It is being read, and does not come free.
    #[error(
        "the kernel '{name}' is being used by a VM that is created, started, stopped or deleted"
    )]
    Pinned {
        /// The name.
        name: String,
    },
    /// The name cannot be a directory's.
    #[error(
        "{name:?} cannot name a kernel: a-z, 0-9, '.', '_' and '-', up to 63 characters, not '.' first"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// It could not be built.
    #[error("the kernel could not be built")]
    Build {
        /// Why.
        #[source]
        source: BuildError,
    },
    /// Whoever asked for it changed their mind.
    #[error("it was cancelled")]
    Cancelled,
    /// What comes in is more than any kernel has.
    #[error("more than {} MiB come in, and no kernel is as large", .limit >> 20)]
    TooLarge {
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// More of something than any kernel has.
    #[error("no kernel has more than {what}")]
    TooMuch {
        /// How much of what.
        what: String,
    },
    /// What comes in could not be received.
    #[error("the kernel cannot be received")]
    Receive {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A package without what a kernel package has.
    #[error("{package} has no {what}")]
    Incomplete {
        /// The package.
        package: String,
        /// What is missing.
        what: &'static str,
    },
    /// The image in it does not boot in a microVM.
    #[error("the kernel image {path} cannot be used")]
    Image {
        /// Path within the package.
        path: String,
        /// Why.
        #[source]
        source: KernelImageError,
    },
    /// A module in it is damaged.
    #[error("the kernel module {path} cannot be used")]
    Module {
        /// Path within the package.
        path: String,
        /// Why.
        #[source]
        source: ModuleError,
    },
    /// The modules that a guest needs are not all there.
    #[error("the kernel lacks modules that a guest needs")]
    Modules {
        /// Which.
        #[source]
        source: ModulesError,
    },
    /// The modules cannot be laid out as a tree.
    #[error("the kernel's modules cannot be written")]
    Tree {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No file system could be made of the modules.
    #[error("the disk with the kernel's modules cannot be made")]
    Pack {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be written or looked at.
    #[error("the kernel directory cannot be written")]
    Files {
        /// Why.
        #[source]
        source: banger_host::Error,
    },
    /// The manifest on disk is damaged.
    #[error("the kernel '{name}' is damaged: {path} cannot be understood")]
    Manifest {
        /// The kernel.
        name: String,
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Kernel {
    /// The ELF to boot.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// A module file of the manifest's lists.
    pub fn module(&self, file: &str) -> PathBuf {
        self.dir.join("modules").join(file)
    }

    /// The disk with all modules; a kernel with everything built in has none.
    pub fn modules_disk(&self) -> Option<PathBuf> {
        let there = self.manifest.modules_disk;
        there.then(|| self.dir.join(MODULES_DISK))
    }

    /// The kernel `name` under `kernels`; `None` if it is not there or of another format.
    ///
    /// # Errors
    /// The manifest cannot be read or is damaged.
    pub fn load<F: Files>(
        files: &F,
        kernels: &Path,
        name: &str,
    ) -> Result<Option<Kernel>, KernelError> {
        let dir = kernels.join(name);
        let path = dir.join(MANIFEST);
        let Some(bytes) = files
            .read(&path)
            .map_err(|source| KernelError::Files { source })?
        else {
            return Ok(None);
        };
        let manifest: KernelManifest = serde_json::from_slice(&bytes).map_err(|source| {
            let name = name.to_owned();
            KernelError::Manifest { name, path, source }
        })?;
        Ok((manifest.format == KERNEL_FORMAT).then_some(Kernel { dir, manifest }))
    }
}

/// What would keep [`fetch_package`] from beginning; looks only, and not at the network.
///
/// # Errors
/// A program is missing.
pub fn fetch_obstacle<H: Tools>(host: &H) -> Result<(), KernelError> {
    apt::programs(host).map_err(|source| KernelError::Fetch { source })
}

/// Fetches a kernel package and publishes it on the shelf, whole or not at all. `package` may be a meta package.
///
/// The shelf's directory must exist. One fetch per name at a time is the caller's duty.
///
/// # Errors
/// See [`KernelError`]; nothing is left under the name.
pub fn fetch_package<H: Files + Tools>(
    host: &H,
    shelf: &Shelf<'_>,
    package: &str,
    new: &NewKernel<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Kernel, KernelError> {
    let work = shelf.private("fetch");
    let package = apt::fetch_package(host, package, &work, progress, shelf.cancelled)
        .map_err(|source| KernelError::Fetch { source })?;
    progress(&format!("unpacking {} {}", package.name, package.version));
    let new = NewKernel {
        package: &package.name,
        version: &package.version,
        ..new.clone()
    };
    shelf::make(host, shelf, &KernelSource::Packages(package.debs), &new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::bzimage::tests::bzimage;
    use crate::boot::deb::tests::tiny_deb;
    use crate::boot::elf::tests::tiny_vmlinux;
    use crate::boot::modinfo::tests::tiny_module;
    use crate::boot::package::{KernelParts, TreeSink};
    use crate::boot::pins::KernelNames;
    use banger_host::linux::{LinuxConfig, LinuxHost};

    fn package_files() -> Vec<(&'static str, Vec<u8>)> {
        let elf = tiny_vmlinux(true);
        let mut payload = zstd::bulk::compress(&elf, 1).unwrap();
        payload.extend((elf.len() as u32).to_le_bytes());
        let image = bzimage(&payload);
        let module = |needs: &str| tiny_module(format!("depends={needs}\0").as_bytes());
        let xz_like = zstd::bulk::compress(&module(""), 1).unwrap();
        vec![
            ("boot/vmlinuz-6.1.0-1", image),
            (
                "lib/modules/6.1.0-1/kernel/drivers/virtio/virtio.ko",
                module(""),
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/virtio/virtio_ring.ko",
                module("virtio"),
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/virtio/virtio_mmio.ko",
                module("virtio_ring,virtio"),
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/block/virtio_blk.ko",
                module("virtio_ring"),
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/char/virtio_console.ko",
                module("virtio_ring"),
            ),
            (
                "lib/modules/6.1.0-1/kernel/fs/overlayfs/overlay.ko.zst",
                xz_like,
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/net/virtio_net.ko",
                module("virtio_ring"),
            ),
            (
                "lib/modules/6.1.0-1/kernel/drivers/char/hw_random/virtio-rng.ko",
                module("virtio"),
            ),
            (
                "lib/modules/6.1.0-1/modules.builtin",
                b"kernel/fs/ext4/ext4.ko\n".to_vec(),
            ),
        ]
    }

    fn package(leave_out: &str) -> Vec<u8> {
        let all = package_files();
        let kept: Vec<(&str, &[u8])> = all
            .iter()
            .filter(|(p, _)| leave_out.is_empty() || !p.contains(leave_out))
            .map(|(p, b)| (*p, b.as_slice()))
            .collect();
        tiny_deb(&kept, true)
    }

    fn parts(leave_out: &str) -> Result<KernelParts, KernelError> {
        parts_into(leave_out, &mut |_, _| Ok(()))
    }

    fn parts_into(leave_out: &str, tree: &mut TreeSink<'_>) -> Result<KernelParts, KernelError> {
        let new = NewKernel {
            name: "k",
            package: "linux-image-x",
            version: "1",
            ..NewKernel::default()
        };
        KernelParts::of(
            &KernelSource::Packages(vec![package(leave_out)]),
            &new,
            tree,
            &|| false,
        )
    }

    /// Packs nothing but the list of the files.
    fn list(tree: &Path, disk: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut names = Vec::new();
        let mut dirs = vec![tree.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => names.push(path.strip_prefix(tree)?.display().to_string()),
                }
            }
        }
        names.sort();
        Ok(std::fs::write(disk, names.join("\n"))?)
    }

    fn made(kernels: &Path, change: impl Fn(&mut KernelParts)) -> Result<Kernel, KernelError> {
        let host = LinuxHost::new(LinuxConfig::default());
        let shelf = Shelf {
            kernels,
            tag: "k",
            pack: &list,
            names: &KernelNames::default(),
            replace: true,
            cancelled: &|| false,
            discard: &|dir| drop(crate::tree::remove(&host, dir)),
        };
        shelf::fill_and_publish(&host, &shelf, &mut |tree| {
            let mut parts = parts_into("", tree)?;
            change(&mut parts);
            Ok(parts)
        })
    }

    #[test]
    fn a_package_becomes_an_elf_and_two_ordered_lists() {
        let parts = parts("").unwrap();
        assert_eq!(parts.manifest.release, "6.1.0-1");
        assert_eq!(
            parts.manifest.first,
            [
                "virtio.ko",
                "virtio_ring.ko",
                "virtio_mmio.ko",
                "virtio_console.ko"
            ]
        );
        assert_eq!(
            parts.manifest.second,
            [
                "virtio_blk.ko",
                "overlay.ko",
                "virtio_net.ko",
                "virtio_rng.ko"
            ]
        );
        assert_eq!(parts.vmlinux, tiny_vmlinux(true));
        assert_eq!(
            parts.modules["overlay.ko"],
            tiny_module(b"depends=\0"),
            "compressed modules are kept plain"
        );
    }

    /// R-IMG-7: modules of one release in `lib/modules` and in `usr/lib/modules`, as an archive of both has them.
    #[test]
    fn a_tree_in_two_places_is_unpacked_from_both() {
        let files: Vec<(String, Vec<u8>)> = package_files()
            .into_iter()
            .map(|(path, bytes)| match path.contains("/drivers/") {
                true => (format!("usr/{path}"), bytes),
                false => (path.to_owned(), bytes),
            })
            .collect();
        let files: Vec<_> = files.iter().map(|(p, b)| (p.as_str(), &b[..])).collect();
        let source = KernelSource::Packages(vec![tiny_deb(&files, true)]);
        let mut tree = Vec::new();
        let mut sink = |path: &str, _: &[u8]| {
            tree.push(path.to_owned());
            Ok(())
        };
        let made = KernelParts::of(&source, &NewKernel::default(), &mut sink, &|| false).unwrap();
        let manifest = &made.manifest;
        for file in manifest.first.iter().chain(&manifest.second) {
            assert!(made.modules.contains_key(file), "{file}");
        }
        for file in ["drivers/virtio/virtio.ko", "fs/overlayfs/overlay.ko.zst"] {
            assert!(tree.contains(&format!("kernel/{file}")), "{file}: {tree:?}");
        }
    }

    #[test]
    fn what_a_package_lacks_is_named() {
        let told = |leave_out| {
            let error = parts(leave_out)
                .err()
                .expect("a package that lacks something");
            let source = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            format!("{error}: {source}")
        };
        assert!(told("vmlinuz").contains("linux-image-x has no kernel"));
        assert!(told("virtio_blk").contains("needs: CONFIG_VIRTIO_BLK (the disks)"));
        assert!(told("virtio/virtio.ko").contains("(needed by \"virtio_ring\")"));
        assert!(told("lib/modules").contains("has no release"));
    }

    #[test]
    fn a_kernel_is_published_whole_and_replaced_whole() {
        let host = LinuxHost::new(LinuxConfig::default());
        let kernels = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(kernels.path()).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        // The rests of a publication that was killed.
        std::fs::create_dir_all(kernels.path().join(".stage-k/modules")).unwrap();
        std::fs::write(kernels.path().join(".stage-k/modules/x.ko"), "half").unwrap();
        let one = made(kernels.path(), |_| {}).unwrap();
        assert_eq!(
            Kernel::load(&host, kernels.path(), "k").unwrap(),
            Some(one.clone())
        );
        assert_eq!(std::fs::read(one.vmlinux()).unwrap(), tiny_vmlinux(true));
        assert!(one.module("virtio_mmio.ko").is_file() && !one.module("x.ko").exists());
        assert_eq!(names(), ["k"]);

        let disk = std::fs::read_to_string(one.modules_disk().unwrap()).unwrap();
        for file in [
            "modules.builtin",
            "modules.dep",
            "modules.dep.bin",
            "kernel/fs/overlayfs/overlay.ko.zst",
        ] {
            assert!(disk.lines().any(|l| l == file), "{file}: {disk}");
        }
        assert!(!one.dir.join("tree").exists());

        made(kernels.path(), |parts| parts.manifest.version = "2".into()).unwrap();
        let loaded = Kernel::load(&host, kernels.path(), "k").unwrap().unwrap();
        assert_eq!(loaded.manifest.version, "2");
        assert_eq!(names(), ["k"]);
    }

    /// Wherever it is asked, and it is asked from the first file to the rename.
    #[test]
    fn a_kernel_that_is_cancelled_leaves_nothing() {
        let host = LinuxHost::new(LinuxConfig::default());
        let kernels = tempfile::tempdir().unwrap();
        let source = KernelSource::Packages(vec![package("")]);
        let new = NewKernel {
            name: "k",
            ..NewKernel::default()
        };
        let asked = std::cell::Cell::new(0);
        let made = |limit: u32| {
            asked.set(0);
            let shelf = Shelf {
                kernels: kernels.path(),
                tag: "k",
                pack: &list,
                names: &KernelNames::default(),
                replace: true,
                cancelled: &|| asked.replace(asked.get() + 1) >= limit,
                discard: &|dir| drop(crate::tree::remove(&host, dir)),
            };
            shelf::make(&host, &shelf, &source, &new)
        };
        made(u32::MAX).unwrap();
        let all = asked.get();
        std::fs::remove_dir_all(kernels.path().join("k")).unwrap();
        for limit in 0..all {
            assert!(made(limit).is_err(), "{limit} of {all}");
            assert_eq!(asked.get(), limit + 1, "it goes on");
            assert_eq!(std::fs::read_dir(kernels.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_kernel_of_another_format_is_not_there_and_a_damaged_one_is_told() {
        let host = LinuxHost::new(LinuxConfig::default());
        let kernels = tempfile::tempdir().unwrap();
        let newer = |parts: &mut KernelParts| parts.manifest.format = KERNEL_FORMAT + 1;
        let kernel = made(kernels.path(), newer).unwrap();
        assert_eq!(Kernel::load(&host, kernels.path(), "k").unwrap(), None);
        std::fs::write(kernel.dir.join(MANIFEST), "{").unwrap();
        let damaged = Kernel::load(&host, kernels.path(), "k")
            .unwrap_err()
            .to_string();
        assert!(damaged.contains("the kernel 'k' is damaged"), "{damaged}");
    }
}
