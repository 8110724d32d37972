//! Images that nobody uses (R-IMG-5); no VM is made.

use banger_testkit::Home;
use serde_json::json;
use std::{fs, path::Path};

/// A directory with one file in it.
fn directory(home: &Home, name: &str) -> String {
    let dir = home.state().with_file_name(name);
    fs::create_dir_all(dir.join("bin")).expect("a directory");
    fs::write(dir.join("bin/sh"), name).expect("a file");
    path(&dir)
}

fn path(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn images_without_a_name_go_and_others_when_asked() {
    let home = Home::bare();
    let (one, two) = (directory(&home, "one"), directory(&home, "two"));
    let import = |from: &str| {
        let args = [
            "image",
            "import",
            from,
            "--name",
            "app",
            "--replace",
            "--json",
        ];
        let made = home.banger(&args).exits(0).json();
        made["id"].as_str().expect("an id").to_owned()
    };
    let (older, newer) = (import(&one), import(&two));
    let prune = |args: &[&str]| {
        let all = [&["image", "prune", "--json"], args].concat();
        let pruned = home.banger(&all).exits(0).json();
        let ids = pruned["images"].as_array().expect("images").iter();
        ids.map(|i| i["id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    let listed = || {
        let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
        let ids = listed.as_array().expect("images").iter();
        ids.map(|i| i["id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };

    assert_eq!(prune(&["--dry-run"]), std::slice::from_ref(&older));
    let mut both = prune(&["--dry-run", "--all"]);
    both.sort();
    let mut wanted = [older.clone(), newer.clone()];
    wanted.sort();
    assert_eq!(both, wanted);
    let asked = home.banger(&["image", "prune"]).exits(125);
    assert!(
        asked.err().contains("banger image prune --force"),
        "{}",
        asked.err()
    );
    assert_eq!(listed().len(), 2, "so far nothing went");

    assert_eq!(prune(&["--force"]), [older]);
    assert_eq!(listed(), std::slice::from_ref(&newer));
    assert_eq!(prune(&["--force"]), [""; 0]);
    let told = home.banger(&["image", "prune", "-af"]).exits(0).out();
    assert!(told.contains(&newer) && told.contains("freed "), "{told}");
    assert_eq!(
        home.banger(&["image", "list", "--json"]).exits(0).json(),
        json!([])
    );
    home.finish();
}

/// R-IMG-4: what an archive may be is set in the configuration, and who is refused for it is told by which key.
#[test]
fn limits_of_archives_are_configured() {
    let home = Home::bare();
    let import = |from: &str| home.banger(&["image", "import", from, "--name", "app", "--replace"]);
    let source = directory(&home, "one");
    fs::write(home.config(), "[images]\nmax_entries = 1\n").expect("config");
    let refused = import(&source).exits(125).err();
    assert!(
        refused.contains("one entry more than 1 (images.max_entries)") && refused.contains("bin"),
        "{refused}"
    );
    home.banger(&["daemon", "stop"]).exits(0);
    fs::write(home.config(), "[images]\nmax_entries = 0\n").expect("config");
    let unread = import(&source).exits(125).err();
    assert!(
        unread.contains("images.max_entries is a whole number of 1 to"),
        "{unread}"
    );
    fs::write(
        home.config(),
        "[images]\nmax_entries = 20\nmax_size = \"16M\"\n",
    )
    .expect("config");
    import(&source).exits(0);
    let large = path(&home.state().with_file_name("one/large"));
    fs::write(&large, vec![7; 17 << 20]).expect("a file");
    let refused = import(&source).exits(125).err();
    assert!(refused.contains("(images.max_size)"), "{refused}");
    home.finish();
}
