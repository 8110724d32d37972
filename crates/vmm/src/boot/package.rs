//! Taking a kernel apart that came in a package, an archive or a file: the kernel as an ELF, the modules that start a
//! guest, and all its modules as the tree that guests have at `/lib/modules/<release>` (R-GUEST-8).

use std::collections::BTreeMap;
use std::io;

use banger_model::hex;
use sha2::{Digest, Sha256};

use super::bzimage::vmlinux_of;
use super::config::{KernelConfig, release_in};
use super::depmod::{self, KernelLists, ModuleFacts};
use super::kernel::{KERNEL_FORMAT, KernelError, KernelManifest};
use super::modinfo::{LARGEST_MODULE, plain_module};
use super::modules::{FIRST, HELPFUL, ModuleIndex, ModulesError, SECOND, name_of};
use super::needs::{self, Evidence};
use super::source::{KernelSource, bytes_of};
use super::survey::{Survey, bad, image_rank, in_tree, visited};
use super::unpack::Cancelled;

/// The most that the modules take which start a guest, plain, in bytes: they are held, and are in every initramfs of the
/// kernel. Debian's take 3 MB.
const LARGEST_START: usize = 64 << 20;
/// Bytes between two questions whether it is cancelled.
const HASHED_AT_ONCE: usize = 4 << 20;

/// A kernel in memory, ready to be written.
pub struct KernelParts {
    pub(super) manifest: KernelManifest,
    pub(super) vmlinux: Vec<u8>,
    /// Its configuration's text, where it is known.
    pub(super) config: Option<String>,
    /// The modules that start a guest, by file name, plain.
    pub(super) modules: BTreeMap<String, Vec<u8>>,
    pub(super) modules_builtin: String,
}

/// Takes the files of `/lib/modules/<release>`, each with its path below that.
pub type TreeSink<'a> = dyn FnMut(&str, &[u8]) -> io::Result<()> + 'a;

/// What a new kernel is called, and where it comes from.
#[derive(Debug, Clone, Default)]
pub struct NewKernel<'a> {
    /// Name under which VMs will refer to it.
    pub name: &'a str,
    /// Package it comes from, or what else it is.
    pub package: &'a str,
    /// That package's version; the kernel's release if empty.
    pub version: &'a str,
    /// Where it comes from, for a person.
    pub source: Option<&'a str>,
    /// Unix time in seconds.
    pub created: u64,
    /// Takes a kernel that lacks what banger needs.
    pub force: bool,
    /// Digest of all it was built of, where banger built it.
    pub built_of: Option<&'a str>,
}

impl KernelParts {
    /// Takes a kernel apart.
    ///
    /// The source is read twice: once for the kernel and what each module says, once for the few modules that are
    /// kept and for the whole tree, which goes to `tree` with what `depmod` would write beside it. All modules together
    /// are 90 to 400 MB, more than a daemon should hold.
    ///
    /// # Errors
    /// Damage, something missing, `tree` fails, or it was cancelled.
    pub fn of(
        source: &KernelSource,
        new: &NewKernel<'_>,
        tree: &mut TreeSink<'_>,
        cancelled: &Cancelled<'_>,
    ) -> Result<KernelParts, KernelError> {
        let mut survey = Survey::of(source, cancelled)?;
        let (path, image) = survey.image(new.package)?;
        let vmlinux =
            vmlinux_of(image, cancelled).map_err(|source| KernelError::Image { path, source })?;
        let (release, mut listed) = survey.modules_of(release_in(&vmlinux), new.package)?;
        let config = survey.config_of(&release);
        let config = config.or_else(|| KernelConfig::text_in(&vmlinux));
        let known = config.as_deref().and_then(KernelConfig::parse);
        let check = needs::check(&Evidence {
            config: known.as_ref(),
            builtin: listed.builtin.as_deref(),
            modules: listed.modules().map(ModuleFacts::name).collect(),
            symbols: needs::symbols(&vmlinux),
        });
        let lacks = check.lacks();
        if !lacks.is_empty() && !new.force {
            return Err(KernelError::Lacks { lacks });
        }

        let builtin = listed.builtin.take().unwrap_or_default();
        let mut index = ModuleIndex::with_builtin(&builtin);
        for module in listed.modules() {
            index.insert(&module.path, module.needs.clone());
        }
        // What is neither a module nor known to be missing is built in.
        let order = |names: &[&str], already: &[String]| {
            let loadable: Vec<&str> = names
                .iter()
                .copied()
                .filter(|n| index.path(n).is_some())
                .collect();
            index
                .closure_without(&loadable, already)
                .map_err(|source| KernelError::Modules { source })
        };
        let first = order(FIRST, &[])?;
        let helpful = if index.path("ext4").is_some() {
            HELPFUL
        } else {
            &[]
        };
        let second = order(&[helpful, SECOND].concat(), &first)?;
        let wanted: Vec<&String> = first.iter().chain(&second).collect();
        let modules = pick_modules(source, &listed.release, &wanted, tree, cancelled)?;
        if modules.len() != wanted.len() {
            return Err(KernelError::Incomplete {
                package: new.package.to_owned(),
                what: "module of those it needs to start where its list says it is",
            });
        }
        let any_modules = listed.modules().next().is_some();
        if any_modules {
            let lists = KernelLists {
                order: &listed.order,
                builtin: &builtin,
                builtin_modinfo: &listed.builtin_modinfo,
            };
            let modules: Vec<_> = listed.modules().collect();
            write_lists(&modules, lists, tree, cancelled)?;
        }

        let files = |paths: &[String]| paths.iter().map(|p| file_of(p)).collect();
        let version = match new.version {
            "" => &release,
            version => version,
        };
        Ok(KernelParts {
            manifest: KernelManifest {
                format: KERNEL_FORMAT,
                name: new.name.to_owned(),
                version: version.to_owned(),
                release,
                package: new.package.to_owned(),
                vmlinux_sha256: digest(&vmlinux, cancelled)?,
                first: files(&first),
                second: files(&second),
                modules_disk: any_modules,
                modules_sha256: digest_of_all(&modules, cancelled)?,
                source: new.source.map(str::to_owned),
                created: new.created,
                check: Some(check),
                built_of: new.built_of.map(str::to_owned),
            },
            vmlinux,
            config,
            modules,
            modules_builtin: builtin,
        })
    }
}

