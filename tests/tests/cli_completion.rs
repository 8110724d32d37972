//! Completion in a shell, and the man pages: what a person gets who presses the key (R-CLI-6).

use banger_testkit::{Home, Running};
use std::{
    fs,
    os::unix::{fs::DirBuilderExt, net::UnixListener},
};

/// The candidates that bash offers for the last of these words; flags only where one was begun.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let last = words.len() - 1;
    let script = format!(
        "source <(banger completion bash) && COMP_WORDS=({}) COMP_CWORD={last} COMP_TYPE=9 && \
         _clap_complete_banger banger '{}' '{}' && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|w| format!("'{w}' ")).collect::<String>(),
        words[last],
        words[last - 1],
    );
    let run = Running::start(home.shell("bash", &script), b"")
        .finish()
        .exits(0);
    let flags = words[last].starts_with('-');
    let out = run.out();
    out.lines()
        .filter(|l| !l.is_empty() && (flags || !l.starts_with('-')))
        .map(str::to_owned)
        .collect()
}

fn describe(home: &Home, id: &str, name: &str) {
    let dir = home.state().join("vms").join(id);
    fs::create_dir_all(&dir).expect("a directory");
    let text =
        format!(r#"{{"id":"{id}","name":"{name}","spec":{{"image":"debian"}},"goal":"stopped"}}"#);
    fs::write(dir.join("vm.json"), text).expect("vm.json");
}

/// Without a daemon names are read where they lie, and none is started for it.
#[test]
fn bash_offers_verbs_flags_and_names_without_a_daemon() {
    let home = Home::bare();
    assert_eq!(
        offered(&home, &["banger", "vm", "st"]),
        ["start", "stop", "stats"]
    );
    assert_eq!(
        offered(&home, &["banger", "vm", "wait", "--for", "h"]),
        ["healthy"]
    );
    assert!(offered(&home, &["banger", "vm", "create", "--v"]).contains(&"--vcpu".to_owned()));
    assert!(
        offered(&home, &["banger", "vm", "start", ""]).is_empty(),
        "nothing there"
    );

    describe(&home, "00ab12cd34ef", "dev");
    describe(&home, "00ab99cd34ef", "web-1");
    describe(&home, "11ab99cd34ef", "web-2");
    fs::write(home.state().join("vms/11ab99cd34ef/deleted"), "").expect("a tombstone");
    fs::create_dir_all(home.state().join("vms/.trash-22ab99cd34ef")).expect("a directory");
    let image = home.state().join("images/0123456789abcdef");
    fs::create_dir_all(&image).expect("a directory");
    let manifest = r#"{"id":"0123456789abcdef","name":"debian","names":{"debian":1,"deb12":2}}"#;
    fs::write(image.join("manifest.json"), manifest).expect("manifest.json");

    assert_eq!(offered(&home, &["banger", "vm", "start", "d"]), ["dev"]);
    assert_eq!(
        offered(&home, &["banger", "vm", "stop", "dev", "w"]),
        ["web-1"]
    );
    assert_eq!(
        offered(&home, &["banger", "vm", "show", "00ab9"]),
        ["00ab99cd34ef"]
    );
    assert_eq!(offered(&home, &["banger", "vm", "cp", "web"]), ["web-1:"]);
    assert_eq!(
        offered(&home, &["banger", "run", "--image", "deb"]),
        ["deb12", "debian"]
    );
    assert_eq!(
        offered(&home, &["banger", "image", "show", "0123"]),
        ["0123456789abcdef"]
    );
    assert_eq!(home.daemons(), Vec::<u32>::new(), "none was started");
    assert!(!home.state().join("state.db").exists());
}

/// A daemon that takes its time is not waited for: the person is.
#[test]
fn a_silent_daemon_holds_up_no_completion() {
    let home = Home::bare();
    let mut dir = fs::DirBuilder::new();
    dir.mode(0o700)
        .create(home.runtime())
        .expect("the runtime directory");
    let socket = home.runtime().join("bangerd.sock");
    let _silent = UnixListener::bind(socket).expect("a socket");
    describe(&home, "00ab12cd34ef", "dev");
    let began = std::time::Instant::now();
    assert_eq!(offered(&home, &["banger", "vm", "start", ""]), ["dev"]);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// The other shells' scripts name the program and ask it the same way.
#[test]
fn zsh_and_fish_have_their_scripts() {
    let home = Home::bare();
    let zsh = home.banger(&["completion", "zsh"]).exits(0).out();
    assert!(
        zsh.starts_with("#compdef banger") && zsh.contains("_BANGER_COMPLETE=\"zsh\""),
        "{zsh}"
    );
    let fish = home.banger(&["completion", "fish"]).exits(0).out();
    assert!(
        fish.contains("complete") && fish.contains("_BANGER_COMPLETE=fish"),
        "{fish}"
    );
    home.banger(&["completion", "tcsh"]).exits(2);
    assert_eq!(home.daemons(), Vec::<u32>::new());
}

/// Every verb has its page, with the examples as they are typed.
#[test]
fn man_pages_are_made_of_the_help() {
    let home = Home::bare();
    let dir = home.scratch().join("man1");
    let place = dir.to_str().expect("UTF-8");
    home.banger(&["internal", "man", place]).exits(0);
    let page = fs::read_to_string(dir.join("banger-vm-wait.1")).expect("its page");
    assert!(
        page.contains("\\-\\-timeout") && page.contains("until it is stopped"),
        "{page}"
    );
    let pages = fs::read_dir(&dir).expect("pages").count();
    assert!(pages > 30, "{pages}");
    assert!(!dir.join("banger-internal.1").exists());
}

/// Nothing is coloured where that is not wanted (NO_COLOR), or nobody sees it.
#[test]
fn colour_is_for_terminals_that_want_it() {
    let mut home = Home::bare();
    home.set_env("TERM", Some("xterm"));
    let shown = |home: &Home| {
        let mut person = banger_testkit::OnTerminal::start(home, &["vm", "create", "--nope"]);
        person.exits(2);
        person.shows("--help");
        person.written()
    };
    assert!(shown(&home).contains("\x1b["), "a terminal has it");
    home.set_env("NO_COLOR", Some("1"));
    assert!(!shown(&home).contains("\x1b["), "{:?}", shown(&home));
    let piped = home.banger(&["vm", "create", "--nope"]).exits(2);
    assert!(!piped.err().contains('\x1b'));
}
