//! A VMM outlives the unit that started the daemon (R-HOST-8), under a real systemd.
//!
//! Process 1 of the test host is a script, so the manager is one that systemd makes for a user, for as long as the test
//! runs; its bus lies where root's daemon looks for the system's.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test drives the machine's own tools"
)]

mod dm;

use banger_testkit::{Home, wait_until};
use dm::run;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Emulated and with both processors busy, the manager needs seconds to be there.
const MANAGER: Duration = Duration::from_secs(90);

/// A systemd that manages services, and everything it started, gone at the end.
struct Manager {
    process: Child,
    runtime: PathBuf,
    cgroup: PathBuf,
}

impl Manager {
    fn start() -> Self {
        let runtime = PathBuf::from("/run/test-manager");
        let cgroup = PathBuf::from("/sys/fs/cgroup/test-manager");
        for dir in [
            &runtime,
            &cgroup,
            Path::new("/run/systemd/system"),
            Path::new("/run/dbus"),
        ] {
            fs::create_dir_all(dir).expect("a directory");
        }
        symlink(runtime.join("bus"), "/run/dbus/system_bus_socket").expect("the bus's place");
        let enter = format!(
            "echo 0 >{}/cgroup.procs; exec /lib/systemd/systemd --user",
            cgroup.display()
        );
        let process = Command::new("sh")
            .args(["-c", &enter])
            .env("XDG_RUNTIME_DIR", &runtime)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd");
        let manager = Manager {
            process,
            runtime,
            cgroup,
        };
        wait_until("the service manager on its bus", MANAGER, || {
            if dm::succeeds(
                "busctl",
                &["--system", "status", "org.freedesktop.systemd1"],
            ) {
                Ok(())
            } else {
                Err("it does not answer".to_owned())
            }
        });
        manager
    }

    /// systemctl or systemd-run, told of this manager.
    #[track_caller]
    fn tool(&self, program: &str, args: &[&str]) -> String {
        let runtime = format!("XDG_RUNTIME_DIR={}", self.runtime.display());
        let mut all = vec![runtime.as_str(), program, "--user"];
        all.extend(args);
        run("env", &all)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.process.wait();
        let _ = fs::remove_file("/run/dbus/system_bus_socket");
        let _ = fs::remove_dir_all("/run/systemd/system");
        let _ = fs::remove_dir_all(&self.runtime);
        let tree = self.cgroup.display().to_string();
        dm::succeeds("find", &[&tree, "-depth", "-type", "d", "-delete"]);
    }
}

fn cgroup(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

#[test]
fn a_vmm_outlives_the_service_that_started_the_daemon() {
    let Some(host) = dm::Host::here() else { return };
    let home = host.home();
    let manager = Manager::start();
    start_in_a_service(&manager, &home, &["vm", "create", "--name", "dev"]);
    let (daemon, vmm) = (home.daemons()[0], home.vmms()[0]);
    assert!(
        cgroup(daemon).contains("starter.service"),
        "{}",
        cgroup(daemon)
    );
    let instance = home.instance().expect("an instance");
    let scope = format!("banger1-{instance}-{}-vmm.scope", dm::id(&home, "dev"));
    wait_until("the VMM's own scope", MANAGER, || {
        let now = cgroup(vmm);
        if now.trim().ends_with(&format!("/{scope}")) {
            Ok(())
        } else {
            Err(now)
        }
    });

    manager.tool("systemctl", &["stop", "starter.service"]);
    assert!(
        home.daemons().is_empty(),
        "the service's end is the daemon's"
    );
    let exec = ["vm", "exec", "dev", "--", "echo", "alive"];
    assert_eq!(home.banger(&exec).exits(0).out(), "alive");
    assert_eq!(home.vmms(), [vmm], "the same VMM");

    home.finish();
    wait_until("the scope to go with its VMM", MANAGER, || {
        let units = manager.tool(
            "systemctl",
            &["list-units", "--all", "--plain", "--no-legend", "banger1-*"],
        );
        if units.is_empty() { Ok(()) } else { Err(units) }
    });
    drop(manager);
    host.is_as_before("without the manager");
}

/// Runs a command of the home in a service that stays active, with all that the command left running in it.
fn start_in_a_service(manager: &Manager, home: &Home, args: &[&str]) {
    let command = home.command(args);
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("--setenv={}={}", name.to_str()?, value?.to_str()?))
    });
    let mut words: Vec<String> = [
        "--unit=starter",
        "--property=Type=oneshot",
        "--property=RemainAfterExit=yes",
    ]
    .map(str::to_owned)
    .into();
    words.extend(variables);
    words.push(command.get_program().to_string_lossy().into_owned());
    words.extend(args.iter().map(|arg| (*arg).to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    manager.tool("systemd-run", &words);
}
