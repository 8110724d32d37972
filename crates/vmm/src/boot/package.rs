//! Taking a kernel apart that came in a package, an archive or a file: the kernel as an ELF, the modules that start a
//! guest, and all its modules as the tree that guests have at `/lib/modules/<release>` (R-GUEST-8).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::bzimage::vmlinux_of;
use super::config::{KernelConfig, LARGEST_CONFIG, is_release, release_in};
use super::deb::Walk;
use super::depmod::{self, KernelLists, ModuleFacts};
use super::kernel::{KERNEL_FORMAT, KernelError, KernelManifest, hex};
use super::modinfo::{LARGEST_MODULE, ModuleError, depends, plain_module};
use super::modules::{FIRST, HELPFUL, ModuleIndex, SECOND, name_of};
use super::needs::{self, Evidence};
use super::source::{KernelSource, LARGEST_IMAGE, bytes_of};

/// The longest of the lists that a kernel's build writes (`modules.order`, `modules.builtin`); Debian's have 300 kB.
const LARGEST_LIST: u64 = 16 << 20;

/// A kernel in memory, ready to be written.
pub struct KernelParts {
    pub(super) manifest: KernelManifest,
    pub(super) vmlinux: Vec<u8>,
    /// Its configuration's text, where it is known.
    pub(super) config: Option<String>,
    /// The modules that start a guest, by file name, plain.
    pub(super) modules: BTreeMap<String, Vec<u8>>,
    pub(super) modules_dep: String,
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
    /// Damage, something missing, or `tree` fails.
    pub fn of(
        source: &KernelSource,
        new: &NewKernel<'_>,
        tree: &mut TreeSink<'_>,
    ) -> Result<KernelParts, KernelError> {
        let mut survey = Survey::of(source)?;
        let (image_path, image) = survey.image(new.package)?;
        let vmlinux = vmlinux_of(&image).map_err(|source| KernelError::Image {
            path: image_path,
            source,
        })?;
        drop(image);
        let (release, listed) = survey.modules_of(release_in(&vmlinux), new.package)?;
        let config = survey.config.or_else(|| KernelConfig::text_in(&vmlinux));
        let known = config.as_deref().and_then(KernelConfig::parse);
        let check = needs::check(&Evidence {
            config: known.as_ref(),
            builtin: listed.builtin.as_deref(),
            modules: listed.modules.iter().map(ModuleFacts::name).collect(),
            symbols: needs::symbols(&vmlinux),
        });
        let lacks = check.lacks();
        if !lacks.is_empty() && !new.force {
            return Err(KernelError::Lacks { lacks });
        }

        let builtin = listed.builtin.unwrap_or_default();
        let mut index = ModuleIndex::with_builtin(&builtin);
        for module in &listed.modules {
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
        let modules = pick_modules(source, &listed.dir, &wanted, tree)?;
        if !listed.modules.is_empty() {
            let lists = KernelLists {
                order: &listed.order,
                builtin: &builtin,
                builtin_modinfo: &listed.builtin_modinfo,
            };
            write_lists(&listed.modules, lists, tree)?;
        }

        let kept = kept_index(&builtin, &modules)?;
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
                vmlinux_sha256: hex(&Sha256::digest(&vmlinux)),
                first: files(&first),
                second: files(&second),
                modules_disk: !listed.modules.is_empty(),
                modules_sha256: digest(&modules),
                source: new.source.map(str::to_owned),
                created: new.created,
                check: Some(check),
                built_of: new.built_of.map(str::to_owned),
            },
            vmlinux,
            config,
            modules,
            modules_dep: kept.to_modules_dep(),
            modules_builtin: builtin,
        })
    }

    /// What the kernel will say about itself.
    pub fn manifest(&self) -> &KernelManifest {
        &self.manifest
    }
}

fn kept_index(
    builtin: &str,
    modules: &BTreeMap<String, Vec<u8>>,
) -> Result<ModuleIndex, KernelError> {
    let mut kept = ModuleIndex::with_builtin(builtin);
    for (file, bytes) in modules {
        let needs = depends(bytes).map_err(|source| bad(file, source))?;
        kept.insert(&format!("modules/{file}"), needs);
    }
    Ok(kept)
}

fn write_lists(
    modules: &[ModuleFacts],
    lists: KernelLists<'_>,
    tree: &mut TreeSink<'_>,
) -> Result<(), KernelError> {
    let written =
        depmod::files(modules, lists).map_err(|source| KernelError::Modules { source })?;
    for (file, bytes) in &written {
        tree(file, bytes).map_err(|source| KernelError::Tree { source })?;
    }
    Ok(())
}

