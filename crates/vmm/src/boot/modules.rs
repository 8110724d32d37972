//! Kernel modules in the order in which a guest can load them.
//!
//! Format of `modules.builtin`: one path a line.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// What a guest must load before it can say its first word: the bus and the channel.
///
/// Few on purpose: each module costs 10 to 40 ms under emulation, a disk driver the most of all because it reads its
/// disks (docs/design/boot.md).
pub const FIRST: &[&str] = &["virtio_mmio", "virtio_console"];

/// What a guest loads while the host answers its first word: disks, root file system, network, entropy.
pub const SECOND: &[&str] = &["virtio_blk", "ext4", "overlay", "virtio_net", "virtio_rng"];

/// What those ask the kernel for by other means than `depends=`, to be there before them: ext4's checksums.
pub const HELPFUL: &[&str] = &["crc32c_generic"];

/// Modules that need each other one after the other; the deepest of Debian's are 12. The walk is as deep.
const DEEPEST: usize = 200;

/// Modules by name, with their files and the names they need, and what is built into the kernel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ModuleIndex {
    modules: BTreeMap<String, Entry>,
    builtin: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: String,
    needs: Vec<String>,
}

/// Why a list of modules cannot be ordered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModulesError {
    /// Neither a module nor built in.
    #[error("the kernel has no module {name:?}{}, neither loadable nor built in", needed_by(.by))]
    Missing {
        /// The module's name.
        name: String,
        /// Which module needs it; `None` if it was asked for.
        by: Option<String>,
    },
    /// Modules need more of each other than any kernel's.
    #[error("the module {name:?} and those before it need more modules than any kernel's")]
    TooMany {
        /// One of them.
        name: String,
    },
    /// A file with what the modules say, larger than any kernel's.
    #[error("what the modules say makes {file} larger than any kernel's")]
    TooLarge {
        /// Which.
        file: &'static str,
    },
    /// Whoever wants it changed their mind.
    #[error("it was cancelled")]
    Cancelled,
    /// Modules that need each other.
    #[error("modules need each other in a circle through {name:?}")]
    Circle {
        /// One of them.
        name: String,
    },
}

fn needed_by(by: &Option<String>) -> String {
    by.as_ref()
        .map(|by| format!(" (needed by {by:?})"))
        .unwrap_or_default()
}

/// A module's name from its file's: `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`.
///
/// Files say `-` or `_` as their authors liked; the kernel's own name has `_` always.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

impl ModuleIndex {
    /// An index of nothing loadable, for [`ModuleIndex::insert`] to fill.
    pub fn with_builtin(builtin: &str) -> ModuleIndex {
        let builtin = builtin
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(name_of)
            .collect();
        ModuleIndex {
            modules: BTreeMap::new(),
            builtin,
        }
    }

    /// Adds one module: its path and the names of the modules it needs.
    pub fn insert(&mut self, path: &str, needs: Vec<String>) {
        // Once each: a module may name the same one a hundred thousand times.
        let mut seen = BTreeSet::new();
        let mut needs: Vec<String> = needs.iter().map(|n| name_of(n)).collect();
        needs.retain(|need| seen.insert(need.clone()));
        self.modules.insert(
            name_of(path),
            Entry {
                path: path.to_owned(),
                needs,
            },
        );
    }

    /// The path of a loadable module.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(&name_of(name)).map(|e| e.path.as_str())
    }

    /// Names of the modules that a loadable one needs, each once.
    #[cfg(test)]
    pub(super) fn needs(&self, name: &str) -> Option<&[String]> {
        self.modules.get(name).map(|entry| &entry.needs[..])
    }

    /// Paths in loading order for `names` with everything they need; what is built in takes no part.
    pub fn closure(&self, names: &[&str]) -> Result<Vec<String>, ModulesError> {
        self.closure_without(names, &[])
    }

    /// Like [`ModuleIndex::closure`], leaving out the paths that are loaded `already`.
    pub fn closure_without(
        &self,
        names: &[&str],
        already: &[String],
    ) -> Result<Vec<String>, ModulesError> {
        let mut walk = Walk {
            index: self,
            open: BTreeSet::new(),
            done: already.iter().map(|p| name_of(p)).collect(),
            order: Vec::new(),
        };
        for name in names {
            walk.visit(&name_of(name), None)?;
        }
        Ok(walk.order)
    }
}

