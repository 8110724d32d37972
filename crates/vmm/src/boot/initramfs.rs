//! The initramfs: one base per (kernel, agent), and a tiny archive of per-VM facts behind it.
//!
//! The kernel unpacks archives that follow each other, so that facts are appended and no image is patched. The base is
//! not compressed: at 2 MB the format costs nothing measurable in the guest (docs/design/boot.md), and an archive that
//! is only copied costs the host nothing either.

use std::path::{Path, PathBuf};

use banger_host::Files;
use banger_model::hex;
use banger_wire::guest::boot::{BootFacts, ModuleList};
use banger_wire::guest::{BOOT_FACTS_PATH, MODULES_PATH};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::cache;
use super::cpio::{self, CpioEntry, CpioKind};
use super::kernel::Kernel;

/// Bumped when the content of a base changes for the same kernel and agent; part of the file's name.
const BASE_FORMAT: u32 = 1;

/// Where modules lie in the initramfs.
const MODULES_DIR: &str = "modules";

/// Why an initramfs could not be made.
#[derive(Debug, Error)]
pub enum InitramfsError {
    /// The agent or a module cannot be read.
    #[error("{path} is needed to boot a VM and cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The facts cannot be written as JSON.
    #[error("the VM's boot facts cannot be written as JSON")]
    Facts {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The archive cannot be written.
    #[error("the initramfs cannot be written")]
    Files {
        /// Why.
        #[source]
        source: banger_host::Error,
    },
}

/// The static guest program, read once by a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    path: PathBuf,
    digest: String,
}

impl Agent {
    /// Reads the program and remembers its digest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn at(path: &Path) -> Result<Agent, InitramfsError> {
        Ok(Agent {
            path: path.to_owned(),
            digest: hex::encode(&Sha256::digest(read(path)?)),
        })
    }

    /// SHA-256 of the program, hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// The file of the base for this kernel and agent in this directory, made if it is not there; several may ask at once.
///
/// # Errors
/// See [`InitramfsError`]; a base is there whole or not at all.
pub fn base<F: Files>(
    files: &F,
    dir: &Path,
    kernel: &Kernel,
    agent: &Agent,
) -> Result<PathBuf, InitramfsError> {
    let files_err = |source| InitramfsError::Files { source };
    let name = format!(
        "initramfs-v{BASE_FORMAT}-{}-{}.cpio",
        key(kernel),
        &agent.digest[..16]
    );
    let path = dir.join(name);
    if files.stat(&path).map_err(files_err)?.is_some() {
        return Ok(path);
    }
    let bytes = cpio::write(&base_entries(kernel, &read(&agent.path)?, |file| {
        read(&kernel.module(file))
    })?);
    cache::keep(files, &path, &bytes).map_err(files_err)?;
    Ok(path)
}

/// What tells the bases of a kernel from those of others.
pub(super) fn key(kernel: &Kernel) -> String {
    kernel_digest(kernel)[..16].to_owned()
}

/// The [`key`] of the kernel that the base of this file name is of, of whatever version, finished or not; `None` if it is
/// no base.
pub(super) fn kernel_of(name: &str) -> Option<&str> {
    let (_version, rest) = name.strip_prefix("initramfs-v")?.split_once('-')?;
    rest.split_once('-').map(|(key, _agent)| key)
}

/// Whether a file of this name is the base of another format or another agent: this agent's daemons never read it.
pub fn is_stale(name: &str, agent: &Agent) -> bool {
    let base = name
        .strip_prefix("initramfs-v")
        .and_then(|rest| rest.strip_suffix(".cpio"));
    let Some(base) = base else {
        return false;
    };
    let ours = format!("-{}", &agent.digest[..16]);
    !(base.starts_with(&format!("{BASE_FORMAT}-")) && base.ends_with(&ours))
}

/// One VM's initramfs: the base with an archive of the VM's facts behind it. It need not be synced: every start makes it
/// anew.
///
/// # Errors
/// See [`InitramfsError`].
pub fn of_vm(base: &Path, facts: &BootFacts) -> Result<Vec<u8>, InitramfsError> {
    let json = serde_json::to_vec(facts).map_err(|source| InitramfsError::Facts { source })?;
    let mut bytes = read(base)?;
    let path = BOOT_FACTS_PATH.trim_start_matches('/');
    bytes.extend(cpio::write(&[CpioEntry::file(path, 0o600, json)]));
    Ok(bytes)
}

fn kernel_digest(kernel: &Kernel) -> String {
    // The lists belong to it: the same ELF with other modules is another base.
    let manifest = &kernel.manifest;
    let lists = format!(
        "{} {:?} {:?} {}{}",
        manifest.vmlinux_sha256,
        manifest.first,
        manifest.second,
        manifest.version,
        manifest.modules_sha256
    );
    hex::encode(&Sha256::digest(lists))
}

