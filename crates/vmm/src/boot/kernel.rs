//! Kernels as banger keeps them: a directory with a manifest, the ELF, and the modules that a guest needs.
//!
//! ```text
//! kernels/<name>/manifest.json   what it is, and which modules in which order
//!                vmlinux         ELF with a PVH note
//!                modules/*.ko    plain (never compressed), flat
//!                modules.dep     the same modules, for who wants to order others
//!                modules.builtin
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use banger_host::{ErrorKind, Files, Tools};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::apt::{self, AptError};
use super::bzimage::{KernelImageError, vmlinux_of};
use super::deb::{DebError, Walk, for_each_file};
use super::modinfo::{ModuleError, depends, plain_module};
use super::modules::{FIRST, ModuleIndex, ModulesError, SECOND, name_of};
use crate::tree;

/// Debian's kernel for virtual machines; the name resolves to the newest one that the machine's sources have.
pub const DEBIAN_CLOUD: &str = "linux-image-cloud-amd64";

/// Bumped when the directory's layout or the lists of modules change; a kernel of another format is fetched anew.
pub const KERNEL_FORMAT: u32 = 1;

/// What a kernel directory says about itself (`manifest.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    /// [`KERNEL_FORMAT`] of the writer.
    pub format: u32,
    /// Name under which VMs refer to it.
    pub name: String,
    /// Release as `uname -r` in the guest says it.
    pub release: String,
    /// Package it came from.
    pub package: String,
    /// That package's version.
    pub version: String,
    /// SHA-256 of `vmlinux`, hex.
    pub vmlinux_sha256: String,
    /// Module files to load before the agent's first word, in order, relative to `modules/`.
    pub first: Vec<String>,
    /// Module files to load after it, in order, relative to `modules/`.
    pub second: Vec<String>,
}

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
    /// The package could not be read.
    #[error("the kernel package could not be read")]
    Package {
        /// Why.
        #[source]
        source: DebError,
    },
    /// A package without what a kernel package has.
    #[error("the package {package} holds no {what}")]
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
    /// A file could not be written or looked at.
    #[error("the kernel directory cannot be written")]
    Files {
        /// Why.
        #[source]
        source: banger_host::Error,
    },
    /// The manifest on disk is damaged.
    #[error("{path} is damaged; remove the directory and the kernel is fetched again")]
    Manifest {
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

    /// The kernel `name` under `kernels`; `None` if it is not there or of another format (then fetch it).
    ///
    /// # Errors
    /// The manifest cannot be read or is damaged.
    pub fn load<F: Files>(
        files: &F,
        kernels: &Path,
        name: &str,
    ) -> Result<Option<Kernel>, KernelError> {
        let dir = kernels.join(name);
        let path = dir.join("manifest.json");
        let Some(bytes) = files
            .read(&path)
            .map_err(|source| KernelError::Files { source })?
        else {
            return Ok(None);
        };
        let manifest: KernelManifest = serde_json::from_slice(&bytes)
            .map_err(|source| KernelError::Manifest { path, source })?;
        Ok((manifest.format == KERNEL_FORMAT).then_some(Kernel { dir, manifest }))
    }
}

/// What would keep [`fetch_debian`] from beginning; looks only, and not at the network.
///
/// # Errors
/// A program is missing.
pub fn fetch_obstacle<H: Tools>(host: &H) -> Result<(), KernelError> {
    apt::programs(host).map_err(|source| KernelError::Fetch { source })
}

