//! What `depmod` writes beside a kernel's modules, so that `modprobe` in a guest finds them.
//!
//! Debian's packages leave it to the machine they are installed on, and a machine that only runs VMs may have no
//! `depmod`. Each module says by itself what depmod would compute: what it needs (`depends=`), its aliases and its soft
//! dependencies are in `.modinfo`, its exported symbols in `__ksymtab_strings`. Formats: depmod(8), modules.dep(5); the
//! files ending in `.bin` are in [`trie`].

mod trie;

use std::collections::{BTreeMap, BTreeSet};

use super::elf;
use super::modinfo::{MOST_SAID, ModuleError, info};
use super::modules::{ModuleIndex, ModulesError, name_of};
use super::unpack::Cancelled;

/// What a text that is held takes besides itself.
const OF_EACH: usize = 48;
/// The longest `modules.dep`, in bytes; Debian's largest kernel has 600 kB.
const LARGEST_DEP: usize = 16 << 20;

/// What is known of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFacts {
    /// Path below the release's directory: `kernel/fs/fuse/fuse.ko`.
    pub path: String,
    /// Names of the modules it needs.
    pub needs: Vec<String>,
    /// Names besides its own under which it is asked for; may have `*`, `?` and `[…]`.
    aliases: Vec<String>,
    /// What may be loaded before and after it.
    softdeps: Vec<String>,
    /// Symbols that others may use.
    symbols: Vec<String>,
}

impl ModuleFacts {
    /// What a plain module says.
    ///
    /// # Errors
    /// It is no module.
    pub fn of(path: &str, module: &[u8]) -> Result<ModuleFacts, ModuleError> {
        let mut facts = ModuleFacts {
            path: path.to_owned(),
            needs: Vec::new(),
            aliases: Vec::new(),
            softdeps: Vec::new(),
            symbols: Vec::new(),
        };
        let strings = elf::section(module, "__ksymtab_strings")
            .map_err(|source| ModuleError::Elf { source })?
            .unwrap_or_default();
        let said = info(module)?;
        if said.len().max(strings.len()) > MOST_SAID {
            return Err(ModuleError::TooTalkative);
        }
        for field in texts(said) {
            match field.split_once('=') {
                Some(("depends", list)) => {
                    let names = list.split(',').filter(|name| !name.is_empty());
                    facts.needs.extend(names.map(str::to_owned));
                }
                Some(("alias", alias)) => facts.aliases.push(alias.to_owned()),
                Some(("softdep", softdep)) => facts.softdeps.push(softdep.to_owned()),
                _ => {}
            }
        }
        // The names of symbol namespaces are in there too; nobody asks for them.
        let mut seen = BTreeSet::new();
        facts.symbols = texts(strings)
            .filter(|text| seen.insert(*text))
            .map(str::to_owned)
            .collect();
        Ok(facts)
    }

    /// Bytes that this, and the lists made of it, take, about.
    pub(super) fn held(&self) -> usize {
        // Each alias and each symbol stands in a list beside the module's name.
        let name = self.path.len();
        let texts = |texts: &[String]| {
            texts
                .iter()
                .map(|t| t.len() + name + OF_EACH)
                .sum::<usize>()
        };
        let said = [&self.needs, &self.aliases, &self.softdeps, &self.symbols];
        name + said.into_iter().map(|said| texts(said)).sum::<usize>()
    }

    pub(super) fn name(&self) -> String {
        name_of(&self.path)
    }
}

/// The texts of a section of NUL-terminated strings.
fn texts(section: &[u8]) -> impl Iterator<Item = &str> {
    section
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| !text.is_empty())
}

/// The kernel's own lists, as its package has them.
#[derive(Debug, Clone, Copy)]
pub struct KernelLists<'a> {
    /// `modules.order`: the first of several modules with one alias is tried first.
    pub order: &'a str,
    /// `modules.builtin`: what needs no loading.
    pub builtin: &'a str,
    /// `modules.builtin.modinfo`: what those say of themselves, `name.key=value` with NULs behind each.
    pub builtin_modinfo: &'a [u8],
}

/// The files, by name.
///
/// # Errors
/// A module needs one that is not there, or itself; a file would be larger than any kernel's; or it was cancelled.
pub fn files(
    modules: &[&ModuleFacts],
    kernel: KernelLists<'_>,
    cancelled: &Cancelled<'_>,
) -> Result<BTreeMap<&'static str, Vec<u8>>, ModulesError> {
    let mut index = ModuleIndex::with_builtin(kernel.builtin);
    for module in modules {
        index.insert(&module.path, module.needs.clone());
    }
    let modules = in_order(modules, kernel.order);
    let (dep, dep_bin) = dependencies(&modules, &index, cancelled)?;
    let aliases = aliases(&modules, cancelled)?;
    let symbols = symbols(&modules, cancelled)?;
    let (builtin, builtin_alias) = builtin(kernel, cancelled)?;
    Ok(BTreeMap::from([
        ("modules.dep", dep.into_bytes()),
        ("modules.dep.bin", dep_bin),
        ("modules.alias", aliases.0.into_bytes()),
        ("modules.alias.bin", aliases.1),
        ("modules.symbols", symbols.0.into_bytes()),
        ("modules.symbols.bin", symbols.1),
        ("modules.softdep", softdeps(&modules).into_bytes()),
        ("modules.devname", device_names(&modules).into_bytes()),
        ("modules.builtin.bin", builtin),
        ("modules.builtin.alias.bin", builtin_alias),
    ]))
}

