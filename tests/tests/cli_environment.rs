//! What a daemon that the command line starts has of its caller's environment (R-PROG-5).

use banger_testkit::Home;
use banger_wire::environment::INHERITED;
use std::{collections::BTreeSet, fs};

#[test]
fn the_daemon_is_given_the_variables_of_the_list_and_no_other() {
    let mut home = Home::bare();
    // Those that decide where this home is, or who dies in it, are set already or not to be.
    let free = INHERITED
        .into_iter()
        .filter(|name| !name.starts_with("BANGER_") && !matches!(*name, "PATH" | "HOME"));
    for name in free.chain(["GIT_DIR", "LD_LIBRARY_PATH", "TMPDIR", "LANG"]) {
        home.set_env(name, Some("/nowhere"));
    }
    home.banger(&["vm", "list"]).exits(0);
    let pid = home.daemon_pid().expect("a daemon");
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let has: BTreeSet<String> = environ
        .split(|byte| *byte == 0)
        .filter_map(|line| {
            String::from_utf8_lossy(line)
                .split_once('=')
                .map(|(k, _)| k.to_owned())
        })
        .collect();
    let crash_points = ["BANGER_CRASH_AT", "BANGER_EFFECT_LOG"];
    let wanted: BTreeSet<String> = INHERITED
        .into_iter()
        .filter(|name| !crash_points.contains(name))
        .map(str::to_owned)
        .collect();
    assert_eq!(has, wanted);
    home.finish();
}