/// Fetches Debian's cloud kernel and publishes it as `kernels/<name>`, whole or not at all.
///
/// `kernels` must exist. One fetch per name at a time is the caller's duty (pulls are shared operations); the rests of
/// one that was killed are cleared by the next.
///
/// # Errors
/// See [`KernelError`]; nothing is left under the name.
pub fn fetch_debian<H: Files + Tools>(
    host: &H,
    kernels: &Path,
    name: &str,
    progress: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<Kernel, KernelError> {
    let work = kernels.join(format!(".fetch-{name}"));
    let package = apt::fetch_kernel_package(host, DEBIAN_CLOUD, &work, progress, cancelled)
        .map_err(|source| KernelError::Fetch { source })?;
    progress(&format!("unpacking {} {}", package.name, package.version));
    let parts = KernelParts::of_deb(&package.deb, name, &package.name, &package.version)?;
    publish(host, kernels, &parts)
}

/// A kernel in memory, ready to be written.
pub struct KernelParts {
    manifest: KernelManifest,
    vmlinux: Vec<u8>,
    modules: BTreeMap<String, Vec<u8>>,
    modules_dep: String,
    modules_builtin: String,
}

impl KernelParts {
    /// Takes a kernel package apart.
    ///
    /// The package is read twice: once for the kernel and what each module needs, once for the few modules that are
    /// kept. All modules together are 90 MB, more than a daemon should hold.
    ///
    /// # Errors
    /// Damage, or something missing.
    pub fn of_deb(
        deb: &[u8],
        name: &str,
        package: &str,
        version: &str,
    ) -> Result<KernelParts, KernelError> {
        let survey = Survey::of(deb)?;
        let incomplete = |what| KernelError::Incomplete {
            package: package.to_owned(),
            what,
        };
        let (image_path, image) = survey.image.ok_or(incomplete("boot/vmlinuz-*"))?;
        let release = survey
            .release
            .ok_or(incomplete("lib/modules/*/modules.builtin"))?;
        let vmlinux = vmlinux_of(&image).map_err(|source| KernelError::Image {
            path: image_path,
            source,
        })?;
        drop(image);

        let mut index = ModuleIndex::with_builtin(&survey.builtin);
        for (path, needs) in survey.needs {
            index.insert(&path, needs);
        }
        let order = |names, already: &[String]| {
            index
                .closure_without(names, already)
                .map_err(|source| KernelError::Modules { source })
        };
        let first = order(FIRST, &[])?;
        let second = order(SECOND, &first)?;
        let wanted: Vec<&String> = first.iter().chain(&second).collect();
        let modules = pick_modules(deb, &wanted)?;

        let mut kept = ModuleIndex::with_builtin(&survey.builtin);
        for (file, bytes) in &modules {
            let needs = depends(bytes).map_err(|source| KernelError::Module {
                path: file.clone(),
                source,
            })?;
            kept.insert(&format!("modules/{file}"), needs);
        }
        let files = |paths: &[String]| paths.iter().map(|p| file_of(p)).collect();
        Ok(KernelParts {
            manifest: KernelManifest {
                format: KERNEL_FORMAT,
                name: name.to_owned(),
                release,
                package: package.to_owned(),
                version: version.to_owned(),
                vmlinux_sha256: hex(&Sha256::digest(&vmlinux)),
                first: files(&first),
                second: files(&second),
            },
            vmlinux,
            modules,
            modules_dep: kept.to_modules_dep(),
            modules_builtin: survey.builtin,
        })
    }

    /// What the kernel will say about itself.
    pub fn manifest(&self) -> &KernelManifest {
        &self.manifest
    }
}

/// The file name under `modules/`: the module's own name, plain.
fn file_of(path: &str) -> String {
    format!("{}.ko", name_of(path))
}

/// What one pass over a package finds.
#[derive(Default)]
struct Survey {
    image: Option<(String, Vec<u8>)>,
    release: Option<String>,
    builtin: String,
    needs: Vec<(String, Vec<String>)>,
}

impl Survey {
    fn of(deb: &[u8]) -> Result<Survey, KernelError> {
        let mut survey = Survey::default();
        let mut bad_module = None;
        for_each_file(deb, |path, body| {
            if path.starts_with("boot/vmlinuz-") {
                survey.image = Some((path.to_owned(), bytes_of(body)?));
            } else if is_module(path) {
                match plain_module(&bytes_of(body)?).and_then(|plain| depends(&plain)) {
                    Ok(needs) => survey.needs.push((path.to_owned(), needs)),
                    Err(source) => {
                        bad_module = Some(KernelError::Module {
                            path: path.to_owned(),
                            source,
                        });
                        return Ok(Walk::Done);
                    }
                }
            } else if let Some(dir) = path.strip_suffix("/modules.builtin") {
                survey.release = dir.rsplit('/').next().map(str::to_owned);
                survey.builtin = String::from_utf8_lossy(&bytes_of(body)?).into_owned();
            }
            Ok(Walk::On)
        })
        .map_err(|source| KernelError::Package { source })?;
        bad_module.map_or(Ok(survey), Err)
    }
}

fn pick_modules(deb: &[u8], wanted: &[&String]) -> Result<BTreeMap<String, Vec<u8>>, KernelError> {
    let mut modules = BTreeMap::new();
    let mut bad_module = None;
    for_each_file(deb, |path, body| {
        if wanted.iter().any(|w| *w == path) {
            match plain_module(&bytes_of(body)?) {
                Ok(plain) => drop(modules.insert(file_of(path), plain)),
                Err(source) => {
                    bad_module = Some(KernelError::Module {
                        path: path.to_owned(),
                        source,
                    })
                }
            }
        }
        Ok(if modules.len() == wanted.len() || bad_module.is_some() {
            Walk::Done
        } else {
            Walk::On
        })
    })
    .map_err(|source| KernelError::Package { source })?;
    bad_module.map_or(Ok(modules), Err)
}

fn is_module(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    path.contains("lib/modules/") && (file.ends_with(".ko") || file.contains(".ko."))
}

fn bytes_of(body: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes the parts to a stage directory, makes them durable and renames it to its name.
///
/// A kernel that is there under the name is moved aside and removed: the caller wants another one, or could not use it.
/// Killed between the two renames, the name is free and the next fetch fills it.
fn publish<F: Files>(
    files: &F,
    kernels: &Path,
    parts: &KernelParts,
) -> Result<Kernel, KernelError> {
    write_stage(files, kernels, parts).map_err(|source| KernelError::Files { source })?;
    Ok(Kernel {
        dir: kernels.join(&parts.manifest.name),
        manifest: parts.manifest.clone(),
    })
}

fn write_stage<F: Files>(
    files: &F,
    kernels: &Path,
    parts: &KernelParts,
) -> Result<(), banger_host::Error> {
    let name = &parts.manifest.name;
    let stage = kernels.join(format!(".stage-{name}"));
    tree::remove(files, &stage)?;
    files.mkdir(&stage)?;
    let modules = stage.join("modules");
    files.mkdir(&modules)?;
    let put = |path: PathBuf, bytes: &[u8]| {
        files.write(&path, bytes)?;
        files.sync_file(&path)
    };
    for (file, bytes) in &parts.modules {
        put(modules.join(file), bytes)?;
    }
    put(stage.join("vmlinux"), &parts.vmlinux)?;
    put(stage.join("modules.dep"), parts.modules_dep.as_bytes())?;
    put(
        stage.join("modules.builtin"),
        parts.modules_builtin.as_bytes(),
    )?;
    let manifest = serde_json::to_vec_pretty(&parts.manifest).unwrap_or_default();
    put(stage.join("manifest.json"), &manifest)?;
    files.sync_dir(&modules)?;
    files.sync_dir(&stage)?;

    let target = kernels.join(name);
    match files.rename(&stage, &target) {
        Err(e) if e.kind == ErrorKind::Exists => {
            let aside = kernels.join(format!(".trash-{name}"));
            tree::remove(files, &aside)?;
            files.rename(&target, &aside)?;
            files.rename(&stage, &target)?;
            files.sync_dir(kernels)?;
            tree::remove(files, &aside)
        }
        other => other.and_then(|()| files.sync_dir(kernels)),
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::bzimage::tests::bzimage;
    use crate::boot::deb::tests::tiny_deb;
    use crate::boot::elf::tests::tiny_vmlinux;
    use crate::boot::modinfo::tests::tiny_module;
    use banger_host::linux::{LinuxConfig, LinuxHost};

    fn package(leave_out: &str) -> Vec<u8> {
        let elf = tiny_vmlinux(true);
        let mut payload = zstd::bulk::compress(&elf, 1).unwrap();
        payload.extend((elf.len() as u32).to_le_bytes());
        let image = bzimage(&payload);
        let module = |needs: &str| tiny_module(format!("depends={needs}\0").as_bytes());
        let xz_like = zstd::bulk::compress(&module(""), 1).unwrap();
        let all: Vec<(&str, Vec<u8>)> = vec![
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
        ];
        let kept: Vec<(&str, &[u8])> = all
            .iter()
            .filter(|(p, _)| leave_out.is_empty() || !p.contains(leave_out))
            .map(|(p, b)| (*p, b.as_slice()))
            .collect();
        tiny_deb(&kept, true)
    }

    fn parts(leave_out: &str) -> Result<KernelParts, KernelError> {
        KernelParts::of_deb(&package(leave_out), "k", "linux-image-x", "1")
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
        assert!(
            parts
                .modules_dep
                .contains("modules/virtio_ring.ko: modules/virtio.ko")
        );
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
        assert!(told("vmlinuz").contains("holds no boot/vmlinuz"));
        assert!(told("virtio_blk").contains("no module \"virtio_blk\""));
        assert!(told("virtio/virtio.ko").contains("(needed by \"virtio_ring\")"));
        assert!(told("modules.builtin").contains("modules.builtin"));
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
        let one = publish(&host, kernels.path(), &parts("").unwrap()).unwrap();
        assert_eq!(
            Kernel::load(&host, kernels.path(), "k").unwrap(),
            Some(one.clone())
        );
        assert_eq!(std::fs::read(one.vmlinux()).unwrap(), tiny_vmlinux(true));
        assert!(one.module("virtio_mmio.ko").is_file() && !one.module("x.ko").exists());
        assert_eq!(names(), ["k"]);

        let mut newer = parts("").unwrap();
        newer.manifest.version = "2".into();
        publish(&host, kernels.path(), &newer).unwrap();
        let loaded = Kernel::load(&host, kernels.path(), "k").unwrap().unwrap();
        assert_eq!(loaded.manifest.version, "2");
        assert_eq!(names(), ["k"]);
    }

    #[test]
    fn a_kernel_of_another_format_is_not_there_and_a_damaged_one_is_told() {
        let host = LinuxHost::new(LinuxConfig::default());
        let kernels = tempfile::tempdir().unwrap();
        let mut parts = parts("").unwrap();
        parts.manifest.format = KERNEL_FORMAT + 1;
        let kernel = publish(&host, kernels.path(), &parts).unwrap();
        assert_eq!(Kernel::load(&host, kernels.path(), "k").unwrap(), None);
        std::fs::write(kernel.dir.join("manifest.json"), "{").unwrap();
        let damaged = Kernel::load(&host, kernels.path(), "k")
            .unwrap_err()
            .to_string();
        assert!(damaged.contains("manifest.json is damaged"), "{damaged}");
    }
}
