//! What is kept of kernels besides themselves, and when it goes: initramfs bases, and what was built.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_host::{Files, state_file};

use super::build;
use super::initramfs::{self, Agent};
use super::kernel::Kernel;

/// What the directory of caches is looked through for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// Bases of kernels that are gone.
    OfGoneKernels,
    /// Those, and what makers that died did not finish. Nothing is being made while this is asked.
    Unfinished,
    /// Those of gone kernels, and whatever no kernel that is there was made with: bases of other agents, what was built
    /// for a kernel that was deleted since.
    Everything,
}

/// Puts a file into the directory of caches, whole or not at all. Several may put the same one at once: each writes under a
/// name of its own, and the last one stays.
pub(super) fn keep<F: Files>(
    files: &F,
    path: &Path,
    bytes: &[u8],
) -> Result<(), banger_host::Error> {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}-{turn}.part", std::process::id()));
    state_file::replace_through(files, &part, path, bytes).inspect_err(|_| {
        // Nobody else writes it again: on a full disk each try would leave one until the daemon's next start.
        let _ = files.unlink(&part);
    })
}

/// Whether the file of this name in the directory of caches goes. Files of others are none of these.
pub fn goes(name: &str, kernels: &[Kernel], agent: Option<&Agent>, unused: Unused) -> bool {
    if let Some(hidden) = name.strip_prefix('.') {
        let ours = initramfs::kernel_of(hidden).is_some() || build::is_kept(hidden);
        return ours && unused == Unused::Unfinished;
    }
    if let Some(of) = initramfs::kernel_of(name) {
        let there = |kernel: &Kernel| of == initramfs::key(kernel);
        // Without an agent nobody can say whose a file is.
        let other_agent = || agent.is_some_and(|agent| initramfs::is_stale(name, agent));
        return !kernels.iter().any(there) || (unused == Unused::Everything && other_agent());
    }
    if build::is_kept(name) {
        let made_of = |kernel: &Kernel| {
            let key = kernel.manifest.built_of.as_deref();
            key.is_some_and(|key| build::kept_name(key) == name)
        };
        return unused == Unused::Everything && !kernels.iter().any(made_of);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::KernelManifest;

    fn kernel(version: &str, built_of: Option<&str>) -> Kernel {
        Kernel {
            dir: "/k".into(),
            manifest: KernelManifest {
                version: version.to_owned(),
                built_of: built_of.map(str::to_owned),
                ..KernelManifest::default()
            },
        }
    }

    #[test]
    fn what_no_kernel_has_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        std::fs::write(&path, "agent").unwrap();
        let agent = Agent::at(&path).unwrap();
        let (digest, other) = (&agent.digest()[..16], "0123456789abcdef");
        let there = kernel("1", Some("abababababababababab"));
        let base = |kernel: &Kernel, agent: &str| {
            format!("initramfs-v1-{}-{agent}.cpio", initramfs::key(kernel))
        };
        let built = build::kept_name("abababababababababab");
        let (gone_built, old_built) = (build::kept_name(&"c".repeat(64)), "vmlinux-v0-00");
        let gone = base(&kernel("2", None), digest);
        let files = [
            base(&there, digest),
            base(&there, other),
            gone.clone(),
            built.clone(),
            gone_built.clone(),
            old_built.to_owned(),
            format!(".{built}.part"),
            format!(".{gone}.tmp"),
            format!(".{gone}.17-4.part"),
            "ext4-v3-banger-overlay-8.img".to_owned(),
            ".ext4-v3-x.part".to_owned(),
            ".lock".to_owned(),
        ];
        let going = |unused| {
            let goes =
                |name: &&String| goes(name, std::slice::from_ref(&there), Some(&agent), unused);
            files
                .iter()
                .filter(goes)
                .map(String::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(going(Unused::OfGoneKernels), [&gone]);
        assert_eq!(
            going(Unused::Unfinished),
            [
                &gone,
                &format!(".{built}.part"),
                &format!(".{gone}.tmp"),
                &format!(".{gone}.17-4.part")
            ]
        );
        assert_eq!(
            going(Unused::Everything),
            [&base(&there, other), &gone, &gone_built, old_built]
        );
    }
}
