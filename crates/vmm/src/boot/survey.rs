//! What is in a source of a kernel: its image, its configuration, and what each of its modules says (R-IMG-7).
//!
//! All of it is held while the kernel is made, so that all of it together is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::config::{KernelConfig, LARGEST_CONFIG, is_release};
use super::deb::Walk;
use super::depmod::ModuleFacts;
use super::kernel::KernelError;
use super::modinfo::{LARGEST_MODULE, ModuleError, plain_module};
use super::source::{KernelSource, LARGEST_IMAGE, LARGEST_TREE, bytes_of};
use super::unpack::Cancelled;

/// The longest of the lists that a kernel's build writes (`modules.order`, `modules.builtin`); Debian's have 300 kB.
const LARGEST_LIST: u64 = 4 << 20;
/// Modules of one kernel; distributions' largest have 7 000.
const MOST_MODULES: usize = 20_000;
/// Files of all its trees of modules, which are written to the disk.
const MOST_FILES: usize = 100_000;
/// Bytes that are held besides the image: lists, configurations, and what modules say; Debian's largest kernel has 6 MB.
const MOST_SAID: usize = 64 << 20;
/// What anything that is held takes besides its text.
const OF_EACH: usize = 64;

/// A tree of modules as one pass over a source finds it.
#[derive(Default)]
pub(super) struct Listed {
    /// The release that its directory names; empty where it names none.
    pub(super) release: String,
    pub(super) order: String,
    pub(super) builtin: Option<String>,
    pub(super) builtin_modinfo: Vec<u8>,
    /// What each says, by its path: of two of one path the later one is unpacked.
    modules: BTreeMap<String, ModuleFacts>,
}

impl Listed {
    /// What each of its modules says.
    pub(super) fn modules(&self) -> impl Iterator<Item = &ModuleFacts> + Clone {
        self.modules.values()
    }
}

/// What one pass over a source finds.
pub(super) struct Survey {
    /// The best kind of kernel image seen so far, all of that kind by their paths, and the first one's bytes.
    rank: usize,
    images: BTreeSet<String>,
    image: Vec<u8>,
    /// What would be an image and is a link.
    links: Vec<String>,
    /// Configurations by the release that their name or directory tells; empty where neither does.
    configs: BTreeMap<String, String>,
    /// Trees of modules by the release that their directory names; empty where it names none.
    trees: BTreeMap<String, Listed>,
    modules: usize,
    files: usize,
    /// What may still be held, and what modules may still unfold to.
    left: usize,
    unfolded_left: u64,
}

/// Why a visit of a file ended the pass.
pub(super) enum Refused {
    /// The source cannot be read on.
    Read(io::Error),
    /// What is in it cannot be a kernel's.
    Kernel(KernelError),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Read(error)
    }
}

impl From<KernelError> for Refused {
    fn from(error: KernelError) -> Self {
        Refused::Kernel(error)
    }
}

/// What is called for each file of a pass.
type VisitFile<'a> = dyn FnMut(&str, &mut dyn Read) -> Result<(), Refused> + 'a;

/// Calls `visit` for each file of a source, until it refuses one; kernels' names that are links come back.
pub(super) fn visited(
    source: &KernelSource,
    cancelled: &Cancelled<'_>,
    visit: &mut VisitFile<'_>,
) -> Result<Vec<String>, KernelError> {
    let mut failed = None;
    let walked = source.for_each_file(cancelled, &mut |path, body| match visit(path, body) {
        Ok(()) => Ok(Walk::On),
        Err(Refused::Read(error)) => Err(error),
        Err(Refused::Kernel(error)) => {
            failed = Some(error);
            Ok(Walk::Done)
        }
    });
    let links = walked.map_err(|source| KernelError::Source { source })?;
    failed.map_or(Ok(links), Err)
}

