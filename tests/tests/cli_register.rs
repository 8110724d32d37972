//! Images whose file lies outside (R-IMG-6): registered, refused once it has changed, copied in; no VM is made.

use banger_testkit::{Home, Running};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// An ext4 file outside, as an import of a directory makes it.
fn file_system(home: &Home) -> PathBuf {
    let dir = home.scratch().join("root");
    fs::create_dir_all(dir.join("bin")).expect("a directory");
    fs::write(dir.join("bin/sh"), [7; 100_000]).expect("a file");
    let import = ["image", "import", &text(&dir), "--name", "made", "--json"];
    let made = home.banger(&import).exits(0).json();
    let id = made["id"].as_str().expect("an id");
    let base = home.scratch().join("base.ext4");
    let rootfs = home.state().join("images").join(id).join("rootfs.ext4");
    fs::copy(rootfs, &base).expect("a copy");
    home.banger(&["image", "delete", "made"]).exits(0);
    base
}

fn images(home: &Home) -> Vec<Value> {
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    listed.as_array().expect("a list").clone()
}

#[test]
fn a_registered_file_is_used_where_it_is_and_refused_once_it_changed() {
    let home = Home::bare();
    let base = file_system(&home);
    let register = ["image", "register", "base", &text(&base), "--json"];
    let image = home.banger(&register).exits(0).json();
    assert_eq!(image["external"], text(&base));
    assert!(
        image["disk_usage"].as_u64().expect("bytes") < 50_000,
        "{image}"
    );
    let exported = home.banger(&["image", "export", "base"]).exits(0).stdout;
    assert!(exported.len() > 100_000);
    let taken = home.banger(&["image", "register", "base", &text(&base)]);
    assert!(taken.exits(125).err().contains("already exists"));
    assert_eq!(images(&home).len(), 1);

    // Written to: refused, with the way out, for whatever wants it.
    let kept = base.with_extension("kept");
    fs::copy(&base, &kept).expect("a copy");
    let mut file = fs::OpenOptions::new().append(true).open(&base).expect("it");
    file.write_all(b"x").expect("written");
    for args in [
        &["image", "export", "base"][..],
        &["image", "promote", "base"],
        &["vm", "create", "--image", "base"],
    ] {
        let told = home.banger(args).exits(125).err();
        assert!(
            told.contains("is not the file that was registered any more"),
            "{args:?}: {told}"
        );
        assert!(
            told.contains("banger image register NAME"),
            "{args:?}: {told}"
        );
    }
    // Another file of the same bytes is another file.
    fs::rename(&kept, &base).expect("renamed");
    home.banger(&["image", "export", "base"]).exits(125);
    // Registered anew it is the same image, and used again.
    home.banger(&["image", "register", "base", &text(&base), "--replace"])
        .exits(0);
    home.banger(&["image", "export", "base"]).exits(0);
    home.banger(&["image", "delete", "base"]).exits(0);
    assert!(base.exists(), "the file is its owner's");
    assert_eq!(images(&home).len(), 0);

    // Copied in, it is like any other.
    home.banger(&["image", "register", "base", &text(&base)])
        .exits(0);
    let promoted = home.banger(&["image", "promote", "base", "--json"]);
    let promoted = promoted.exits(0).json();
    assert_eq!(
        (&promoted["id"], &promoted["external"]),
        (&image["id"], &Value::Null)
    );
    let inode = fs::metadata(&base).expect("it").ino();
    fs::remove_file(&base).expect("removed");
    let rootfs = home.state().join("images");
    let rootfs = rootfs
        .join(image["id"].as_str().expect("an id"))
        .join("rootfs.ext4");
    let copy = fs::symlink_metadata(rootfs).expect("the copy");
    assert!(copy.is_file() && copy.ino() != inode);
    assert_eq!(
        home.banger(&["image", "export", "base"]).exits(0).stdout,
        exported
    );
    // Once more it changes nothing.
    home.banger(&["image", "promote", "base"]).exits(0);
    home.finish();
}

#[test]
fn what_is_no_file_system_of_its_own_is_not_registered() {
    let home = Home::bare();
    let base = file_system(&home);
    let at = |name: &str| home.scratch().join(name);
    symlink(&base, at("link")).expect("a link");
    fs::create_dir(at("directory")).expect("a directory");
    let words = format!("mkfifo {}", text(&at("pipe")));
    Running::start(home.shell("sh", &words), b"")
        .finish()
        .exits(0);
    fs::write(at("text"), "no file system").expect("a file");
    let whole = fs::read(&base).expect("it");
    fs::write(at("cut"), &whole[..whole.len() / 2]).expect("a file");
    for (path, why) in [
        (at("link"), "is no regular file (a symlink is not followed)"),
        (at("directory"), "is no regular file"),
        (at("pipe"), "is no regular file"),
        (PathBuf::from("/dev/null"), "is no regular file"),
        (at("text"), "cannot read"),
        (at("cut"), "cut short"),
        (at("nowhere"), "No such file"),
    ] {
        let run = home.banger(&["image", "register", "x", &text(&path)]);
        let told = run.exits(125).err();
        assert!(told.contains(why), "{}: {told}", path.display());
    }
    let told = home.banger(&["image", "register", "No", &text(&base)]);
    assert!(told.exits(125).err().contains("cannot name an image"));
    assert_eq!(images(&home).len(), 0);
    let left = fs::read_dir(home.state().join("images")).expect("the images");
    let left: Vec<_> = left
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    assert_eq!(left, [""; 0]);
    home.finish();
}

/// The file that is registered anew is the one it has; bytes that are imported are its own, whatever becomes of the file.
#[test]
fn a_registered_image_follows_its_file_and_keeps_what_is_imported() {
    let home = Home::bare();
    let base = file_system(&home);
    home.banger(&["image", "register", "base", &text(&base)])
        .exits(0);
    let export = |name: &str| home.banger(&["image", "export", name]);
    let exported = export("base").exits(0).stdout;
    let moved = base.with_extension("moved");
    fs::rename(&base, &moved).expect("renamed");
    export("base").exits(125);
    let again = ["image", "register", "base", &text(&moved), "--replace"];
    home.banger(&again).exits(0);
    assert_eq!(export("base").exits(0).stdout, exported);

    let import = ["image", "import", &text(&moved), "--name", "own", "--json"];
    let own = home.banger(&import).exits(0).json();
    assert_eq!(own["external"], Value::Null);
    fs::remove_file(&moved).expect("removed");
    for name in ["base", "own"] {
        assert_eq!(export(name).exits(0).stdout.len(), exported.len(), "{name}");
    }

    // Ended between putting a file of its own in the place of the link and saying so: the file itself tells.
    let id = own["id"].as_str().expect("an id");
    let manifest = home.state().join("images").join(id).join("manifest.json");
    let mut told: Value =
        serde_json::from_slice(&fs::read(&manifest).expect("it")).expect("a manifest");
    told["external"] = serde_json::json!({
        "path": text(&moved), "device": 1, "inode": 2, "size": 3, "mtime": [4, 5],
    });
    home.banger(&["daemon", "stop"]).exits(0);
    fs::write(&manifest, told.to_string()).expect("written");
    assert_eq!(export("own").exits(0).stdout.len(), exported.len());
    home.finish();
}
