//! Kernels (R-IMG-7): what is taken and what is refused, and who keeps one from being deleted; no VM is made.

use banger_testkit::{
    Home, Run,
    kernel::{config, vmlinux},
    leave_lost, wait_until,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A directory with a kernel and its configuration.
fn kernel_dir(home: &Home, name: &str, config: &str) -> PathBuf {
    let dir = home.scratch().join(name);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("vmlinux"), vmlinux("6.1.7-test", true)).expect("a kernel");
    fs::write(dir.join("config"), config).expect("a configuration");
    dir
}

fn listed(home: &Home) -> Vec<String> {
    let listed = home.banger(&["kernel", "list", "--json"]).exits(0).json();
    let names = listed.as_array().expect("kernels").iter();
    names
        .map(|k| k["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// What is on disk besides kernels.
fn rests(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.state().join("kernels"))
        .into_iter()
        .flatten();
    let names = entries.map(|e| {
        e.expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8")
    });
    names.filter(|name| name.starts_with('.')).collect()
}

fn import(home: &Home, source: &str, more: &[&str]) -> Run {
    home.banger(&[&["kernel", "import", source], more].concat())
}

fn one(home: &Home, name: &str) -> Value {
    let shown = home
        .banger(&["kernel", "show", name, "--json"])
        .exits(0)
        .json();
    shown[0].clone()
}

#[test]
fn a_directory_becomes_a_kernel_that_is_listed_shown_and_deleted() {
    let home = Home::bare();
    let dir = kernel_dir(&home, "mine", &config(""));
    // Two names of one file, as a tree has them that was copied by links.
    fs::create_dir(dir.join("modules")).expect("a directory");
    fs::write(dir.join("modules/one"), "data").expect("a file");
    fs::hard_link(dir.join("modules/one"), dir.join("modules/two")).expect("a link");
    let source = dir.to_str().expect("UTF-8");
    assert_eq!(import(&home, source, &[]).exits(0).out(), "mine");
    let kernel = one(&home, "mine");
    assert_eq!(kernel["release"], "6.1.7-test");
    assert_eq!(kernel["checked_by"], "config");
    assert_eq!(kernel["modules"], false);
    assert_eq!(kernel["default"], false);
    let missing = kernel["missing"].as_array().expect("options").iter();
    assert!(missing.clone().all(|o| o["needed"] == false), "{kernel}");
    assert!(missing.clone().any(|o| o["option"] == "CONFIG_VMGENID"));

    // The same bytes alone, from stdin, without a configuration: nothing is known of its options, and that is said.
    let alone = fs::read(dir.join("vmlinux")).expect("the kernel");
    let args = ["kernel", "import", "-", "--name", "alone"];
    home.banger_with(&args, &alone).exits(0);
    let told = home.banger(&["kernel", "inspect", "alone"]).exits(0).out();
    assert!(told.contains("checked by  nothing") && told.contains("not told    CONFIG_64BIT"));

    assert_eq!(listed(&home), ["alone", "mine"]);
    let again = import(&home, source, &[]).exits(125).err();
    assert!(
        again.contains("a kernel 'mine' already") && again.contains("--replace"),
        "{again}"
    );
    import(&home, source, &["--replace"]).exits(0);
    home.banger(&["kernel", "delete", "mine", "alone"]).exits(0);
    assert_eq!(listed(&home), [""; 0]);
    let gone = home.banger(&["kernel", "show", "mine"]).exits(125).err();
    assert!(gone.contains("no kernel is called 'mine'"), "{gone}");
    // The three ways to a kernel.
    for way in ["kernel pull", "kernel import DIRECTORY", "--from-host"] {
        assert!(gone.contains(way), "{gone}");
    }
    assert_eq!(rests(&home), [""; 0]);
    home.finish();
}

/// Each option that is missing is named; `--force` takes the kernel all the same.
#[test]
fn a_kernel_that_lacks_what_banger_needs_is_refused_and_the_option_named() {
    let home = Home::bare();
    for option in ["VIRTIO_BLK", "DEVTMPFS", "BINFMT_ELF", "ACPI"] {
        let dir = kernel_dir(&home, "poor", &config(option));
        let source = dir.to_str().expect("UTF-8");
        let told = import(&home, source, &[]).exits(125).err();
        assert!(
            told.contains(&format!("needs: CONFIG_{option} (")),
            "{told}"
        );
        assert!(told.contains("--force"), "{told}");
        // No other is.
        assert_eq!(told.matches("CONFIG_").count(), 1, "{told}");
        assert_eq!(listed(&home), [""; 0]);
    }
    let source = home.scratch().join("poor");
    let told = import(&home, source.to_str().expect("UTF-8"), &["--force"]).exits(0);
    assert!(told.err().contains("CONFIG_ACPI"), "{}", told.err());
    assert_eq!(rests(&home), [""; 0]);
    home.finish();
}

#[test]
fn what_is_no_kernel_is_refused_with_its_reason_and_leaves_nothing() {
    let home = Home::bare();
    let dir = home.scratch().join("bad");
    fs::create_dir_all(&dir).expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).expect("a file");
        dir.join(name).to_str().expect("UTF-8").to_owned()
    };
    // A bzImage whose payload is said to end far behind the file.
    let mut image = vec![0u8; 2048];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
    let lies = file("lies", &image);
    image[0x24c..0x250].copy_from_slice(&16u32.to_le_bytes());
    let other = file("other", &image);
    let no_pvh = file("nopvh", &vmlinux("6.1", false));
    let script = file("script", b"#!/bin/sh\n");
    let deb = file(
        "half.deb",
        b"!<arch>\ndebian-binary   0           0     0     100644  999999    `\n2.0",
    );
    let nameless = file("nameless", &vmlinux("%s", true));
    let cases = [
        (lies, "cut short"),
        (other, "gzip, xz, zstd and lz4"),
        (no_pvh, "CONFIG_PVH"),
        (script, "this is no kernel"),
        (deb, "cut short"),
        (nameless, "no release"),
    ];
    for (source, why) in cases {
        let told = import(&home, &source, &["--name", "bad"]).exits(125).err();
        assert!(
            told.contains(why) && told.contains("hint: "),
            "{source}: {told}"
        );
    }
    let empty = home.scratch().join("empty");
    fs::create_dir(&empty).expect("a directory");
    let empty = empty.to_str().expect("UTF-8");
    let told = import(&home, empty, &[]).exits(125).err();
    assert!(told.contains("has no kernel: a vmlinux"), "{told}");

    let linked = home.scratch().join("linked");
    fs::create_dir(&linked).expect("a directory");
    std::os::unix::fs::symlink("../two/vmlinux", linked.join("vmlinux")).expect("a link");
    let told = import(&home, linked.to_str().expect("UTF-8"), &[]);
    let told = told.exits(125).err();
    assert!(
        told.contains("vmlinux is a link") && told.contains("the file that it leads to"),
        "{told}"
    );
    let none = home.banger(&["kernel", "import", "--from-host=0.0-none"]);
    let none = none.exits(125).err();
    assert!(
        none.contains("keeps no kernel 0.0-none") && none.contains("kernel list --available"),
        "{none}"
    );

    let two = kernel_dir(&home, "two", &config(""));
    fs::write(two.join("vmlinux-6.2"), vmlinux("6.2", true)).expect("another kernel");
    let told = import(&home, two.to_str().expect("UTF-8"), &[])
        .exits(125)
        .err();
    assert!(
        told.contains("several kernels: vmlinux, vmlinux-6.2"),
        "{told}"
    );

    let modules = kernel_dir(&home, "foreign", &config(""));
    fs::create_dir_all(modules.join("lib/modules/5.10/kernel")).expect("a directory");
    fs::write(modules.join("lib/modules/5.10/kernel/x.ko"), "half").expect("a module");
    let told = import(&home, modules.to_str().expect("UTF-8"), &[])
        .exits(125)
        .err();
    assert!(told.contains("kernel/x.ko cannot be used"), "{told}");

    for name in ["..", ".x", "a/b", "", "A"] {
        let good = kernel_dir(&home, "good", &config(""));
        let told = import(&home, good.to_str().expect("UTF-8"), &["--name", name])
            .exits(125)
            .err();
        assert!(told.contains("cannot name a kernel"), "{name}: {told}");
    }
    assert_eq!(listed(&home), [""; 0]);
    assert_eq!(rests(&home), [""; 0]);
    home.finish();
}