impl Survey {
    /// Looks at every file of a source.
    pub(super) fn of(
        source: &KernelSource,
        cancelled: &Cancelled<'_>,
    ) -> Result<Survey, KernelError> {
        let mut survey = Survey {
            rank: usize::MAX,
            images: BTreeSet::new(),
            image: Vec::new(),
            links: Vec::new(),
            configs: BTreeMap::new(),
            trees: BTreeMap::new(),
            modules: 0,
            files: 0,
            left: MOST_SAID,
            unfolded_left: LARGEST_TREE,
        };
        let links = visited(source, cancelled, &mut |path, body| {
            if in_tree(path).is_some() {
                survey.count(path)?;
            }
            if let Some(rank) = image_rank(path) {
                survey.take_image(path, rank, body)
            } else if let Some(release) = config_release(path) {
                survey.take_config(release, path, body)
            } else if let Some(place) = in_tree(path) {
                survey.take_listed(&place, path, body)
            } else {
                Ok(())
            }
        })?;
        survey.links = links;
        Ok(survey)
    }

    /// Counts what is to be held.
    fn hold(&mut self, bytes: usize) -> Result<(), KernelError> {
        let left = self.left.checked_sub(bytes.saturating_add(OF_EACH));
        self.left = left.ok_or_else(|| KernelError::TooMuch {
            what: format!("{} MiB of lists and of what modules say", MOST_SAID >> 20),
        })?;
        Ok(())
    }

    /// Counts a file that will be on the disk, whatever is in it.
    fn count(&mut self, path: &str) -> Result<(), KernelError> {
        self.files += 1;
        if self.files > MOST_FILES {
            let what = format!("{MOST_FILES} files beside its modules");
            return Err(KernelError::TooMuch { what });
        }
        self.hold(path.len())
    }

    fn take_image(&mut self, path: &str, rank: usize, body: &mut dyn Read) -> Result<(), Refused> {
        // The same kernel once more: distributions have it in /boot and beside its modules.
        let again = |other: &String| {
            let release = image_release(path);
            !release.is_empty() && release == image_release(other)
        };
        if rank > self.rank || (rank == self.rank && self.images.iter().any(again)) {
            return Ok(());
        }
        if rank < self.rank {
            self.rank = rank;
            self.images.clear();
            self.image = bytes_of(body, path, LARGEST_IMAGE)?;
        }
        self.hold(path.len())?;
        self.images.insert(path.to_owned());
        Ok(())
    }

    fn take_config(
        &mut self,
        release: &str,
        path: &str,
        body: &mut dyn Read,
    ) -> Result<(), Refused> {
        if self.configs.contains_key(release) {
            return Ok(());
        }
        let text = text_of(body, path, LARGEST_CONFIG as u64)?;
        if KernelConfig::parse(&text).is_some() {
            self.hold(text.len() + release.len())?;
            self.configs.insert(release.to_owned(), text);
        }
        Ok(())
    }

    fn take_listed(
        &mut self,
        place: &Place<'_>,
        path: &str,
        body: &mut dyn Read,
    ) -> Result<(), Refused> {
        if !self.trees.contains_key(place.release) {
            self.hold(2 * place.release.len() + size_of::<Listed>())?;
        }
        let facts = match is_module(place.file) {
            true => Some(self.facts(place.file, path, body)?),
            false => None,
        };
        let listed = self.trees.entry(place.release.to_owned()).or_default();
        if listed.release.is_empty() {
            listed.release = place.release.to_owned();
        }
        let held = match place.file {
            _ if facts.is_some() => 0,
            "modules.order" => {
                listed.order = text_of(body, path, LARGEST_LIST)?;
                listed.order.len()
            }
            "modules.builtin" => {
                let builtin = text_of(body, path, LARGEST_LIST)?;
                listed.builtin.insert(builtin).len()
            }
            "modules.builtin.modinfo" => {
                listed.builtin_modinfo = bytes_of(body, path, LARGEST_LIST)?;
                listed.builtin_modinfo.len()
            }
            _ => return Ok(()),
        };
        listed
            .modules
            .extend(facts.map(|facts| (facts.path.clone(), facts)));
        Ok(self.hold(held)?)
    }

