//! A session as a person sees it: a shell, an editor, resizes, job control and a paste, on the screen of a terminal
//! emulator (R-CLI-1, R-GUEST-2).

use banger_testkit::{Home, OnTerminal};
use std::{fmt::Write, fs};

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
