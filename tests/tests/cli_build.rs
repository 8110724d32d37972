//! Images of a distribution's packages (R-IMG-1).

use banger_testkit::{Home, Running, skip};
use serde_json::{Value, json};

/// Everything that cannot be is refused before anything is fetched.
#[test]
fn what_cannot_be_built_is_refused_and_leaves_nothing() {
    let home = Home::bare();
    let refused = |args: &[&str], what: &str, hint: &str| {
        let run = home
            .banger(&[&["image", "build"], args].concat())
            .exits(125);
        assert!(
            run.err().contains(what) && run.err().contains(hint),
            "{args:?}: {}",
            run.err()
        );
    };
    let base = "hint: debian, or debian:SUITE";
    refused(
        &["--name", "x", "--from", "alpine"],
        "no image is built from 'alpine'",
        base,
    );
    refused(
        &["--name", "x", "--from", "debian:-o"],
        "no image is built from",
        base,
    );
    for package in ["a,b", "-y", "hello=1"] {
        let package = format!("--package={package}");
        refused(
            &["--name", "x", &package],
            "cannot be a package",
            "hint: a name",
        );
    }
    refused(&["--name", "Bad"], "cannot name an image", "");
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    assert_eq!(listed, json!([]));
    home.finish();
}

/// The packages are in it, and the name is taken.
#[test]
fn an_image_has_the_packages_that_were_named() {
    let home = Home::bare();
    let build = ["image", "build", "--name", "tools", "--package", "hello"];
    let run = home.banger(&[&build[..], &["--json"]].concat());
    if run.err().contains("without root takes") {
        skip(&run.err());
        return home.finish();
    }
    let built: Value = run.exits(0).json();
    assert_eq!(built["names"], json!(["tools"]));
    let source = built["source"].as_str().expect("a source");
    assert!(source.ends_with(", with hello"), "{source}");
    let again = home.banger(&build).exits(125);
    assert!(again.err().contains("--replace"), "{}", again.err());
    let rootfs = home
        .state()
        .join("images")
        .join(built["id"].as_str().expect("an id"))
        .join("rootfs.ext4");
    let words = format!(
        "debugfs -R 'stat /usr/bin/hello' '{}' 2>&1",
        rootfs.display()
    );
    let told = Running::start(home.shell("sh", &words), b"")
        .finish()
        .exits(0)
        .out();
    assert!(told.contains("Type: regular"), "{told}");
    home.finish();
}
