//! Kill anything at any moment: the next command finds a consistent world (R-PROG-2, R-PROG-5,
//! R-HOST-8).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "impostors are real programs"
)]

use banger_testkit::{Home, Running, Signal, signal, wait_until};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use std::{
    fs,
    os::fd::OwnedFd,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// R-PROG-2: the VM runs on, and the next command finds it.
#[test]
fn vms_outlive_the_daemon() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "cat /proc/sys/kernel/random/boot_id >/root/boot")
        .exits(0);
    for _ in 0..3 {
        home.kill_daemon();
        assert_eq!(home.show("dev")["state"], "running");
        let same = "cmp /root/boot /proc/sys/kernel/random/boot_id && echo same";
        assert_eq!(home.guest_sh("dev", same).exits(0).out(), "same");
    }
    home.kill_daemon();
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// R-PROG-2, R-STATE-11: a VMM that died with no daemon watching is a stopped VM with a reason.
#[test]
fn a_vmm_killed_behind_the_daemons_back_is_a_stopped_vm() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let vmm = vmm_pid(&home);
    home.kill_daemon();
    signal(vmm, Signal::KILL);
    stopped_because_its_vmm_ended(&home);
    home.banger(&["vm", "start", "dev"]).exits(0);
    signal(vmm_pid(&home), Signal::KILL);
    stopped_because_its_vmm_ended(&home);
    home.finish();
}

/// R-HOST-8: a configured QEMU may be a script that ends in `exec`; its VMM is found, ended and removed like any other.
#[test]
fn a_vmm_behind_a_wrapper_script_is_found() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let qemu = fs::read_link(format!("/proc/{}/exe", vmm_pid(&home))).expect("its program");
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    let script = home.state().with_file_name("qemu.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\nexec {} \"$@\"\n", qemu.display()),
    )
    .expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::write(
        home.config(),
        format!("qemu_bin = {:?}\n", script.display().to_string()),
    )
    .expect("config");
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.kill_daemon();
    assert_eq!(home.show("dev")["state"], "running");
    // Who listens cannot be asked while others wait to be heard; it lives all the same.
    let waiting = waiting(&home);
    for _ in 0..3 {
        assert_eq!(home.show("dev")["state"], "running");
    }
    drop(waiting);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// Connections to the VMM's control socket: one that it hears, and as many as may wait.
fn waiting(home: &Home) -> Vec<OwnedFd> {
    let shown = home.show("dev");
    let path = shown["runtime"]["api_socket"].as_str().expect("a path");
    let to = SocketAddrUnix::new(path).expect("a path");
    let mut waiting = Vec::new();
    wait_until("nobody more to be let in", Duration::from_secs(10), || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let one = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let one = one.expect("a socket");
        match connect(&one, &to) {
            Ok(()) => waiting.push(one),
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => panic!("{error}"),
        }
        Err(format!("{} were", waiting.len()))
    });
    waiting
}

fn stopped_because_its_vmm_ended(home: &Home) {
    let what = "the VM to be seen stopped, because its VMM ended";
    wait_until(what, Duration::from_secs(10), || {
        let shown = home.show("dev");
        let seen = (shown["state"].as_str(), shown["reason"]["kind"].as_str());
        if seen == (Some("stopped"), Some("vmm-exited")) {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
}

/// R-PROG-5: ten first commands at once start one daemon; all ten are answered.
#[test]
fn ten_first_commands_start_one_daemon() {
    let home = Home::bare();
    let first: Vec<Running> = (0..10)
        .map(|_| home.start(&["vm", "list", "--json"], b""))
        .collect();
    for command in first {
        assert_eq!(command.finish().exits(0).out(), "[]");
    }
    wait_until("one daemon", Duration::from_secs(10), || {
        match home.daemons().len() {
            1 => Ok(()),
            n => Err(format!("{n} daemons")),
        }
    });
    home.finish();
}

/// R-PROG-5: the daemon takes nothing from its caller.
#[test]
fn a_cold_daemon_holds_nothing_of_its_caller() {
    let home = Home::bare();
    let mut command = home.command(&["vm", "list"]);
    command
        .env("GIT_DIR", "/nowhere")
        .current_dir(home.scratch());
    // `Running` reads the pipes to their end: a daemon that kept one open would hold this up.
    Running::start(command, b"").finish().exits(0);
    let pid = home.daemon_pid().expect("a daemon");
    let of = |name: &str| format!("/proc/{pid}/{name}");
    assert_eq!(
        fs::read_link(of("cwd")).expect("cwd"),
        std::path::Path::new("/")
    );
    let environ = fs::read_to_string(of("environ")).expect("environ");
    assert!(!environ.contains("GIT_DIR"), "{environ:?}");
    let status = fs::read_to_string(of("status")).expect("status");
    assert!(status.lines().any(|l| l == "Umask:\t0077"), "{status}");
    for fd in fs::read_dir(of("fd")).expect("descriptors").flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        assert!(
            !target.to_string_lossy().starts_with("pipe:")
                || !fd
                    .file_name()
                    .to_string_lossy()
                    .parse::<u32>()
                    .is_ok_and(|n| n < 3),
            "stdio is a pipe: {target:?}"
        );
    }
    home.finish();
}

/// R-HOST-8: who merely holds or names the control socket is never taken for the VMM.
#[test]
fn impostors_survive_every_teardown() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let shown = home.show("dev");
    let socket = shown["runtime"]["api_socket"]
        .as_str()
        .expect("a control socket")
        .to_owned();
    let label = format!(
        "banger1/{}/{}/vmm",
        home.instance().expect("an instance"),
        shown["id"].as_str().expect("an id")
    );
    let mut impostors = vec![
        (
            "a grep with the socket's path",
            sleeping("grep", &["-e", &socket, "-"]),
        ),
        (
            "an editor with the socket's path",
            sleeping("sh", &["-c", "read x", "vim", &socket]),
        ),
        (
            "a program with the VMM's label inside an argument",
            sleeping("sh", &["-c", "read x", &format!("x{label}")]),
        ),
    ];
    let connected = UnixStream::connect(&socket);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    home.banger(&["vm", "kill", "dev"]).exits(0);
    home.banger(&["vm", "delete", "dev"]).exits(0);
    drop(connected);
    for (what, child) in &mut impostors {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "{what} was ended"
        );
        let _ = child.kill();
        let _ = child.wait();
    }
    home.finish();
}

/// `x=$(banger vm run --rm -- true)` returns on a cold daemon: nothing of it holds the pipe.
#[test]
fn command_substitution_returns_on_a_cold_daemon() {
    let home = Home::new();
    let banger = banger_testkit::binaries().join("banger");
    let script = format!(
        "x=$({} vm run --rm -- echo inside); echo \"got $x\"",
        banger.display()
    );
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).env_clear();
    shell.envs(
        home.command(&[])
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    assert_eq!(
        Running::start(shell, b"").finish().exits(0).out(),
        "got inside"
    );
    home.finish();
}

fn sleeping(program: &str, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("an impostor")
}

fn vmm_pid(home: &Home) -> u32 {
    let shown = home.show("dev");
    let pid = shown["handles"]["processes"]["vmm"]["pid"].as_u64();
    u32::try_from(pid.unwrap_or_else(|| panic!("no VMM in {shown}"))).expect("a pid")
}