/// Digest of the modules that start a guest; empty if there are none.
fn digest(modules: &BTreeMap<String, Vec<u8>>) -> String {
    if modules.is_empty() {
        return String::new();
    }
    let mut all = Sha256::new();
    for (file, bytes) in modules {
        all.update(file);
        all.update(Sha256::digest(bytes));
    }
    hex(&all.finalize())
}

/// The file name under `modules/`: the module's own name, plain.
fn file_of(path: &str) -> String {
    format!("{}.ko", name_of(path))
}

/// A tree of modules as one pass over a source finds it.
#[derive(Default)]
struct Listed {
    /// Its directory in the source.
    dir: String,
    order: String,
    builtin: Option<String>,
    builtin_modinfo: Vec<u8>,
    modules: Vec<ModuleFacts>,
}

/// What one pass over a source finds.
#[derive(Default)]
struct Survey {
    /// The best kind of kernel image seen so far, all of that kind by their paths, and the first one's bytes.
    rank: usize,
    images: BTreeSet<String>,
    image: Vec<u8>,
    config: Option<String>,
    /// Trees of modules by the release that their directory names; empty where it names none.
    trees: BTreeMap<String, Listed>,
}

impl Survey {
    fn of(source: &KernelSource) -> Result<Survey, KernelError> {
        let mut survey = Survey {
            rank: usize::MAX,
            ..Survey::default()
        };
        let mut bad_module = None;
        let walked = source.for_each_file(&mut |path, body| {
            if let Some(rank) = image_rank(path) {
                survey.take_image(path, rank, body)?;
            } else if is_config(path) && survey.config.is_none() {
                let text = text_of(body, path, LARGEST_CONFIG as u64)?;
                survey.config = Some(text).filter(|text| KernelConfig::parse(text).is_some());
            } else if let Some(place) = in_tree(path)
                && let Err(error) = survey.take_listed(&place, path, body)?
            {
                bad_module = Some(bad(path, error));
                return Ok(Walk::Done);
            }
            Ok(Walk::On)
        });
        walked.map_err(|source| KernelError::Source { source })?;
        bad_module.map_or(Ok(survey), Err)
    }

    fn take_image(&mut self, path: &str, rank: usize, body: &mut dyn Read) -> io::Result<()> {
        if rank > self.rank {
            return Ok(());
        }
        if rank < self.rank {
            self.rank = rank;
            self.images.clear();
            self.image = bytes_of(body, path, LARGEST_IMAGE)?;
        }
        self.images.insert(path.to_owned());
        Ok(())
    }

    /// The inner error is a module's that is damaged.
    fn take_listed(
        &mut self,
        place: &Place<'_>,
        path: &str,
        body: &mut dyn Read,
    ) -> io::Result<Result<(), ModuleError>> {
        let listed = self.trees.entry(place.release.to_owned()).or_default();
        if listed.dir.is_empty() {
            listed.dir = place.dir.to_owned();
        }
        match place.file {
            "modules.order" => listed.order = text_of(body, path, LARGEST_LIST)?,
            "modules.builtin" => listed.builtin = Some(text_of(body, path, LARGEST_LIST)?),
            "modules.builtin.modinfo" => {
                listed.builtin_modinfo = bytes_of(body, path, LARGEST_LIST)?;
            }
            file if is_module(file) => {
                let bytes = bytes_of(body, path, LARGEST_MODULE as u64)?;
                let facts = plain_module(&bytes).and_then(|plain| ModuleFacts::of(file, &plain));
                match facts {
                    Ok(facts) => listed.modules.push(facts),
                    Err(error) => return Ok(Err(error)),
                }
            }
            _ => {}
        }
        Ok(Ok(()))
    }

    fn image(&mut self, package: &str) -> Result<(String, Vec<u8>), KernelError> {
        let mut paths = std::mem::take(&mut self.images).into_iter();
        match (paths.next(), paths.next()) {
            (Some(path), None) => Ok((path, std::mem::take(&mut self.image))),
            (None, _) => Err(KernelError::Incomplete {
                package: package.to_owned(),
                what: "kernel: a vmlinux, bzImage or vmlinuz-*",
            }),
            (Some(one), Some(two)) => Err(KernelError::Several {
                paths: [one, two].into_iter().chain(paths).collect(),
            }),
        }
    }

