use super::*;
use crate::services::{Peers, tests::core, wire_services};
use banger_vmm::boot::{
    initramfs,
    kernel::{KERNEL_FORMAT, KernelManifest},
};
use std::sync::atomic::{AtomicBool, Ordering};

fn with_kernel(dir: &Path) -> Kernels {
    let core = core(dir);
    let peers = Peers::default();
    wire_services(&peers, &core, &Arc::default(), &Default::default());
    let kernel = core.recipes.kernels_dir().join("mine");
    std::fs::create_dir_all(&kernel).unwrap();
    let manifest = KernelManifest {
        format: KERNEL_FORMAT,
        name: "mine".to_owned(),
        ..KernelManifest::default()
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    std::fs::write(kernel.join("manifest.json"), manifest).unwrap();
    Kernels::new(core, peers.catalogue().unwrap())
}

/// R-IMG-7: between the look at a kernel and the row or the image that names it, it stays.
#[test]
fn a_kernel_that_is_read_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let kernels = with_kernel(dir.path());
    let reads = kernels.usable("mine").unwrap();
    let refused = kernels.delete("mine").unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert!(
        refused
            .to_string()
            .contains("created, started, stopped or deleted"),
        "{refused}"
    );
    assert!(kernels.show("mine").is_ok());
    drop(reads);
    assert_eq!(kernels.delete("mine").unwrap().name, "mine");
    assert!(kernels.usable("mine").is_err());
    let left = std::fs::read_dir(kernels.dir()).unwrap().count();
    assert_eq!(left, 0, "nothing is left of it");
}

/// One that is damaged, or that another version of banger made: it is told, and its room can be had again.
#[test]
fn a_kernel_that_cannot_be_used_is_listed_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let kernels = with_kernel(dir.path());
    let manifest = kernels.dir().join("mine/manifest.json");
    let other = KernelManifest {
        format: KERNEL_FORMAT + 1,
        name: "mine".to_owned(),
        ..KernelManifest::default()
    };
    let other = serde_json::to_vec(&other).unwrap();
    for (text, why, told) in [
        (&b"{"[..], "damaged", "the kernel 'mine' is damaged"),
        (
            &other,
            "of another version of banger",
            "no kernel that this version",
        ),
    ] {
        std::fs::create_dir_all(manifest.parent().unwrap()).unwrap();
        std::fs::write(&manifest, text).unwrap();
        let listed = kernels.list().unwrap();
        assert_eq!(listed[0].name, "mine");
        assert_eq!(listed[0].unusable.as_deref(), Some(why));
        let shown = kernels.show("mine").unwrap_err();
        assert!(shown.to_string().contains(told), "{shown}");
        let hint = shown.hint.unwrap_or_default();
        assert!(hint.starts_with("banger kernel delete mine"), "{hint}");
        kernels.delete("mine").unwrap();
        assert!(kernels.list().unwrap().is_empty());
    }
    assert_eq!(kernels.delete("mine").unwrap_err().code, Code::NotFound);
}

/// A kernel that comes while caches are looked through, and a VM of it that starts at once: its base stays.
#[test]
fn what_is_made_for_a_kernel_that_comes_now_is_not_unused() {
    let dir = tempfile::tempdir().unwrap();
    let kernels = with_kernel(dir.path());
    let (host, shelf) = (&*kernels.core.host, kernels.dir());
    let caches = kernels.core.recipes.templates_dir();
    std::fs::create_dir_all(&caches).unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, "agent").unwrap();
    let agent = initramfs::Agent::at(&program).unwrap();
    let come = |name: String| {
        let stage = shelf.join(".stage");
        std::fs::create_dir(&stage).unwrap();
        let manifest = KernelManifest {
            format: KERNEL_FORMAT,
            version: name.clone(),
            name: name.clone(),
            ..KernelManifest::default()
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        std::fs::write(stage.join("manifest.json"), manifest).unwrap();
        std::fs::rename(&stage, shelf.join(&name)).unwrap();
        let kernel = Kernel::load(host, &shelf, &name).unwrap().unwrap();
        initramfs::base(host, &caches, &kernel, &agent).unwrap();
    };
    let all_came = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..100).for_each(|i| come(format!("k{i}")));
            all_came.store(true, Ordering::Release);
        });
        while !all_came.load(Ordering::Acquire) {
            let unused = unused_caches(&kernels.core, Unused::OfGoneKernels);
            assert_eq!(unused, [""; 0]);
        }
    });
    assert_eq!(std::fs::read_dir(&caches).unwrap().count(), 100);
}