struct Walk<'a> {
    index: &'a ModuleIndex,
    open: BTreeSet<String>,
    done: BTreeSet<String>,
    order: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str, by: Option<&str>) -> Result<(), ModulesError> {
        if self.done.contains(name) {
            return Ok(());
        }
        let Some(entry) = self.index.modules.get(name) else {
            if self.index.builtin.contains(name) {
                return Ok(());
            }
            return Err(ModulesError::Missing {
                name: name.to_owned(),
                by: by.map(str::to_owned),
            });
        };
        if self.open.len() >= DEEPEST {
            return Err(ModulesError::TooMany {
                name: name.to_owned(),
            });
        }
        if !self.open.insert(name.to_owned()) {
            return Err(ModulesError::Circle {
                name: name.to_owned(),
            });
        }
        for need in &entry.needs {
            self.visit(need, Some(name))?;
        }
        self.open.remove(name);
        self.done.insert(name.to_owned());
        self.order.push(entry.path.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko: kernel/net/core/net_failover.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/net/core/net_failover.ko: kernel/net/core/failover.ko\n\
        kernel/net/core/failover.ko:\n\
        kernel/drivers/virtio/virtio.ko.xz:\n\
        kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko.xz\n";

    /// What these lines of a `modules.dep` (modules.dep(5)) and a `modules.builtin` say.
    fn index_of(dep: &str, builtin: &str) -> ModuleIndex {
        let mut index = ModuleIndex::with_builtin(builtin);
        for line in dep.lines() {
            let (path, needs) = line.split_once(':').unwrap();
            index.insert(path, needs.split_whitespace().map(name_of).collect());
        }
        index
    }

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let index = index_of(DEP, "kernel/fs/ext4/ext4.ko\n");
        let order = index
            .closure(&["virtio_net", "virtio-rng", "ext4"])
            .unwrap();
        assert_eq!(
            order,
            [
                "kernel/net/core/failover.ko",
                "kernel/net/core/net_failover.ko",
                "kernel/drivers/virtio/virtio.ko.xz",
                "kernel/drivers/net/virtio_net.ko",
                "kernel/drivers/char/hw_random/virtio-rng.ko",
            ]
        );
        assert_eq!(
            index.closure_without(&["virtio_rng"], &order[..3]).unwrap(),
            &order[4..]
        );
    }

    #[test]
    fn dashes_in_file_names_are_underscores_in_names() {
        let index = index_of(DEP, "");
        assert_eq!(index.path("virtio_rng"), index.path("virtio-rng"));
        assert!(index.path("virtio_rng").is_some());
    }

    #[test]
    fn errors_name_the_module_and_who_wants_it() {
        let index = index_of("a.ko: b.ko\nb.ko: a.ko\nc.ko: gone.ko\n", "");
        assert_eq!(
            index.closure(&["a"]),
            Err(ModulesError::Circle { name: "a".into() })
        );
        let missing = index.closure(&["c"]).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the kernel has no module \"gone\" (needed by \"c\"), neither loadable nor built in"
        );
    }

    #[test]
    fn a_chain_without_end_takes_no_stack() {
        let mut index = ModuleIndex::default();
        for i in 0..100_000 {
            index.insert(&format!("m{i}.ko"), vec![format!("m{}", i + 1)]);
        }
        let told = index.closure(&["m0"]).unwrap_err();
        assert!(matches!(told, ModulesError::TooMany { .. }), "{told}");
    }

    proptest! {
        /// Random acyclic graphs (edges only to smaller numbers): every module after all it needs, none twice.
        #[test]
        fn order_is_a_topological_order(edges in proptest::collection::vec((0usize..30, 0usize..30), 0..120), ask in 0usize..30) {
            let mut needs = vec![BTreeSet::new(); 30];
            for (a, b) in edges {
                if a != b { needs[a.max(b)].insert(a.min(b)); }
            }
            let mut index = ModuleIndex::default();
            for (i, n) in needs.iter().enumerate() {
                index.insert(&format!("m{i}.ko"), n.iter().map(|j| format!("m{j}")).collect());
            }
            let order = index.closure(&[&format!("m{ask}")]).unwrap();
            let at = |i: usize| order.iter().position(|p| *p == format!("m{i}.ko"));
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len());
            for (i, n) in needs.iter().enumerate() {
                if let Some(here) = at(i) {
                    for j in n { prop_assert!(at(*j).is_some_and(|there| there < here)); }
                }
            }
            prop_assert_eq!(at(ask), Some(order.len() - 1));
        }
    }
}
