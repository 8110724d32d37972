//! Preflight (R-SVC-8): a request is refused for everything that is wrong, at once, before anything of it exists.

use banger_testkit::Home;
use std::fs;

/// Values, image, VMM: each failure stands there with its own way out, in the same order every time.
#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let home = Home::bare();
    fs::write(home.config(), "qemu_bin = \"/no/such/qemu\"\n").expect("config");
    let shape = ["--image", "nope", "--memory", "16M", "--disk-size", "1M"];
    let wanted = "\
        banger: a VM needs at least 128 MiB of memory, not 16 MiB\n\
        hint: --memory 128M or more\n\
        banger: the work disk has at least 16 MiB, not 1 MiB\n\
        hint: --disk-size 16M or more\n\
        banger: no image is called 'nope'\n\
        hint: there are none yet: 'debian' is built when it is first used; banger image pull fetches one, banger image import \
        makes one of a tar, a directory or an ext4 file\n\
        banger: the configured qemu_bin /no/such/qemu is no program that can be run\n\
        hint: correct qemu_bin in the configuration, or remove the line";
    for verb in [&["vm", "create"][..], &["vm", "run", "--rm"]] {
        let args: Vec<&str> = verb.iter().chain(&shape).copied().collect();
        let run = home.banger(&args).exits(125);
        let told = run.err();
        let told = told.trim_end();
        let (facts, operation) = match told.rsplit_once("\noperation: ") {
            Some((facts, id)) => (facts, Some(id)),
            None => (told, None),
        };
        assert_eq!(facts, wanted, "{verb:?}");
        // `vm run` is refused before there is an operation.
        assert_eq!(operation.is_some(), verb == ["vm", "create"], "{told}");
        assert!(run.stdout.is_empty(), "{verb:?}");
    }
    assert_eq!(home.banger(&["vm", "list", "-q"]).exits(0).out(), "");
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
    home.finish();
}

/// A host without the programs that make images, kernels and disks: each is named with its package.
#[test]
fn missing_programs_are_named_with_their_packages() {
    let mut home = Home::bare();
    let empty = home.scratch().join("bin");
    fs::create_dir(&empty).expect("a PATH");
    home.set_env("PATH", Some(&empty.display().to_string()));
    let run = home.banger(&["vm", "create"]).exits(125);
    let told = run.err();
    // What is in /usr/sbin is found whatever PATH says.
    for says in [
        "'mmdebstrap' is not installed\nhint: apt install mmdebstrap",
        "'apt-get' is not installed",
    ] {
        assert!(told.contains(says), "no {says:?} in {told}");
    }
    home.set_env("PATH", None);
    home.finish();
}
