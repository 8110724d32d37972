//! Images on their way out of a daemon: archives and bundles, their history, and what cannot be exported; no VM is made.

use banger_testkit::{Home, Running};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::symlink, path::Path};

fn path(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Imports a directory of a few files as `box`.
fn imported(home: &Home) -> Value {
    let dir = home.scratch().join("box");
    fs::create_dir_all(dir.join("bin")).expect("a directory");
    fs::write(dir.join("bin/sh"), vec![7; 300_000]).expect("a file");
    symlink("sh", dir.join("bin/ash")).expect("a link");
    let args = ["image", "import", &path(&dir), "--name", "box", "--json"];
    home.banger(&args).exits(0).json()
}

#[track_caller]
fn shown(home: &Home, image: &str) -> Value {
    let shown = home.banger(&["image", "inspect", image, "--json"]);
    shown.exits(0).json()[0].clone()
}

#[test]
fn what_is_exported_is_imported_again() {
    let home = Home::bare();
    let image = imported(&home);
    let file = path(&home.scratch().join("box.tar"));
    home.banger(&["image", "export", "box", "-o", &file])
        .exits(0);
    home.banger(&["image", "import", &file, "--name", "oci"])
        .exits(0);
    let oci = shown(&home, "oci");
    assert_eq!(oci["layers"].as_array().map(Vec::len), Some(1), "{oci}");
    let history = home.banger(&["image", "history", "oci", "--json"]);
    let history = history.exits(0).json();
    assert_eq!(history[0]["created_by"], "banger image export");
    assert_eq!(history[0]["layer"], oci["layers"][0]);
    let table = home.banger(&["image", "history", "oci"]).exits(0).out();
    assert!(table.contains("banger image export"), "{table}");
    // To stdout it is the same bytes, and twice the same.
    let piped = home.banger(&["image", "save", "box"]).exits(0);
    assert!(piped.stdout == fs::read(&file).expect("the archive"));
    let dashed = home.banger(&["image", "export", "box", "-o", "-"]).exits(0);
    assert!(dashed.stdout == piped.stdout);

    let bundle = path(&home.scratch().join("box.tar.zst"));
    home.banger(&["image", "bundle", "box", "-o", &bundle])
        .exits(0);
    let format = ["image", "export", "box", "--format", "bundle"];
    let same = home.banger(&format).exits(0);
    assert!(same.stdout == fs::read(&bundle).expect("the bundle"));
    home.banger(&["image", "delete", "box"]).exits(0);
    let import = ["image", "import", &bundle, "--name", "back", "--json"];
    let back = home.banger(&import).exits(0).json();
    assert_eq!(
        (&back["id"], &back["names"]),
        (&image["id"], &json!(["back"]))
    );
    let left: Vec<_> = fs::read_dir(home.scratch())
        .expect("a directory")
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    home.finish();
}

#[test]
fn what_cannot_be_exported_leaves_what_was_there() {
    let home = Home::bare();
    imported(&home);
    let file = home.scratch().join("kept");
    fs::write(&file, "kept").expect("a file");
    let dir = path(home.scratch());
    for (args, why) in [
        (["nope", "-o", &path(&file)], "no image is called 'nope'"),
        (["box", "-o", &dir], "is a directory"),
        (["box", "-o", "/dev/full"], "No space left on device"),
        (
            ["box", "-o", "/nowhere/at/all"],
            "cannot write '/nowhere/at/all'",
        ),
        (["box", "--format", "zip"], "invalid value 'zip'"),
    ] {
        let run = home.banger(&[&["image", "export"][..], &args].concat());
        assert!(
            run.status != 0 && run.err().contains(why),
            "{why}: {}",
            run.err()
        );
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "kept");
    // Whoever reads no more is no failure of ours that is told at length, and the daemon is none the worse.
    let banger = path(&banger_testkit::binaries().join("banger"));
    let words = format!("{banger} image export box | head -c 10000 | wc -c");
    let head = Running::start(home.shell("sh", &words), b"")
        .finish()
        .exits(0);
    assert_eq!(head.out().trim(), "10000");
    // A bundle that was cut, or that lies, makes no image.
    let bundle = home.banger(&["image", "bundle", "box"]).exits(0).stdout;
    let cut = home.scratch().join("cut.tar.zst");
    fs::write(&cut, &bundle[..bundle.len() / 2]).expect("a file");
    let run = home.banger(&["image", "import", &path(&cut)]).exits(125);
    assert!(run.err().contains("cut short"), "{}", run.err());
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    home.finish();
}

/// An archive on a screen is nothing to look at.
#[test]
fn a_terminal_gets_no_archive() {
    let home = Home::bare();
    imported(&home);
    let banger = path(&banger_testkit::binaries().join("banger"));
    for verb in ["export", "bundle"] {
        // Util-linux's script gives the program a terminal.
        let words = format!("script -qec '{banger} image {verb} box' /dev/null </dev/null");
        let run = Running::start(home.shell("sh", &words), b"").finish();
        let told = run.out();
        assert!(told.contains("stdout is a terminal"), "{verb}: {told}");
        assert!(told.contains("-o FILE"), "{verb}: {told}");
    }
    home.finish();
}
