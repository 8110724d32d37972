//! R-PROG-5 and R-PROG-6 on the real program: what the daemon takes from its caller (nothing), and that there is one.

use crate::support::{Home, wait_until};
use std::{
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    process::Stdio,
    time::{Duration, Instant},
};

#[test]
fn nothing_of_the_caller_comes_along() {
    let home = Home::new();
    let directory = home.root().to_owned();
    let mut command = home.command();
    command
        .current_dir(&directory)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // `output` reads both pipes to their end: it returns only if the daemon has let go of them.
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));

    let pid = home.status().pid;
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    assert_eq!(std::fs::read_link(proc("cwd")).unwrap().to_str(), Some("/"));
    let stat = std::fs::read_to_string(proc("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_ne!(session, own_session(), "a session of its own");
    assert_eq!(terminal, "0", "no terminal");
    let status = std::fs::read_to_string(proc("status")).unwrap();
    assert!(status.contains("Umask:\t0077"), "{status}");
    for fd in ["0", "1", "2"] {
        let target = std::fs::read_link(proc(&format!("fd/{fd}"))).unwrap();
        let target = target.to_string_lossy().into_owned();
        let log = home.paths.daemon_log();
        assert!(
            target == "/dev/null" || target == log.to_string_lossy(),
            "{fd}: {target}"
        );
    }
}

fn own_session() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit_once(") ").unwrap().1;
    rest.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn ten_first_commands_start_one_daemon() {
    let home = Home::new();
    let children: Vec<_> = (0..10)
        .map(|_| {
            home.command()
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "losers end quietly");
    }
    wait_until("the socket is there", || home.paths.socket().exists());
    let pid = home.status().pid;
    let ours = |entry: std::fs::DirEntry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let state = home.paths.state_dir.to_string_lossy().into_owned();
        comm.trim() == "bangerd" && String::from_utf8_lossy(&environ).contains(&state)
    };
    wait_until("only one daemon is left", || {
        let all = std::fs::read_dir("/proc").unwrap();
        all.filter_map(Result::ok)
            .filter(|e| e.path().join("environ").exists())
            .map(ours)
            .filter(|is| *is)
            .count()
            == 1
    });
    assert_eq!(home.status().pid, pid);
    assert_eq!(home.log().matches("listening").count(), 1);
}

#[test]
fn socket_and_directories_are_private() {
    let home = Home::new().started();
    let mode = |path: &std::path::Path| {
        std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&home.paths.socket()), 0o600);
    assert_eq!(mode(&home.paths.runtime_dir), 0o700);
    assert_eq!(mode(&home.paths.state_dir), 0o700);
    assert_eq!(mode(&home.paths.daemon_log()), 0o600);
}

#[test]
fn a_symlink_in_the_place_of_the_runtime_directory_is_refused() {
    let home = Home::new();
    std::fs::create_dir(home.root().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.root().join("elsewhere"), &home.paths.runtime_dir).unwrap();
    let output = home.start();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is a symlink"), "{said}");
}

#[test]
fn a_wrong_configuration_is_said_on_stderr_and_in_the_log() {
    let home = Home::new();
    std::fs::write(&home.paths.config, "memroy = 5\n").unwrap();
    let output = home.start();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("unknown key 'memroy'"), "{said}");
    assert!(home.log().contains("unknown key 'memroy'"));
    assert!(!home.paths.socket().exists());
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way_of_the_next() {
    let home = Home::new().started();
    let first = home.status().pid;
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("it is dead", || {
        std::fs::read_link(format!("/proc/{first}/exe")).is_err()
    });
    assert!(home.paths.socket().exists(), "its socket stays behind");
    assert!(home.start().status.success());
    assert_ne!(home.status().pid, first);
}
