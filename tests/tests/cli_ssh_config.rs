//! `ssh-config --install` where it cannot do its work: it says the way out, and has written nothing.

use banger_testkit::Home;
use std::{fs, os::unix::fs::symlink};

#[test]
fn nothing_is_written_where_not_all_can_be() {
    let mut home = Home::bare();
    let ours = home.config().with_file_name("ssh_config");
    let user = home.scratch().join("user");
    fs::create_dir_all(user.join(".ssh")).expect("a home");
    symlink("/no/such/file", user.join(".ssh/config")).expect("a link");
    let user = user.display().to_string();
    for (set, why) in [("", "HOME is not set"), (user.as_str(), "cannot find")] {
        home.set_env("HOME", Some(set));
        let refused = home.banger(&["ssh-config", "--install"]).exits(125).err();
        assert!(
            refused.contains(why) && refused.contains("\nhint: "),
            "{refused}"
        );
        assert!(!ours.exists(), "it wrote {}", ours.display());
    }
    home.finish();
}
