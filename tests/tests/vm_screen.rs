//! A session as a person sees it: a shell, an editor, resizes, job control and a paste, on the screen of a terminal
//! emulator (R-CLI-1, R-GUEST-2).

use banger_testkit::{Home, OnTerminal, Running};
use std::{fmt::Write, fs, time::Duration};

/// Static, so that it runs in whatever image; Debian's package `busybox-static` has it.
const BUSYBOX: &str = "/bin/busybox";

#[test]
fn a_shell_an_editor_and_a_paste_on_a_terminal() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let busybox = fs::read(BUSYBOX).expect("busybox-static");
    let put = "cat >/usr/local/bin/busybox && chmod 755 /usr/local/bin/busybox";
    home.banger_with(&["vm", "exec", "dev", "--", "sh", "-c", put], &busybox)
        .exits(0);

    let mut shell = OnTerminal::start(
        &home,
        &["vm", "exec", "-e", "PS1=ready> ", "dev", "--", "sh"],
    );
    shell.looks("shows the prompt", |s| s.ends_with("ready>"));
    shell.types("stty size\r");
    shell.looks("has the size of ours", |s| s.contains("\n24 80\n"));
    shell.resize(30, 100);
    shell.types("stty size\r");
    shell.looks("has the new size", |s| s.contains("\n30 100\n"));

    shell.types("busybox vi /root/note\r");
    shell.looks("is an editor's", |s| {
        s.contains("\n~\n~\n") && !s.contains("ready>")
    });
    shell.types("ifirst line\rsecond\x1b");
    shell.looks("shows what was typed", |s| {
        s.starts_with("first line\nsecond\n~")
    });
    // The editor draws anew for the size it is told.
    let rows = |s: &str| s.lines().filter(|l| *l == "~").count();
    let before = rows(&shell.screen());
    shell.resize(20, 100);
    shell.types("\x0c");
    shell.looks("has ten lines less", |s| rows(s) + 10 == before);
    shell.types(":wq\r");
    shell.looks("is the shell's again", |s| s.ends_with("ready>"));
    let note = home.guest_sh("dev", "cat /root/note").exits(0);
    assert_eq!(note.out(), "first line\nsecond");

    shell.types("sh -c 'echo up; exec sleep 1000'\r");
    shell.looks("tells that the job is up", |s| s.ends_with("\nup"));
    shell.types("\x1a");
    shell.looks("tells of the stopped job", |s| s.contains("Stopped"));
    shell.types("kill -9 %1; wait; clear\r");
    // The daemon goes, and the person at the terminal does not notice.
    home.kill_daemon();
    shell.types("echo still-$((40+2))\r");
    shell.looks("shows the answer", |s| s.contains("still-42\n"));

    let mut paste = String::new();
    for line in 0..10_000 {
        let _ = writeln!(paste, "{line:0>99}");
    }
    shell.types("stty -echo; echo reading; cat >/root/paste; stty echo; echo pasted\r");
    shell.shows("\r\nreading\r\n");
    shell.types(&paste.replace('\n', "\r"));
    shell.types("\x04");
    shell.shows("\r\npasted\r\n");
    let pasted = home.guest_sh("dev", "cat /root/paste").exits(0);
    assert!(
        pasted.stdout == paste.as_bytes(),
        "{} bytes",
        pasted.stdout.len()
    );

    shell.types("\x04");
    shell.exits(0);
    home.finish();
}

/// R-OPS-2: `vm stats` is a live view on a terminal that leaves the screen as it was, and one look elsewhere.
#[test]
fn stats_are_a_live_view_on_a_terminal() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let once = home.banger(&["vm", "stats"]).exits(0).out();
    assert!(
        once.starts_with("NAME") && once.contains("VMM MEMORY") && once.contains("\ndev "),
        "{once}"
    );

    let mut top = OnTerminal::start(&home, &["vm", "stats", "--interval", "1s"]);
    top.looks("shows the VM", |s| {
        s.starts_with("1 running, every 1 s; q quits\nNAME") && s.contains("\ndev ")
    });
    let width = |s: &str| s.lines().map(str::len).max().unwrap_or(0);
    assert!(width(&top.screen()) <= 80, "{}", top.screen());
    assert!(!top.screen().contains("SWAP"), "{}", top.screen());
    top.resize(24, 200);
    top.looks("has room for all", |s| s.contains("SWAP"));
    home.banger(&["vm", "create", "--name", "web"]).exits(0);
    top.looks("shows the new one", |s| {
        s.starts_with("2 running") && s.contains("\nweb ")
    });
    home.kill_daemon();
    home.banger(&["vm", "delete", "--force", "web"]).exits(0);
    top.looks("shows it no more", |s| {
        s.starts_with("1 running") && !s.contains("\nweb ")
    });
    top.types("q");
    top.exits(0);
    assert_eq!(top.screen(), "", "the screen is as it was");
    assert!(
        top.written().ends_with("\x1b[?25h\x1b[?1049l"),
        "{:?}",
        top.written()
    );

    let mut top = OnTerminal::start(&home, &["vm", "stats", "dev", "dev"]);
    top.looks("shows the VM", |s| s.starts_with("1 running"));
    top.types("\x03");
    top.exits(0);
    let mut look = OnTerminal::start(&home, &["vm", "stats", "dev", "--no-stream"]);
    look.exits(0);
    assert!(!look.written().contains('\x1b'), "{:?}", look.written());
    home.finish();
}

/// For programs: a line of JSON for each look, until they have enough.
#[test]
fn stats_are_lines_of_json_for_programs() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let words = "banger vm stats --json --interval 1s | head -n 3";
    let reader = home.shell("sh", words);
    let read = Running::start(reader, b"").finish_within(Duration::from_secs(30));
    let read = read.exits(0);
    let looks: Vec<serde_json::Value> = read
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(looks.len(), 3, "{}", read.out());
    for look in &looks {
        assert_eq!(look["name"], "dev");
        assert!(look["interval_ms"].as_u64() >= Some(1000), "{look}");
    }
    home.finish();
}
