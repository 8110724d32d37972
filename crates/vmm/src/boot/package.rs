//! Taking a Debian kernel package apart: the kernel as an ELF, the modules that start a guest, and all its modules as
//! the tree that guests have at `/lib/modules/<release>` (R-GUEST-8).

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::bzimage::vmlinux_of;
use super::deb::{Walk, for_each_file};
use super::depmod::{self, KernelLists, ModuleFacts};
use super::kernel::{KERNEL_FORMAT, KernelError, KernelManifest, hex};
use super::modinfo::{ModuleError, depends, plain_module};
use super::modules::{FIRST, ModuleIndex, SECOND, name_of};

/// A kernel in memory, ready to be written.
pub struct KernelParts {
    pub(super) manifest: KernelManifest,
    pub(super) vmlinux: Vec<u8>,
    /// The modules that start a guest, by file name, plain.
    pub(super) modules: BTreeMap<String, Vec<u8>>,
    pub(super) modules_dep: String,
    pub(super) modules_builtin: String,
}

/// Takes the files of `/lib/modules/<release>`, each with its path below that.
pub type TreeSink<'a> = dyn FnMut(&str, &[u8]) -> io::Result<()> + 'a;

impl KernelParts {
    /// Takes a kernel package apart.
    ///
    /// The package is read twice: once for the kernel and what each module says, once for the few modules that are
    /// kept and for the whole tree, which goes to `tree` with what `depmod` would write beside it. All modules together
    /// are 90 MB, more than a daemon should hold.
    ///
    /// # Errors
    /// Damage, something missing, or `tree` fails.
    pub fn of_deb(
        deb: &[u8],
        name: &str,
        package: &str,
        version: &str,
        tree: &mut TreeSink<'_>,
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
        for module in &survey.modules {
            index.insert(&module.path, module.needs.clone());
        }
        let order = |names, already: &[String]| {
            index
                .closure_without(names, already)
                .map_err(|source| KernelError::Modules { source })
        };
        let first = order(FIRST, &[])?;
        let second = order(SECOND, &first)?;
        let wanted: Vec<&String> = first.iter().chain(&second).collect();
        let modules = pick_modules(deb, &wanted, tree)?;
        let lists = KernelLists {
            order: &survey.order,
            builtin: &survey.builtin,
            builtin_modinfo: &survey.builtin_modinfo,
        };
        let written = depmod::files(&survey.modules, lists)
            .map_err(|source| KernelError::Modules { source })?;
        for (file, bytes) in &written {
            tree(file, bytes).map_err(|source| KernelError::Tree { source })?;
        }

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
                modules_disk: true,
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
    order: String,
    builtin: String,
    builtin_modinfo: Vec<u8>,
    modules: Vec<ModuleFacts>,
}

impl Survey {
    fn of(deb: &[u8]) -> Result<Survey, KernelError> {
        let mut survey = Survey::default();
        let mut bad_module = None;
        for_each_file(deb, |path, body| {
            if path.starts_with("boot/vmlinuz-") {
                survey.image = Some((path.to_owned(), bytes_of(body)?));
                return Ok(Walk::On);
            }
            let Some((release, file)) = in_tree(path) else {
                return Ok(Walk::On);
            };
            match file {
                "modules.order" => survey.order = text_of(body)?,
                "modules.builtin" => {
                    survey.release = Some(release.to_owned());
                    survey.builtin = text_of(body)?;
                }
                "modules.builtin.modinfo" => survey.builtin_modinfo = bytes_of(body)?,
                _ if is_module(file) => {
                    let facts = plain_module(&bytes_of(body)?)
                        .and_then(|plain| ModuleFacts::of(file, &plain));
                    match facts {
                        Ok(facts) => survey.modules.push(facts),
                        Err(source) => {
                            bad_module = Some(bad(path, source));
                            return Ok(Walk::Done);
                        }
                    }
                }
                _ => {}
            }
            Ok(Walk::On)
        })
        .map_err(|source| KernelError::Package { source })?;
        bad_module.map_or(Ok(survey), Err)
    }
}

/// The wanted modules, plain; every file of the tree goes to `tree` on the way.
fn pick_modules(
    deb: &[u8],
    wanted: &[&String],
    tree: &mut TreeSink<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, KernelError> {
    let mut modules = BTreeMap::new();
    let mut failed = None;
    for_each_file(deb, |path, body| {
        let Some((_, file)) = in_tree(path) else {
            return Ok(Walk::On);
        };
        let bytes = bytes_of(body)?;
        if wanted.iter().any(|w| *w == file) {
            match plain_module(&bytes) {
                Ok(plain) => drop(modules.insert(file_of(file), plain)),
                Err(source) => failed = Some(bad(path, source)),
            }
        }
        if let Err(source) = tree(file, &bytes) {
            failed = Some(KernelError::Tree { source });
        }
        Ok(if failed.is_some() {
            Walk::Done
        } else {
            Walk::On
        })
    })
    .map_err(|source| KernelError::Package { source })?;
    failed.map_or(Ok(modules), Err)
}

fn bad(path: &str, source: ModuleError) -> KernelError {
    KernelError::Module {
        path: path.to_owned(),
        source,
    }
}

/// Release and path below its directory of a file of the modules' tree: `lib/modules/6.1.0/kernel/…`.
fn in_tree(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    path.strip_prefix("lib/modules/")?.split_once('/')
}

fn is_module(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".ko") || name.contains(".ko.")
}

fn text_of(body: &mut dyn Read) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(body)?).into_owned())
}

fn bytes_of(body: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    Ok(bytes)
}