    /// What a module says, if it and all before it are not more than any kernel's.
    fn facts(
        &mut self,
        file: &str,
        path: &str,
        body: &mut dyn Read,
    ) -> Result<ModuleFacts, Refused> {
        let too_much = |what| KernelError::TooMuch { what };
        self.modules += 1;
        if self.modules > MOST_MODULES {
            return Err(too_much(format!("{MOST_MODULES} modules")).into());
        }
        let bytes = bytes_of(body, path, LARGEST_MODULE as u64)?;
        let plain = plain_module(&bytes).map_err(|source| bad(path, source))?;
        let left = self.unfolded_left.checked_sub(plain.len() as u64);
        self.unfolded_left =
            left.ok_or_else(|| too_much(format!("{} MiB of modules", LARGEST_TREE >> 20)))?;
        let facts = ModuleFacts::of(file, &plain).map_err(|source| bad(path, source))?;
        self.hold(facts.held())?;
        Ok(facts)
    }

    /// The one image, and its path.
    pub(super) fn image(&mut self, package: &str) -> Result<(String, Vec<u8>), KernelError> {
        let mut paths = std::mem::take(&mut self.images).into_iter();
        match (paths.next(), paths.next()) {
            (Some(path), None) => Ok((path, std::mem::take(&mut self.image))),
            (None, _) => Err(match self.links.first() {
                Some(link) => KernelError::Linked { path: link.clone() },
                None => KernelError::Incomplete {
                    package: package.to_owned(),
                    what: "kernel: a vmlinux, bzImage or vmlinuz-*",
                },
            }),
            (Some(one), Some(two)) => Err(KernelError::Several {
                paths: [one, two].into_iter().chain(paths).collect(),
            }),
        }
    }

    /// The configuration of a release; else the one that names none. Never that of another release.
    pub(super) fn config_of(&mut self, release: &str) -> Option<String> {
        let of_release = self.configs.remove(release);
        of_release.or_else(|| self.configs.remove(""))
    }

    /// The release of the kernel, and the tree of its modules; an empty one if it came with none.
    pub(super) fn modules_of(
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

/// A module that is damaged.
pub(super) fn bad(path: &str, source: ModuleError) -> KernelError {
    KernelError::Module {
        path: path.to_owned(),
        source,
    }
}

/// Where a file of a modules' tree is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The release that the tree's directory names, or nothing. It tells one tree from another: `lib/modules/6.1` and
    /// `usr/lib/modules/6.1` are the same.
    pub(super) release: &'a str,
    /// Path below it.
    pub(super) file: &'a str,
}

/// `lib/modules/6.1.0/kernel/…`, `modules/…` and what is beside that in a kernel directory of ours. What other modules
/// are built with (`build/`, `source/`) is no part of a tree.
pub(super) fn in_tree(path: &str) -> Option<Place<'_>> {
    let below = path.strip_prefix("usr/").unwrap_or(path);
    let below = below.strip_prefix("lib/").unwrap_or(below);
    if let Some(rest) = below.strip_prefix("modules/") {
        if let Some((release, file)) = rest.split_once('/')
            && is_release(release)
        {
            let sources = file.starts_with("build/") || file.starts_with("source/");
            return (!sources).then_some(Place { release, file });
        }
        return Some(Place {
            release: "",
            file: rest,
        });
    }
    let beside = [
        "modules.builtin",
        "modules.order",
        "modules.builtin.modinfo",
    ];
    // Of one tree with `modules/`.
    beside.contains(&path).then_some(Place {
        release: "",
        file: path,
    })
}

/// A file of a directory where kernels are: its name, and the release of the tree of modules that it is beside.
fn of_kernel(path: &str) -> Option<(&str, &str)> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let place = in_tree(path).filter(|place| !place.release.is_empty() && place.file == name);
    let release = place.map(|place| place.release);
    let there = dir.is_empty() || dir == "boot" || release.is_some();
    there.then_some((name, release.unwrap_or_default()))
}

/// How well a file serves as the kernel, by its name; lower is better.
pub(super) fn image_rank(path: &str) -> Option<usize> {
    let (name, _) = of_kernel(path)?;
    let is =
        |stem: &str| name == stem || name.strip_prefix(stem).is_some_and(|r| r.starts_with('-'));
    ["vmlinux", "bzImage", "vmlinuz"]
        .iter()
        .position(|stem| is(stem))
}