fn base_entries(
    kernel: &Kernel,
    agent: &[u8],
    module: impl Fn(&str) -> Result<Vec<u8>, InitramfsError>,
) -> Result<Vec<CpioEntry>, InitramfsError> {
    let manifest = &kernel.manifest;
    let paths = |files: &[String]| {
        files
            .iter()
            .map(|f| format!("/{MODULES_DIR}/{f}"))
            .collect()
    };
    let list = ModuleList {
        first: paths(&manifest.first),
        second: paths(&manifest.second),
    };
    let device = |path: &str, mode, major, minor| CpioEntry {
        path: path.to_owned(),
        mode,
        kind: CpioKind::CharDevice(major, minor),
    };
    let mut entries = vec![
        CpioEntry::directory("dev"),
        // The kernel opens the console for /init before anything can be mounted (Documentation/admin-guide/devices.txt).
        device("dev/console", 0o600, 5, 1),
        device("dev/null", 0o666, 1, 3),
        CpioEntry::directory("proc"),
        CpioEntry::directory("sys"),
        CpioEntry::directory("banger"),
        CpioEntry::file(
            MODULES_PATH.trim_start_matches('/'),
            0o644,
            list.render().into_bytes(),
        ),
        CpioEntry::directory(MODULES_DIR),
    ];
    for file in manifest.first.iter().chain(&manifest.second) {
        entries.push(CpioEntry::file(
            format!("{MODULES_DIR}/{file}"),
            0o644,
            module(file)?,
        ));
    }
    entries.push(CpioEntry::file("init", 0o755, agent.to_vec()));
    Ok(entries)
}

fn read(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    std::fs::read(path).map_err(|source| InitramfsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::KernelManifest;

    fn kernel() -> Kernel {
        Kernel {
            dir: "/k".into(),
            manifest: KernelManifest {
                format: 1,
                name: "k".into(),
                release: "6".into(),
                package: "p".into(),
                version: "1".into(),
                vmlinux_sha256: "00".repeat(32),
                first: vec!["virtio_mmio.ko".into()],
                second: vec!["overlay.ko".into()],
                modules_disk: false,
                ..KernelManifest::default()
            },
        }
    }

    #[test]
    fn parents_come_first_and_the_module_list_names_what_is_there() {
        let entries = base_entries(&kernel(), b"agent", |f| Ok(f.as_bytes().to_vec())).unwrap();
        let paths: Vec<&str> = entries.iter().map(|e| e.path.as_str()).collect();
        for (i, path) in paths.iter().enumerate() {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(paths[..i].contains(&parent), "{path}");
            }
        }
        let list = entries.iter().find(|e| e.path == "banger/modules").unwrap();
        let CpioKind::File(text) = &list.kind else {
            panic!("a file")
        };
        let list = ModuleList::parse(std::str::from_utf8(text).unwrap()).unwrap();
        for path in list.first.iter().chain(&list.second) {
            assert!(paths.contains(&path.trim_start_matches('/')), "{path}");
        }
    }

    /// R-IMG-7: VMs of one kernel start side by side, and each reads a base as soon as it is told of one.
    #[test]
    fn a_base_that_several_make_at_once_is_whole_for_each() {
        let host = banger_host::linux::LinuxHost::new(Default::default());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        std::fs::write(&path, vec![7; 4 << 20]).unwrap();
        let agent = Agent::at(&path).unwrap();
        let mut kernel = kernel();
        (kernel.manifest.first, kernel.manifest.second) = (Vec::new(), Vec::new());
        for round in 0..10 {
            let cache = dir.path().join(round.to_string());
            std::fs::create_dir(&cache).unwrap();
            let begin = std::sync::Barrier::new(3);
            let made = || {
                begin.wait();
                let base = base(&host, &cache, &kernel, &agent).unwrap();
                std::fs::metadata(base).unwrap().len()
            };
            std::thread::scope(|scope| {
                let makers: Vec<_> = (0..3).map(|_| scope.spawn(made)).collect();
                for maker in makers {
                    assert!(maker.join().unwrap() > 4 << 20, "half a base");
                }
            });
            let left = std::fs::read_dir(&cache).unwrap().count();
            assert_eq!(left, 1, "the base, and nothing of its makers");
        }
    }

    #[test]
    fn a_vms_facts_stand_behind_the_base() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        std::fs::write(&base, "base").unwrap();
        let facts = BootFacts {
            hostname: "box".to_owned(),
            token: banger_wire::guest::Token([3; 16]),
            port: "banger.agent".to_owned(),
            root: banger_wire::guest::boot::Root::Overlay {
                base: "base".to_owned(),
                overlay: "overlay".to_owned(),
            },
            work: None,
            modules: None,
            network: Default::default(),
            power_off: Default::default(),
            init: Default::default(),
            ssh: None,
        };
        let bytes = of_vm(&base, &facts).unwrap();
        let behind = bytes.strip_prefix(b"base").unwrap();
        let json = serde_json::to_vec(&facts).unwrap();
        assert!(behind.starts_with(b"070701"), "an archive");
        assert!(behind.windows(json.len()).any(|part| part == json));
    }

    #[test]
    fn other_modules_are_another_base() {
        let (one, mut two) = (kernel(), kernel());
        two.manifest.second.clear();
        assert_ne!(kernel_digest(&one), kernel_digest(&two));
    }
}