/// An image may name its kernel, which then stays.
#[test]
fn a_kernel_that_an_image_names_is_not_deleted() {
    let home = Home::bare();
    let root = home.scratch().join("root");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    fs::write(root.join("bin/sh"), "").expect("a file");
    let root = root.to_str().expect("UTF-8");
    home.banger(&["image", "import", root, "--name", "app"])
        .exits(0);
    let none = home
        .banger(&["image", "set", "app", "--kernel", "mine"])
        .exits(125)
        .err();
    assert!(none.contains("no kernel is called 'mine'"), "{none}");
    let dir = kernel_dir(&home, "mine", &config(""));
    import(&home, dir.to_str().expect("UTF-8"), &[]).exits(0);
    let set = |kernel: &str| {
        let args = ["image", "set", "app", "--kernel", kernel, "--json"];
        home.banger(&args).exits(0).json()
    };
    assert_eq!(set("mine")["kernel"], "mine");
    assert_eq!(one(&home, "mine")["images"], json!(["app"]));
    let kept = home.banger(&["kernel", "delete", "mine"]).exits(125).err();
    assert!(kept.contains("banger image set app --kernel any"), "{kept}");
    assert_eq!(set("any").get("kernel"), None);
    home.banger(&["kernel", "delete", "mine"]).exits(0);
    home.finish();
}

