//! Kernels in VMs (R-IMG-7).

use banger_testkit::Home;
use std::fs;

/// The kernel that every test boots, given as a directory: it boots under its new name, with its modules, and stays as
/// long as the VM is there.
#[test]
fn an_imported_kernel_boots_and_stays_while_a_vm_has_it() {
    let home = Home::new();
    let dir = home.scratch().join("kernel");
    let shelf = home.state().join("kernels/debian-cloud");
    fs::create_dir_all(dir.join("modules")).expect("a directory");
    for file in ["vmlinux", "modules.builtin"] {
        fs::copy(shelf.join(file), dir.join(file)).expect("a copy");
    }
    for module in fs::read_dir(shelf.join("modules"))
        .expect("modules")
        .flatten()
    {
        // Packed, as newer distributions have them.
        let packed = fs::read(module.path()).expect("a module");
        let packed = zstd::bulk::compress(&packed, 1).expect("packed");
        let name = format!("{}.zst", module.file_name().display());
        fs::write(dir.join("modules").join(name), packed).expect("a module");
    }
    let source = dir.to_str().expect("UTF-8");
    home.banger(&["kernel", "import", source, "--name", "mine"])
        .exits(0);
    let shown = home.banger(&["kernel", "show", "mine", "debian-cloud", "--json"]);
    let shown = shown.exits(0).json();
    assert_eq!(shown[0]["digest"], shown[1]["digest"]);
    assert_eq!(shown[0]["release"], shown[1]["release"]);

    let args = [
        "vm", "create", "--name", "dev", "--kernel", "mine", "--json",
    ];
    let vm = home.banger(&args).exits(0).json();
    assert_eq!(vm["kernel"], "mine");
    let release = home.guest_sh(
        "dev",
        "uname -r; ls /lib/modules/$(uname -r)/modules.dep.bin",
    );
    let release = release.exits(0).out();
    let said = shown[0]["release"].as_str().expect("a release");
    assert_eq!(
        release,
        format!("{said}\n/lib/modules/{said}/modules.dep.bin")
    );
    let kept = home.banger(&["kernel", "delete", "mine"]).exits(125).err();
    assert!(
        kept.contains("that of the VMs dev") && kept.contains("banger vm delete dev"),
        "{kept}"
    );
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.banger(&["kernel", "delete", "mine"]).exits(0);
    home.finish();
}
