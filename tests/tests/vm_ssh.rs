//! The user's own `ssh` to VMs whose image has no sshd (R-NET-3, R-GUEST-5, R-CLI-2, R-CLI-6).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, OnTerminal, Run, Running, skip};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// A home of banger, and one of a user, with `ssh` configured.
struct Site {
    home: Home,
    user: PathBuf,
}

impl Site {
    /// `None`, counted as skipped, where there is no `ssh`.
    fn new() -> Option<Self> {
        if Command::new("ssh").arg("-V").output().is_err() {
            skip("no ssh here: apt install openssh-client");
            return None;
        }
        let home = Home::new();
        let user = home.scratch().join("user");
        fs::create_dir(&user).expect("a user's home");
        // `ssh` finds a home by uid and not by HOME, so that its configuration is named.
        let config = home.banger(&["ssh-config"]).exits(0).stdout;
        fs::write(user.join("config"), config).expect("a configuration");
        Some(Site { home, user })
    }

    fn ssh(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.user.join("config"));
        command.args(["-o", "ConnectTimeout=60"]).args(args);
        Running::start(command, input).finish()
    }

    fn pins(&self) -> String {
        fs::read_to_string(self.home.state().join("ssh/known_hosts")).unwrap_or_default()
    }
}

#[test]
fn any_image_is_reached_by_ssh() {
    let Some(site) = Site::new() else { return };
    let home = &site.home;
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let run = site.ssh(
        &["dev.vm", "echo out; echo err >&2; id -un; pwd; exit 42"],
        b"",
    );
    let run = run.exits(42);
    assert_eq!(
        (run.out().as_str(), run.err().contains("err\n")),
        ("out\nroot\n/root", true)
    );
    // Every byte both ways.
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8)
        .collect();
    let back = site.ssh(&["dev.vm", "cat"], &bytes).exits(0);
    assert!(back.stdout == bytes, "other bytes came back");
    // Variables, signals, what is not there.
    let env = site.ssh(
        &[
            "-o",
            "SetEnv=WORD=a-b",
            "dev.vm",
            "echo \"$WORD\"; kill -TERM $$",
        ],
        b"",
    );
    assert_eq!(env.out(), "a-b", "{}", env.err());
    assert_ne!(env.status, 0);
    let none = site.ssh(&["dev.vm", "no-such-program"], b"").exits(127);
    assert!(none.err().contains("no-such-program"), "{}", none.err());
    let nobody = site.ssh(&["nobody-there@dev.vm", "true"], b"").exits(126);
    assert!(nobody.err().contains("nobody-there"), "{}", nobody.err());
    assert_eq!(
        site.ssh(&["daemon@dev.vm", "true"], b"").status,
        1,
        "its shell is nologin"
    );
    // The verb does the same, with options of its own.
    let verb = home
        .banger(&["vm", "ssh", "dev", "--", "echo", "verb"])
        .exits(0);
    assert_eq!(verb.out(), "verb");
    // Connections: two copies of one service, by address and by name.
    let serve = "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(7001, INADDR_ANY)); \
        listen(S, 5); $| = 1; print \"up\\n\"; while (accept(C, S)) { syswrite C, \"served\\n\"; close C }'";
    home.guest_sh("dev", &format!("setsid {serve} </dev/null >/root/up 2>&1 & while ! [ -s /root/up ]; do sleep 0.05; done"))
        .exits(0);
    for target in ["localhost:7001", "127.0.0.1:7001", "dev:7001"] {
        let served = site.ssh(&["-W", target, "dev.vm"], b"").exits(0);
        assert_eq!(served.out(), "served", "{target}");
    }
    let refused = site.ssh(&["-W", "localhost:7002", "dev.vm"], b"");
    assert_ne!(refused.status, 0);
    assert!(
        refused.err().contains("Connection refused"),
        "{}",
        refused.err()
    );
    // The user's key waits for an sshd that may be installed; all else that only an sshd wants is not made.
    let left = home.guest_sh("dev", "ls /root/.ssh; ls -d /etc/ssh/*sshd* /run/sshd");
    assert_eq!(left.out(), "authorized_keys");
    // An image without an sftp-server says no and does not hang.
    let sftp = site.ssh(&["-s", "dev.vm", "sftp"], b"");
    assert_ne!(sftp.status, 0);
    site.home.finish();
}