/// What a killed maker leaves is gone with the next start; a kernel that has the own one's name is the default.
#[test]
fn rests_are_cleared_and_the_own_kernel_is_the_default_once_there() {
    let home = Home::bare();
    let dir = kernel_dir(&home, "banger", &config(""));
    import(&home, dir.to_str().expect("UTF-8"), &[]).exits(0);
    assert_eq!(one(&home, "banger")["default"], true);
    home.banger(&["daemon", "stop"]).exits(0);
    let rest = home.state().join("kernels/.build-0123456789ab/linux");
    fs::create_dir_all(&rest).expect("a rest");
    home.banger(&["kernel", "list"]).exits(0);
    wait_until(
        "the rest is cleared",
        Duration::from_secs(20),
        || match &rests(&home)[..] {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        },
    );
    home.finish();
}

/// A VM that only its directory knows may come back, and needs its kernel then.
#[test]
fn a_kernel_of_a_lost_vm_is_not_deleted() {
    let home = Home::bare();
    let dir = kernel_dir(&home, "mine", &config(""));
    import(&home, dir.to_str().expect("UTF-8"), &[]).exits(0);
    let vm = leave_lost(&home, "00c0ffee0000", "mine");
    assert_eq!(one(&home, "mine")["used_by"], json!(["00c0ffee0000"]));
    let kept = home.banger(&["kernel", "delete", "mine"]).exits(125).err();
    assert!(
        kept.contains("that of the VMs 00c0ffee0000")
            && kept.contains("banger vm delete 00c0ffee0000"),
        "{kept}"
    );
    home.banger(&["vm", "delete", "00c0ffee0000"]).exits(0);
    assert!(!vm.exists());
    home.banger(&["kernel", "delete", "mine"]).exits(0);
    home.finish();
}

/// On a file system that cannot exchange two names, a daemon may die when the old kernel has left its place and the new one
/// has not come.
#[test]
fn a_kernel_that_was_being_replaced_is_put_back() {
    let home = Home::bare();
    let dir = kernel_dir(&home, "mine", &config(""));
    for name in ["mine", "there"] {
        import(&home, dir.to_str().expect("UTF-8"), &["--name", name]).exits(0);
    }
    home.banger(&["daemon", "stop"]).exits(0);
    let shelf = home.state().join("kernels");
    fs::rename(shelf.join("mine"), shelf.join(".old-mine")).expect("a rename");
    // One whose place is taken is a rest, like the stage of the new one.
    fs::create_dir(shelf.join(".old-there")).expect("a rest");
    fs::create_dir(shelf.join(".stage-0123456789ab")).expect("a rest");
    assert_eq!(listed(&home), ["mine", "there"]);
    wait_until(
        "the rests are cleared",
        Duration::from_secs(20),
        || match &rests(&home)[..] {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        },
    );
    assert_eq!(one(&home, "mine")["release"], "6.1.7-test");
    home.finish();
}