fn write_lists(
    modules: &[&ModuleFacts],
    lists: KernelLists<'_>,
    tree: &mut TreeSink<'_>,
    cancelled: &Cancelled<'_>,
) -> Result<(), KernelError> {
    let written = depmod::files(modules, lists, cancelled).map_err(|error| match error {
        ModulesError::Cancelled => KernelError::Cancelled,
        source => KernelError::Modules { source },
    })?;
    for (file, bytes) in &written {
        tree(file, bytes).map_err(|source| KernelError::Tree { source })?;
    }
    Ok(())
}

/// SHA-256, hex.
fn digest(bytes: &[u8], cancelled: &Cancelled<'_>) -> Result<String, KernelError> {
    let mut all = Sha256::new();
    for piece in bytes.chunks(HASHED_AT_ONCE) {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        all.update(piece);
    }
    Ok(hex::encode(&all.finalize()))
}

/// Digest of the modules that start a guest; empty if there are none.
fn digest_of_all(
    modules: &BTreeMap<String, Vec<u8>>,
    cancelled: &Cancelled<'_>,
) -> Result<String, KernelError> {
    if modules.is_empty() {
        return Ok(String::new());
    }
    let mut all = Sha256::new();
    for (file, bytes) in modules {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        all.update(file);
        all.update(Sha256::digest(bytes));
    }
    Ok(hex::encode(&all.finalize()))
}

/// The file name under `modules/`: the module's own name, plain.
fn file_of(path: &str) -> String {
    format!("{}.ko", name_of(path))
}

/// The wanted modules, plain; every file of the tree goes to `tree` on the way.
fn pick_modules(
    source: &KernelSource,
    release: &str,
    wanted: &[&String],
    tree: &mut TreeSink<'_>,
    cancelled: &Cancelled<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, KernelError> {
    let mut modules = BTreeMap::new();
    let mut left = LARGEST_START;
    visited(source, cancelled, &mut |path, body| {
        let Some(place) = in_tree(path).filter(|place| place.release == release) else {
            return Ok(());
        };
        // Some distributions keep the kernel beside the modules.
        if image_rank(path).is_some() {
            return Ok(());
        }
        let bytes = bytes_of(body, path, LARGEST_MODULE as u64)?;
        if wanted.iter().any(|w| *w == place.file) {
            let plain = plain_module(&bytes).map_err(|source| bad(path, source))?;
            left = left
                .checked_sub(plain.len())
                .ok_or_else(|| KernelError::TooMuch {
                    what: format!("{} MiB of modules to start with", LARGEST_START >> 20),
                })?;
            modules.insert(file_of(place.file), plain);
        }
        tree(place.file, &bytes).map_err(|source| KernelError::Tree { source }.into())
    })?;
    Ok(modules)
}