/// A module with its place in the order, which is the priority of its entries.
type Placed<'a> = (u32, &'a ModuleFacts);

fn in_order<'a>(modules: &[&'a ModuleFacts], order: &str) -> Vec<Placed<'a>> {
    let places: BTreeMap<String, usize> = order
        .lines()
        .enumerate()
        .map(|(i, path)| (name_of(path.trim()), i))
        .collect();
    let place = |module: &ModuleFacts| places.get(&module.name()).copied().unwrap_or(usize::MAX);
    let mut sorted = modules.to_vec();
    sorted.sort_by(|a, b| (place(a), &a.path).cmp(&(place(b), &b.path)));
    (0..).zip(sorted).collect()
}

/// `modules.dep`: a module, and all that it needs, what is to be loaded first at the end.
fn dependencies(
    modules: &[Placed<'_>],
    index: &ModuleIndex,
    cancelled: &Cancelled<'_>,
) -> Result<(String, Vec<u8>), ModulesError> {
    let (mut text, mut entries) = (String::new(), trie::Entries::new());
    for (priority, module) in modules {
        // A walk may take milliseconds, and there are as many as modules.
        if cancelled() {
            return Err(ModulesError::Cancelled);
        }
        let name = module.name();
        let mut chain = index.closure(&[&name])?;
        chain.pop(); // the module itself
        let mut line = format!("{}:", module.path);
        for needed in chain.iter().rev() {
            line.push(' ');
            line.push_str(needed);
        }
        text.push_str(&line);
        text.push('\n');
        if text.len() > LARGEST_DEP {
            return Err(ModulesError::TooMany { name });
        }
        entries.add(&name, *priority, &line);
    }
    Ok((text, entries.into_bytes("modules.dep.bin", cancelled)?))
}

fn aliases(
    modules: &[Placed<'_>],
    cancelled: &Cancelled<'_>,
) -> Result<(String, Vec<u8>), ModulesError> {
    let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
    let mut entries = trie::Entries::new();
    for (priority, module) in modules {
        let name = module.name();
        for alias in &module.aliases {
            text.push_str(&format!("alias {alias} {name}\n"));
            entries.add(&normalized(alias), *priority, &name);
        }
    }
    Ok((text, entries.into_bytes("modules.alias.bin", cancelled)?))
}

fn symbols(
    modules: &[Placed<'_>],
    cancelled: &Cancelled<'_>,
) -> Result<(String, Vec<u8>), ModulesError> {
    let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
    let mut entries = trie::Entries::new();
    for (priority, module) in modules {
        let name = module.name();
        for symbol in &module.symbols {
            let key = format!("symbol:{symbol}");
            text.push_str(&format!("alias {key} {name}\n"));
            entries.add(&key, *priority, &name);
        }
    }
    Ok((text, entries.into_bytes("modules.symbols.bin", cancelled)?))
}

fn softdeps(modules: &[Placed<'_>]) -> String {
    let mut text = "# Soft dependencies extracted from modules themselves.\n".to_owned();
    for (_, module) in modules {
        for softdep in &module.softdeps {
            text.push_str(&format!("softdep {} {softdep}\n", module.name()));
        }
    }
    text
}

/// `modules.devname`: device nodes that may be there before their module is (systemd makes them at boot).
fn device_names(modules: &[Placed<'_>]) -> String {
    let mut text = "# Device nodes to trigger on-demand module loading.\n".to_owned();
    for (_, module) in modules {
        let mut name = None;
        let mut numbers = None;
        for alias in &module.aliases {
            if let Some(device) = alias.strip_prefix("devname:") {
                name = Some(device);
            }
            for (prefix, kind) in [("char-major-", 'c'), ("block-major-", 'b')] {
                let pair = alias.strip_prefix(prefix).and_then(|n| n.split_once('-'));
                if let Some((Ok(major), Ok(minor))) =
                    pair.map(|(a, b)| (a.parse::<u32>(), b.parse::<u32>()))
                {
                    numbers = Some(format!("{kind}{major}:{minor}"));
                }
            }
        }
        if let (Some(device), Some(numbers)) = (name, numbers) {
            text.push_str(&format!("{} {device} {numbers}\n", module.name()));
        }
    }
    text
}

/// `modules.builtin.bin` and `modules.builtin.alias.bin`.
fn builtin(
    kernel: KernelLists<'_>,
    cancelled: &Cancelled<'_>,
) -> Result<(Vec<u8>, Vec<u8>), ModulesError> {
    let (mut names, mut aliases) = (trie::Entries::new(), trie::Entries::new());
    let paths = kernel.builtin.lines().map(str::trim);
    for path in paths.filter(|path| !path.is_empty()) {
        names.add(&name_of(path), 0, "");
    }
    for field in texts(kernel.builtin_modinfo) {
        let alias = field
            .split_once('=')
            .and_then(|(key, value)| Some((key.strip_suffix(".alias")?, value)));
        if let Some((module, alias)) = alias {
            aliases.add(&normalized(alias), 0, module);
        }
    }
    Ok((
        names.into_bytes("modules.builtin.bin", cancelled)?,
        aliases.into_bytes("modules.builtin.alias.bin", cancelled)?,
    ))
}

/// An alias as it is looked up: `_` for `-`, but for what stands in brackets.
fn normalized(alias: &str) -> String {
    let mut inside = false;
    let plain = |c| {
        inside = (inside || c == '[') && c != ']';
        if c == '-' && !inside { '_' } else { c }
    };
    alias.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::modinfo::tests::tiny_module;

    fn module(path: &str, modinfo: &str) -> ModuleFacts {
        ModuleFacts::of(path, &tiny_module(modinfo.as_bytes())).unwrap()
    }

    fn text(files: &BTreeMap<&'static str, Vec<u8>>, name: &str) -> String {
        String::from_utf8(files[name].clone()).unwrap()
    }

    fn files(
        modules: &[ModuleFacts],
        kernel: KernelLists<'_>,
    ) -> Result<BTreeMap<&'static str, Vec<u8>>, ModulesError> {
        let modules: Vec<_> = modules.iter().collect();
        super::files(&modules, kernel, &|| false)
    }

    const NONE: KernelLists<'static> = KernelLists {
        order: "",
        builtin: "",
        builtin_modinfo: b"",
    };

    #[test]
    fn a_module_says_what_depmod_would_compute() {
        let modules = [
            module(
                "kernel/fs/fuse/cuse.ko",
                "depends=fuse\0alias=devname:cuse\0alias=char-major-10-203\0",
            ),
            module(
                "kernel/fs/fuse/fuse.ko",
                "depends=llist\0softdep=pre: crc\0alias=fs-fuse\0",
            ),
            module("kernel/lib/llist.ko", "depends=\0"),
        ];
        let order = "kernel/lib/llist.ko\nkernel/fs/fuse/fuse.ko\nkernel/fs/fuse/cuse.ko\n";
        let files = files(&modules, KernelLists { order, ..NONE }).unwrap();
        assert_eq!(
            text(&files, "modules.dep"),
            "kernel/lib/llist.ko:\n\
             kernel/fs/fuse/fuse.ko: kernel/lib/llist.ko\n\
             kernel/fs/fuse/cuse.ko: kernel/fs/fuse/fuse.ko kernel/lib/llist.ko\n",
            "in the kernel's order; modprobe loads from the end of a line to its start"
        );
        let line = |name: &str| text(&files, name).lines().nth(1).unwrap().to_owned();
        assert_eq!(line("modules.devname"), "cuse cuse c10:203");
        assert_eq!(line("modules.softdep"), "softdep fuse pre: crc");
        assert_eq!(line("modules.alias"), "alias fs-fuse fuse");
    }

    #[test]
    fn a_module_that_lacks_what_it_needs_is_told() {
        let modules = [module("kernel/a.ko", "depends=gone\0")];
        let told = files(&modules, NONE).unwrap_err().to_string();
        assert!(told.contains("\"gone\" (needed by \"a\")"), "{told}");
    }

    /// Wherever it is cancelled, it ends there: the walks of 20 000 modules take a while.
    #[test]
    fn it_ends_where_it_is_cancelled() {
        let modules: Vec<_> = (0..20)
            .map(|i| module(&format!("m{i}.ko"), "depends=\0alias=a\0"))
            .collect();
        let modules: Vec<_> = modules.iter().collect();
        let asked = std::cell::Cell::new(0);
        let made = |limit: u32| {
            asked.set(0);
            super::files(&modules, NONE, &|| asked.replace(asked.get() + 1) >= limit)
        };
        assert!(made(u32::MAX).is_ok());
        let all = asked.get();
        assert!(all > 20, "asked {all} times");
        for limit in 0..all {
            assert_eq!(made(limit).unwrap_err(), ModulesError::Cancelled);
            assert_eq!(asked.get(), limit + 1, "it goes on");
        }
    }

    /// The same need ten thousand times, in each of many modules: a walk looks at it once.
    #[test]
    fn a_need_that_is_said_often_is_one() {
        let often = format!("depends={}\0", "b,".repeat(10_000));
        let modules: Vec<_> = (0..50)
            .map(|i| module(&format!("m{i}.ko"), &often))
            .chain([module("b.ko", "depends=\0")])
            .collect();
        let mut index = ModuleIndex::default();
        for module in &modules {
            index.insert(&module.path, module.needs.clone());
        }
        assert_eq!(index.needs("m7"), Some(&["b".to_owned()][..]));
        let files = files(&modules, NONE).unwrap();
        assert!(text(&files, "modules.dep").contains("m7.ko: b.ko\n"));
    }

    #[test]
    fn brackets_keep_their_dashes() {
        assert_eq!(
            normalized("usb:v0[0-9]p-*d[a-f-]-"),
            "usb:v0[0-9]p_*d[a-f-]_"
        );
    }
}