#[test]
fn what_is_kept_of_kernels_that_are_gone_goes() {
    let home = Home::bare();
    home.banger(&["daemon", "status"]);
    let dir = kernel_dir(&home, "mine", &config(""));
    import(&home, dir.to_str().expect("UTF-8"), &[]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    let caches = home.state().join("templates");
    fs::create_dir_all(&caches).expect("caches");
    let (base, built) = (
        "initramfs-v1-0123456789abcdef-0123456789abcdef.cpio",
        "vmlinux-v1-0123456789abcdef",
    );
    let unfinished = [
        format!(".{base}.tmp"),
        format!(".{base}.17-4.part"),
        format!(".{built}.part"),
    ];
    let put = || {
        for name in [base, built] {
            fs::write(caches.join(name), name).expect("a cache");
        }
    };
    put();
    for name in &unfinished {
        fs::write(caches.join(name), "half").expect("a rest");
    }
    let left = || {
        let entries = fs::read_dir(&caches).expect("caches").flatten();
        let names = entries.map(|e| e.file_name().into_string().expect("UTF-8"));
        names.filter(|n| n.contains("-v1-")).collect::<Vec<_>>()
    };
    assert_eq!(listed(&home), ["mine"]);
    assert_eq!(left(), [built], "at the daemon's start");
    put();
    home.banger(&["kernel", "delete", "mine"]).exits(0);
    assert_eq!(left(), [built], "with a kernel that goes");
    // What was built brings a deleted kernel back without a compiler, until somebody wants the room.
    home.banger(&["vm", "prune", "--force"]).exits(0);
    assert_eq!(left(), [""; 0]);
    home.finish();
}

/// Eight million empty files: an archive of a few kilobytes that takes long to walk through.
#[test]
fn an_import_is_cancelled_while_it_unpacks() {
    let home = Home::bare();
    let mut header = [0u8; 512];
    header[..7].copy_from_slice(b"modules");
    for (at, field) in [
        (100, &b"0000644\0"[..]),
        (124, b"00000000000\0"),
        (148, b"        "),
        (156, b"0"),
        (257, b"ustar\x0000"),
    ] {
        header[at..at + field.len()].copy_from_slice(field);
    }
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let path = home.scratch().join("endless.tar.zst");
    let file = fs::File::create(&path).expect("a file");
    let mut packed = zstd::stream::Encoder::new(file, 1).expect("an encoder");
    let many = header.repeat(2048);
    for _ in 0..4000 {
        packed.write_all(&many).expect("an archive");
    }
    packed.finish().expect("an archive");

    let source = path.to_str().expect("UTF-8");
    let running = home.start(&["kernel", "import", source, "--name", "slow"], b"");
    let id = wait_until("it to unpack", Duration::from_secs(30), || {
        let all = home
            .banger(&["operation", "list", "--json"])
            .exits(0)
            .json();
        let all = all.as_array().expect("operations").clone();
        let unpacks = |op: &&Value| op["method"] == "kernel.import" && op["detail"] == "unpacking";
        let found = all.iter().find(unpacks);
        found
            .and_then(|op| op["id"].as_str().map(str::to_owned))
            .ok_or_else(|| format!("{all:?}"))
    });
    let began = Instant::now();
    home.banger(&["operation", "cancel", &id]).exits(0);
    let told = running.finish_within(Duration::from_secs(60));
    let took = began.elapsed();
    assert!(told.err().contains("cancel"), "{}", told.err());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(rests(&home), [""; 0]);
    home.finish();
}