    /// The release of the kernel, and the tree of its modules; an empty one if it came with none.
    fn modules_of(
        &mut self,
        said: Option<String>,
        package: &str,
    ) -> Result<(String, Listed), KernelError> {
        let named: Vec<String> = self
            .trees
            .iter()
            .filter(|(name, tree)| !name.is_empty() && !tree.modules.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let release = said.or_else(|| match &named[..] {
            [only] => Some(only.clone()),
            _ => None,
        });
        let release = release.ok_or(KernelError::Incomplete {
            package: package.to_owned(),
            what: "release: neither the kernel nor a directory of modules names it",
        })?;
        let tree = self.trees.remove(&release);
        if let (None, [_, ..]) = (&tree, &named[..]) {
            return Err(KernelError::OtherRelease {
                release,
                modules: named.join(", "),
            });
        }
        let tree = tree.or_else(|| self.trees.remove(""));
        Ok((release, tree.unwrap_or_default()))
    }
}

/// The wanted modules, plain; every file of the tree goes to `tree` on the way.
fn pick_modules(
    source: &KernelSource,
    dir: &str,
    wanted: &[&String],
    tree: &mut TreeSink<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, KernelError> {
    let mut modules = BTreeMap::new();
    let mut failed = None;
    let walked = source.for_each_file(&mut |path, body| {
        let Some(place) = in_tree(path).filter(|place| place.dir == dir) else {
            return Ok(Walk::On);
        };
        if image_rank(path).is_some() {
            return Ok(Walk::On); // some distributions keep it beside the modules
        }
        let bytes = bytes_of(body, path, LARGEST_MODULE as u64)?;
        if wanted.iter().any(|w| *w == place.file) {
            match plain_module(&bytes) {
                Ok(plain) => drop(modules.insert(file_of(place.file), plain)),
                Err(source) => failed = Some(bad(path, source)),
            }
        }
        if let Err(source) = tree(place.file, &bytes) {
            failed = Some(KernelError::Tree { source });
        }
        Ok(if failed.is_some() {
            Walk::Done
        } else {
            Walk::On
        })
    });
    walked.map_err(|source| KernelError::Source { source })?;
    failed.map_or(Ok(modules), Err)
}

fn bad(path: &str, source: ModuleError) -> KernelError {
    KernelError::Module {
        path: path.to_owned(),
        source,
    }
}

/// Where a file of a modules' tree is.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// The tree's directory in the source.
    dir: &'a str,
    /// The release it names, or nothing.
    release: &'a str,
    /// Path below it.
    file: &'a str,
}

/// `lib/modules/6.1.0/kernel/…`, `modules/…` and what is beside that in a kernel directory of ours.
fn in_tree(path: &str) -> Option<Place<'_>> {
    let place = |file: &'_ str, release| {
        let dir = path.get(..path.len() - file.len()).unwrap_or_default();
        Place {
            dir,
            release,
            file: &path[path.len() - file.len()..],
        }
    };
    let below = path.strip_prefix("usr/").unwrap_or(path);
    let below = below.strip_prefix("lib/").unwrap_or(below);
    if let Some(rest) = below.strip_prefix("modules/") {
        if let Some((release, file)) = rest.split_once('/')
            && is_release(release)
        {
            let release = &path[path.len() - rest.len()..][..release.len()];
            return Some(place(file, release));
        }
        return Some(place(rest, ""));
    }
    let beside = [
        "modules.builtin",
        "modules.order",
        "modules.builtin.modinfo",
    ];
    // Of one tree with `modules/`, whose directory it is counted to.
    beside.contains(&path).then_some(Place {
        dir: "modules/",
        release: "",
        file: path,
    })
}

/// How well a file serves as the kernel, by its name; lower is better.
fn image_rank(path: &str) -> Option<usize> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let tree = in_tree(path).is_some_and(|place| !place.release.is_empty() && place.file == name);
    if !(dir.is_empty() || dir == "boot" || tree) {
        return None;
    }
    let is =
        |stem: &str| name == stem || name.strip_prefix(stem).is_some_and(|r| r.starts_with('-'));
    ["vmlinux", "bzImage", "vmlinuz"]
        .iter()
        .position(|stem| is(stem))
}

fn is_config(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let tree = in_tree(path).is_some_and(|place| !place.release.is_empty() && place.file == name);
    (dir.is_empty() || dir == "boot" || tree)
        && (name == "config" || name == ".config" || name.starts_with("config-"))
}

fn is_module(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".ko") || name.contains(".ko.")
}

fn text_of(body: &mut dyn Read, what: &str, limit: u64) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(body, what, limit)?).into_owned())
}