#[test]
fn a_shell_over_ssh_is_a_terminal() {
    let Some(site) = Site::new() else { return };
    let home = &site.home;
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let mut shell = OnTerminal::start(home, &["vm", "ssh", "dev"]);
    shell.types("PS1='ready> '; stty size; tty; echo $TERM\r");
    shell.looks("has the size of ours", |s| s.contains("\n24 80\n/dev/pts/"));
    shell.resize(30, 100);
    shell.types("stty size\r");
    shell.looks("has the new size", |s| s.contains("\n30 100\n"));
    // Said by the program itself: between two of its own a shell may miss a ^C.
    shell.types("sh -c 'echo begun; exec sleep 1000'\r");
    shell.looks("waits", |s| s.ends_with("\nbegun"));
    shell.types("\x03");
    shell.looks("is the shell's again", |s| s.ends_with("ready>"));
    shell.types("exit 3\r");
    shell.exits(3);
    site.home.finish();
}

#[test]
fn hosts_are_pinned_and_pins_go_with_their_vm() {
    let Some(site) = Site::new() else { return };
    let home = &site.home;
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    // Nothing is pinned before a VM is reached, and then it is strict: the pin is there in time.
    assert_eq!(site.pins(), "");
    site.ssh(&["dev.vm", "true"], b"").exits(0);
    let first = site.pins();
    assert!(
        first.contains("dev.vm,") && first.contains("ssh-ed25519 AAAA"),
        "{first}"
    );
    home.kill_daemon();
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let down = site.ssh(&["dev.vm", "true"], b"").exits(255);
    assert!(
        down.err().contains("VM 'dev' is not running"),
        "{}",
        down.err()
    );
    home.banger(&["vm", "start", "dev"]).exits(0);
    site.ssh(&["dev.vm", "true"], b"").exits(0);
    assert_eq!(site.pins(), first, "the key stays");
    // Another key than the pinned one is refused: here the configuration has pinned another.
    let other = site.user.join("other");
    let wrong =
        "dev.vm ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4oGoR3uD2c1tZk0s1xJwzqg9yOaWmCqDqg7xgk3X2B\n";
    fs::write(&other, wrong).expect("a pin");
    let option = format!("UserKnownHostsFile={}", other.display());
    let refused = site.ssh(&["-o", &option, "dev.vm", "true"], b"").exits(255);
    assert!(
        refused.err().contains("HOST IDENTIFICATION HAS CHANGED"),
        "{}",
        refused.err()
    );
    // No pins, no way in.
    let none = site.ssh(
        &["-o", "UserKnownHostsFile=/dev/null", "dev.vm", "true"],
        b"",
    );
    assert_eq!(none.status, 255);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    assert!(!site.pins().contains("dev.vm"), "{}", site.pins());
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    site.ssh(&["dev.vm", "true"], b"").exits(0);
    assert!(
        site.pins().contains("dev.vm,") && site.pins() != first,
        "{}",
        site.pins()
    );
    site.home.finish();
}

#[test]
fn the_users_configuration_is_left_as_it_was() {
    let Some(mut site) = Site::new() else {
        return;
    };
    site.home.set_env("HOME", site.user.to_str());
    let config = site.user.join(".ssh/config");
    let read = |path: &Path| fs::read_to_string(path).expect("a configuration");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    // None there: made, for its user alone.
    site.home.banger(&["ssh-config", "--install"]).exits(0);
    assert_eq!(
        (mode(&config), mode(&site.user.join(".ssh"))),
        (0o600, 0o700)
    );
    site.home.banger(&["ssh-config", "--uninstall"]).exits(0);
    assert_eq!(read(&config), "");
    // One there, elsewhere, behind a link, with a mode of its own.
    fs::remove_file(&config).expect("a clean start");
    let dotfiles = site.user.join("dotfiles");
    fs::write(&dotfiles, "Host mine\n    User me").expect("a configuration");
    fs::set_permissions(&dotfiles, Permissions::from_mode(0o640)).expect("a mode");
    symlink(&dotfiles, &config).expect("a link");
    for _ in 0..2 {
        site.home.banger(&["ssh-config", "--install"]).exits(0);
        let text = read(&dotfiles);
        assert!(text.ends_with("Host mine\n    User me"), "{text}");
        assert_eq!(text.matches("Include").count(), 1, "{text}");
    }
    assert!(config.is_symlink() && mode(&dotfiles) == 0o640);
    // `ssh` understands what was installed.
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&config).args(["-G", "dev.vm"]);
    let told = Running::start(command, b"").finish().exits(0).out();
    assert!(
        told.contains("internal connect") && told.contains("user root"),
        "{told}"
    );
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&config).args(["-G", "mine"]);
    let told = Running::start(command, b"").finish().exits(0).out();
    assert!(
        told.contains("user me") && !told.contains("internal connect"),
        "{told}"
    );
    site.home.banger(&["ssh-config", "--uninstall"]).exits(0);
    assert_eq!(read(&dotfiles), "Host mine\n    User me");
    site.home.finish();
}
