//! What the tests of the dm-snapshot driver share: a home, the kernel's own words on loops and dm devices.
//! Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use banger_testkit::{Home, Machine, wait_until};
use rustix::ioctl;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

/// Recovery ends a VMM and removes devices; emulated, with both processors busy, that takes seconds.
pub const RECOVERY: Duration = Duration::from_secs(90);

/// The test host with the programs in it, as it was when the test began.
pub struct Host {
    before: Machine,
}

impl Host {
    /// This machine, if it is the test host; otherwise says why not, and the test is over.
    pub fn here() -> Option<Host> {
        if !banger_testkit::in_test_host() {
            banger_testkit::skip("needs the test host: cargo xtask testhost run");
            return None;
        }
        if !banger_testkit::binaries().join("crash/bangerd").exists() {
            banger_testkit::skip("the programs were not built: scripts/build --crash-points");
            return None;
        }
        Some(Host {
            before: Machine::look(None),
        })
    }

    /// A home whose VMs are small and have their root on a dm snapshot.
    pub fn home(&self) -> Home {
        let home = Home::new();
        let text = "boot_timeout = 120\n[drivers]\nroot = \"dm-snapshot\"\n[vm_defaults]\nvcpus = 1\n\
                    memory = \"256M\"\ndisk_size = \"64M\"\nsystem_overlay_size = \"64M\"\n";
        fs::write(home.config(), text).expect("the configuration");
        home
    }

    /// Waits until the machine is as it was, which it is as soon as the last holder of a device is reaped.
    #[track_caller]
    pub fn is_as_before(&self, when: &str) {
        wait_until(&format!("{when}: the machine as it was"), RECOVERY, || {
            let now = Machine::look(None);
            if now == self.before {
                Ok(())
            } else {
                Err(format!("{now:#?}\nbefore: {:#?}", self.before))
            }
        });
    }
}

/// Runs a tool of the machine to its end.
#[allow(
    clippy::disallowed_methods,
    reason = "a test drives the machine's own tools"
)]
fn tool(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
}

/// The output of a tool that succeeds; fails the test with what it said.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let out = tool(program, args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{said}",
        out.status
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Whether a tool succeeds.
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    tool(program, args).status.success()
}

/// A configured loop device, in the kernel's words.
#[derive(Debug, PartialEq, Eq)]
pub struct Loop {
    /// `/sys/block/loopN/loop/backing_file`.
    pub backing: PathBuf,
    /// `lo_file_name`.
    pub label: String,
    /// It clears itself when nobody holds it.
    pub autoclear: bool,
    /// Nobody writes through it.
    pub read_only: bool,
    /// A device stands on it: a dm table names it, live or only loaded.
    pub held: bool,
}

/// `struct loop_info64` (linux/loop.h); only its flags and name are looked at.
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    file_name: [u8; 64],
    rest: [u8; 64 + 32 + 16],
}

const LOOP_GET_STATUS64: ioctl::Opcode = 0x4C05;

/// Every configured loop device.
pub fn loops() -> Vec<Loop> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/block").expect("/sys/block").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let backing = entry.path().join("loop/backing_file");
        let (true, Ok(backing)) = (name.starts_with("loop"), fs::read_to_string(backing)) else {
            continue;
        };
        let mut info = LoopInfo {
            numbers: [0; 5],
            number_and_encryption: [0; 3],
            flags: 0,
            file_name: [0; 64],
            rest: [0; 112],
        };
        let device = File::open(format!("/dev/{name}")).expect("the loop device");
        // SAFETY: LOOP_GET_STATUS64 writes a loop_info64.
        let asked = unsafe {
            ioctl::ioctl(
                &device,
                ioctl::Updater::<LOOP_GET_STATUS64, LoopInfo>::new(&mut info),
            )
        };
        if asked.is_err() {
            continue; // Cleared between the two looks.
        }
        let label = info.file_name.split(|b| *b == 0).next().unwrap_or_default();
        all.push(Loop {
            backing: backing.trim().into(),
            label: String::from_utf8_lossy(label).into_owned(),
            autoclear: info.flags & 4 != 0,
            read_only: info.flags & 1 != 0,
            held: fs::read_dir(entry.path().join("holders")).is_ok_and(|mut d| d.next().is_some()),
        });
    }
    all.sort_by(|a, b| a.label.cmp(&b.label));
    all
}

/// Names and uuids of all dm devices, from sysfs.
pub fn dm_devices() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/block").expect("/sys/block").flatten() {
        let word = |file| fs::read_to_string(entry.path().join("dm").join(file));
        if let (Ok(name), Ok(uuid)) = (word("name"), word("uuid")) {
            all.push((name.trim().to_owned(), uuid.trim().to_owned()));
        }
    }
    all.sort();
    all
}

/// The VM's id, as its labels have it.
pub fn id(home: &Home, vm: &str) -> String {
    home.show(vm)["id"].as_str().expect("an id").to_owned()
}

/// The name of the VM's root device.
pub fn root_name(home: &Home, vm: &str) -> String {
    let instance = home.instance().expect("an instance");
    format!("banger1-{instance}-{}-root", id(home, vm))
}