/// The release that an image's name or directory tells; empty where neither does.
fn image_release(path: &str) -> &str {
    let (name, release) = of_kernel(path).unwrap_or_default();
    match name.split_once('-') {
        Some((_, named)) => named,
        None => release,
    }
}

/// The release that a configuration's name or directory tells, empty where neither does; `None` of another file.
fn config_release(path: &str) -> Option<&str> {
    let (name, release) = of_kernel(path)?;
    match name.strip_prefix("config-") {
        Some(named) if is_release(named) => Some(named),
        // Whoever names it so means a configuration of old, or of something else.
        Some(_) => None,
        None => (name == "config" || name == ".config").then_some(release),
    }
}

fn is_module(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".ko") || name.contains(".ko.")
}

fn text_of(body: &mut dyn Read, what: &str, limit: u64) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(body, what, limit)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::elf::tests::tiny_vmlinux;
    use crate::boot::modinfo::tests::tiny_module;
    use crate::boot::source::tests::tar_of;
    use std::cell::Cell;

    fn survey_of(tar: &[u8]) -> Result<Survey, KernelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        std::fs::write(&path, tar).unwrap();
        let source = KernelSource::of_file(&path, &|| false).unwrap();
        Survey::of(&source, &|| false)
    }

    #[test]
    fn the_configuration_is_that_of_the_kernels_release() {
        let texts = ["5.10.0-1", "6.1.0-9", "6.9.0"].map(|r| format!("CONFIG_OF=\"{r}\"\n"));
        let [old, own, new] = texts.each_ref().map(|text| text.as_bytes());
        let layouts: [&[(&str, &[u8])]; 4] = [
            &[
                ("boot/config-5.10.0-1", old),
                ("boot/config-6.1.0-9", own),
                ("boot/config-6.9.0", new),
            ],
            &[
                ("boot/config-5.10.0-1", old),
                ("usr/lib/modules/6.1.0-9/config", own),
                ("usr/lib/modules/6.9.0/config", new),
            ],
            &[("config-5.10.0-1", old), ("config", own)],
            &[("lib/modules/6.9.0/config", new), (".config", own)],
        ];
        for layout in layouts {
            let mut survey = survey_of(&tar_of(layout)).unwrap();
            let found = survey.config_of("6.1.0-9");
            assert_eq!(found.as_deref().map(str::as_bytes), Some(own), "{layout:?}");
        }
        for other in ["boot/config-5.10.0-1", "config-old", "boot/config-"] {
            let mut survey = survey_of(&tar_of(&[(other, old)])).unwrap();
            assert_eq!(survey.config_of("6.1.0-9"), None, "{other}");
        }
    }

    #[test]
    fn the_same_kernel_in_two_places_is_one() {
        let elf = tiny_vmlinux(true);
        let mut both = survey_of(&tar_of(&[
            ("boot/vmlinuz-6.1", &elf),
            ("usr/lib/modules/6.1/vmlinuz", &elf),
            (
                "usr/lib/modules/6.1/build/vmlinux",
                b"what modules are built with",
            ),
        ]))
        .unwrap();
        assert_eq!(
            both.image("x").unwrap(),
            ("boot/vmlinuz-6.1".to_owned(), elf)
        );
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, "./vmlinuz", "boot/vmlinuz-6.1")
            .unwrap();
        let linked = survey_of(&tar.into_inner().unwrap()).unwrap().image("x");
        let told = linked.unwrap_err().to_string();
        assert!(told.starts_with("vmlinuz is a link"), "{told}");
        let mut two = survey_of(&tar_of(&[("vmlinuz", b"1"), ("boot/vmlinuz", b"2")])).unwrap();
        assert!(matches!(two.image("x"), Err(KernelError::Several { .. })));
    }

    fn told(files: &[(String, Vec<u8>)]) -> String {
        let files: Vec<_> = files.iter().map(|(p, b)| (p.as_str(), &b[..])).collect();
        match survey_of(&tar_of(&files)) {
            Err(error @ KernelError::TooMuch { .. }) => error.to_string(),
            Err(error) => panic!("{error:?}"),
            Ok(survey) => format!("{} modules", survey.modules),
        }
    }

    #[test]
    fn more_modules_than_any_kernel_has_are_refused() {
        let module = tiny_module(b"depends=\0");
        let of = |count: usize| {
            let file = |i| (format!("lib/modules/6/m{i}.ko"), module.clone());
            told(&(0..count).map(file).collect::<Vec<_>>())
        };
        assert_eq!(of(MOST_MODULES), "20000 modules");
        let refused = "no kernel has more than 20000 modules";
        assert_eq!(of(MOST_MODULES + 1), refused);
    }

    #[test]
    fn more_files_than_any_kernel_has_are_refused() {
        let of = |count: usize, more: &str| {
            let file = |i| (format!("lib/modules/6/{more}{i}"), Vec::new());
            told(&(0..count).map(file).collect::<Vec<_>>())
        };
        assert_eq!(of(MOST_FILES, "f"), "0 modules");
        let refused = "no kernel has more than 100000 files beside its modules";
        for more in ["f", "config-"] {
            assert_eq!(of(MOST_FILES + 1, more), refused);
        }
    }

    /// A machine whose `/lib` is no link to `/usr/lib`, or an archive of both.
    #[test]
    fn one_release_is_one_tree_wherever_its_parts_are() {
        let module = tiny_module(b"depends=\0");
        let mut survey = survey_of(&tar_of(&[
            ("lib/modules/6.1/a.ko", &module),
            ("usr/lib/modules/6.1/a.ko", &module),
            ("usr/lib/modules/6.1/b.ko", &module),
            ("modules/6.1/c.ko", &module),
        ]))
        .unwrap();
        let (_, listed) = survey.modules_of(Some("6.1".to_owned()), "x").unwrap();
        let paths: Vec<_> = listed.modules().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["a.ko", "b.ko", "c.ko"]);
    }

    /// Each module is small as it comes, and says two megabytes of aliases.
    #[test]
    fn what_modules_say_is_bounded_all_together() {
        let module = tiny_module(&b"alias=a\0".repeat(100_000));
        let packed = zstd::bulk::compress(&module, 1).unwrap();
        assert!(packed.len() < 10_000);
        let of = |count: usize| {
            let file = |i| (format!("lib/modules/6/m{i}.ko.zst"), packed.clone());
            told(&(0..count).map(file).collect::<Vec<_>>())
        };
        assert_eq!(of(5), "5 modules");
        assert!(of(50).contains("64 MiB of lists"), "{}", of(50));
        let list = |i| {
            (
                format!("lib/modules/{i}/modules.order"),
                vec![b'x'; 4 << 20],
            )
        };
        let lists: Vec<_> = (0..20).map(list).collect();
        assert!(told(&lists).contains("64 MiB of lists"));
        let one = tiny_module(&b"alias=a\0".repeat(1 << 20));
        let talkative = survey_of(&tar_of(&[("lib/modules/6/m.ko", &one)]));
        assert!(matches!(
            talkative.err(),
            Some(KernelError::Module {
                source: ModuleError::TooTalkative,
                ..
            })
        ));
    }

    /// Wherever it is cancelled, it ends there.
    #[test]
    fn a_pass_ends_where_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        let module = tiny_module(b"depends=\0");
        let files: Vec<_> = (0..50).map(|i| format!("lib/modules/6/m{i}.ko")).collect();
        let files: Vec<_> = files.iter().map(|f| (f.as_str(), &module[..])).collect();
        std::fs::write(&path, zstd::bulk::compress(&tar_of(&files), 1).unwrap()).unwrap();
        let source = KernelSource::of_file(&path, &|| false).unwrap();
        let asked = Cell::new(0);
        let passed = |limit: u32| {
            asked.set(0);
            let cancelled = || asked.replace(asked.get() + 1) >= limit;
            Survey::of(&source, &cancelled)
        };
        assert!(passed(u32::MAX).is_ok());
        let all = asked.get();
        assert!(all > 50, "asked {all} times");
        for limit in [0, 1, all / 2, all - 1] {
            assert!(passed(limit).is_err());
            assert_eq!(asked.get(), limit + 1);
        }
    }
}
