//! What the tests on the real machine share.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use banger_host::{
    ProcessIdentity,
    linux::{LinuxConfig, LinuxHost},
};
use banger_model::{Instance, Label, Role, VmId};
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Says that a test cannot run here and why, where ./test counts it.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
    if let Some(list) = std::env::var_os("BANGER_SKIPPED")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(list)
    {
        let _ = writeln!(file, "{reason}");
    }
}

/// Returns from the test, saying why, unless we are root.
#[macro_export]
macro_rules! needs_root {
    ($what:literal) => {
        if !rustix::process::geteuid().is_root() {
            common::skip(concat!($what, ": needs root"));
            return;
        }
    };
}

/// A host with nothing in it, its jails in the test's directory.
pub fn host(dir: &Path) -> LinuxHost {
    LinuxHost::new(LinuxConfig {
        jail_root: dir.join("jails"),
        cgroup_root: PathBuf::from("/sys/fs/cgroup/unified"),
    })
}

/// Bytes no other test has: this process, a counter, the clock.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    (u64::from(std::process::id()) << 40) ^ (u64::from(now.subsec_nanos()) << 8) ^ count
}

/// An instance no other test has.
pub fn instance() -> Instance {
    Instance::from_bytes(unique().to_le_bytes()[..4].try_into().unwrap())
}

/// A VM no other test has.
pub fn vm() -> VmId {
    VmId::from_bytes(unique().to_le_bytes()[..6].try_into().unwrap())
}

/// A label no other test has.
pub fn label(role: Role) -> Label {
    Label::vm(instance(), vm(), role)
}

/// Waits until `what` holds, at most ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "waited 10 s for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The identity of a VMM that is this test binary in one of its helper roles.
pub fn identity(dir: &Path, label: Label) -> ProcessIdentity {
    ProcessIdentity {
        label,
        program: std::env::current_exe().unwrap(),
        uid: rustix::process::geteuid().as_raw(),
        control_socket: Some(dir.join("control.sock")),
        log: dir.join("vmm.log"),
        hint: None,
    }
}

/// Ends a process by its number when the test is over, whatever happened.
pub struct Ends(pub u32);

impl Drop for Ends {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// Runs in a thread with a network and a mount namespace of its own, where sysfs shows that network:
/// whatever happens there, nothing of it is left on the machine.
pub fn in_namespace(run: impl FnOnce() + Send) {
    use rustix::{mount, thread};
    std::thread::scope(|s| {
        s.spawn(|| {
            let flags = thread::UnshareFlags::NEWNS | thread::UnshareFlags::NEWNET;
            // SAFETY: no descriptor table is unshared, so no descriptor changes its meaning.
            unsafe { thread::unshare_unsafe(flags) }.unwrap();
            let all = mount::MountPropagationFlags::PRIVATE | mount::MountPropagationFlags::REC;
            mount::mount_change("/", all).unwrap();
            mount::mount("sysfs", "/sys", "sysfs", mount::MountFlags::empty(), None).unwrap();
            run();
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs a program to its end; its standard output.
pub fn run(host: &LinuxHost, program: &str, args: &[&str]) -> String {
    use banger_host::{ToolCall, Tools};
    let call = ToolCall {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: Default::default(),
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(20),
    };
    let output = host.run_tool(&call, &mut |_| {}, &|| false);
    let output = output.unwrap_or_else(|e| panic!("{e} {args:?}: {}", e.source));
    String::from_utf8(output.stdout).unwrap()
}
