//! The real programs with the **dm-snapshot** root driver: loop, loop, device-mapper, a real guest over them.

mod dm;

use banger_testkit::{Home, wait_until};
use dm::Host;
use std::{fs::File, path::Path, time::Duration};

/// The whole life of a VM on a snapshot; the machine is as it was after every stop.
#[test]
fn a_vm_on_a_snapshot_lives_through_stop_and_start_and_leaves_nothing() {
    let Some(host) = Host::here() else { return };
    let home = host.home();

    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let write = "echo kept >/opt/system; echo kept >/root/work; grep ' / ' /proc/mounts; sync";
    let root = home.guest_sh("dev", write).exits(0);
    assert!(
        root.out().contains(" / ext4 rw"),
        "the root is the snapshot itself: {}",
        root.out()
    );
    everything_is_labelled(&home);
    a_killed_daemon_takes_nothing_with_it(&home);

    home.banger(&["vm", "stop", "dev"]).exits(0);
    host.is_as_before("stopped");
    the_base_took_no_write(&home);
    a_stranger_of_that_name_is_left_alone(&home);
    host.is_as_before("refused");

    home.banger(&["vm", "start", "dev"]).exits(0);
    let kept = home
        .banger(&[
            "vm",
            "exec",
            "dev",
            "--",
            "cat",
            "/opt/system",
            "/root/work",
        ])
        .exits(0);
    assert_eq!(kept.out(), "kept\nkept");

    a_device_that_is_held_for_a_moment_is_waited_for(&home);
    home.finish();
    host.is_as_before("deleted");
}

/// R-HOST-6: the loops carry the label and clear themselves, the dm device has it as its uuid.
fn everything_is_labelled(home: &Home) {
    let instance = home.instance().expect("an instance");
    let (id, name) = (dm::id(home, "dev"), dm::root_name(home, "dev"));
    let label = |role: &str| format!("banger1/{instance}/{id}/{role}");
    let loops = dm::loops();
    let [base, cow] = loops.as_slice() else {
        panic!("two loops, not {loops:#?}")
    };
    assert_eq!(base.label, label("base-loop"));
    assert!(
        base.read_only && base.backing.ends_with("rootfs.ext4"),
        "{base:#?}"
    );
    assert_eq!(cow.label, label("cow-loop"));
    assert!(
        !cow.read_only && cow.backing.starts_with(home.state()),
        "{cow:#?}"
    );
    assert!(base.autoclear && cow.autoclear, "{loops:#?}");
    assert_eq!(
        dm::dm_devices(),
        [(name.clone(), label("dm-snapshot").replace('/', "."))]
    );
    let table = dm::run("dmsetup", &["table", &name]);
    assert!(
        table.contains(" snapshot ") && table.contains(" P "),
        "{table}"
    );
}

/// The VM goes on without its daemon, and the next one finds it.
fn a_killed_daemon_takes_nothing_with_it(home: &Home) {
    let before = (dm::loops(), dm::dm_devices());
    home.kill_daemon();
    assert_eq!((dm::loops(), dm::dm_devices()), before);
    home.banger(&["vm", "exec", "dev", "--", "true"]).exits(0);
    assert_eq!((dm::loops(), dm::dm_devices()), before);
}

/// What the guest wrote went to the copy-on-write file.
fn the_base_took_no_write(home: &Home) {
    let images = home.state().join("images");
    let image = std::fs::read_dir(images)
        .expect("images")
        .flatten()
        .find(|e| e.path().join("manifest.json").exists())
        .expect("an image");
    let manifest = std::fs::read(image.path().join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let rootfs = image.path().join("rootfs.ext4");
    let sum = dm::run("sha256sum", &[rootfs.to_str().expect("a path")]);
    let digest = manifest["digest"].as_str().expect("a digest");
    assert_eq!(
        digest.strip_prefix("sha256:"),
        sum.split(' ').next(),
        "the base was written to"
    );
    let vm = home.state().join("vms").join(dm::id(home, "dev"));
    let cow = std::fs::read_dir(&vm)
        .expect("the VM's directory")
        .flatten()
        .filter(|e| {
            let mut head = [0; 4];
            let read =
                File::open(e.path()).and_then(|mut f| std::io::Read::read(&mut f, &mut head));
            read.is_ok() && head == *b"SnAp"
        });
    assert_eq!(cow.count(), 1, "the CoW file has dm's mark");
}

/// A device of our name without our uuid is somebody's: the start is refused and says so, the device stays.
fn a_stranger_of_that_name_is_left_alone(home: &Home) {
    let name = dm::root_name(home, "dev");
    dm::run("dmsetup", &["create", &name, "--table", "0 8 zero"]);
    let refused = home.banger(&["vm", "start", "dev"]).exits(125);
    assert!(
        refused.err().contains(&name),
        "the error names the device: {}",
        refused.err()
    );
    assert_eq!(home.show("dev")["state"], "stopped");
    assert_eq!(dm::loops(), [], "no loop is left of the start");
    let table = dm::run("dmsetup", &["table", &name]);
    assert_eq!(table, "0 8 zero", "the stranger is as it was");
    dm::run("dmsetup", &["remove", "--retry", &name]);
}

/// R-HOST-3: busy is tried again; the teardown succeeds as soon as the holder lets go.
fn a_device_that_is_held_for_a_moment_is_waited_for(home: &Home) {
    let name = dm::root_name(home, "dev");
    let held = File::open(Path::new("/dev/mapper").join(&name)).expect("the root device");
    let kill = home.start(&["vm", "kill", "dev"], b"");
    wait_until("the VMM to be gone", dm::RECOVERY, || {
        let instance = home.instance().unwrap_or_default();
        let labels: Vec<_> = banger_testkit::Machine::look(Some(&instance))
            .process_labels()
            .collect();
        if labels.is_empty() {
            Ok(())
        } else {
            Err(labels.join(", "))
        }
    });
    // Not a wait for an event: the device must still be there after a few tries.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(dm::dm_devices().len(), 1, "a held device cannot be removed");
    drop(held);
    kill.finish().exits(0);
    assert_eq!(home.show("dev")["state"], "stopped");
    assert_eq!((dm::loops(), dm::dm_devices()), (vec![], vec![]));
}

/// A device that stays held: bounded, said, never forgotten.
#[test]
fn a_device_that_stays_held_is_said_and_removed_in_the_background() {
    let Some(host) = Host::here() else { return };
    let home = host.home();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let name = dm::root_name(&home, "dev");
    let held = File::open(Path::new("/dev/mapper").join(&name)).expect("the root device");

    let failed = home.banger(&["vm", "delete", "--force", "dev"]).exits(125);
    let said = failed.err();
    assert!(said.contains(&name), "the error names what is busy: {said}");
    let holder = format!("process {}", std::process::id());
    assert!(
        said.contains(&holder) && said.contains("has it open"),
        "the error names who holds it: {said}"
    );
    assert_eq!(dm::dm_devices().len(), 1);
    assert_eq!(dm::loops().len(), 2, "nothing is taken from under it");

    drop(held);
    wait_until(
        "the background to delete the VM",
        dm::RECOVERY,
        || match home.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.join(", ")),
        },
    );
    assert_eq!(home.banger(&["vm", "list", "-q"]).exits(0).out(), "");
    home.finish();
    host.is_as_before("deleted");
}
