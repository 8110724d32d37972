//! A real kernel, fetched from Debian's sources, booted by the plan under the real QEMU.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_host::linux::{LinuxConfig, LinuxHost};
use banger_host::{Clock, Processes, Proof, Signal};
use banger_model::{ByteSize, Instance, Label, MacAddress, Role, VmId};
use banger_vmm::boot::cmdline::Accel;
use banger_vmm::boot::initramfs::{self, Agent};
use banger_vmm::boot::kernel::{self, Kernel, KernelError};
use banger_vmm::boot::package::NewKernel;
use banger_vmm::boot::pins::KernelNames;
use banger_vmm::boot::shelf::Shelf;
use banger_vmm::boot::tsc;
use banger_vmm::probe::{find_qemu, qemu_version};
use banger_vmm::qemu::{
    Disk, DiskSource, QemuPlan, Qmp, QmpEvent, RunState, Sockets, UserNetwork, spawn_spec,
};
use banger_wire::guest::boot::{BootFacts, Root};
use banger_wire::guest::handshake::Token;

/// A boot takes 1 to 2 s; other tests may hold both processors.
const BOOT: Duration = Duration::from_secs(60);

fn host() -> LinuxHost {
    LinuxHost::new(LinuxConfig::default())
}

fn qemu() -> PathBuf {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let data = std::env::var_os("XDG_DATA_HOME")
        .map_or(home.join(".local/share"), PathBuf::from)
        .join("banger");
    find_qemu(None, std::env::var_os("PATH").as_deref(), &data)
        .unwrap()
        .path
}

/// The guest program of tests/support/init.c.
fn build_init(dir: &Path) -> PathBuf {
    let out = dir.join("init");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/init.c");
    #[allow(clippy::disallowed_methods, reason = "a test compiles its guest")]
    let status = std::process::Command::new("cc")
        .args([
            "-O1",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-o",
        ])
        .args([&out, &source])
        .status()
        .unwrap();
    assert!(status.success(), "cc is needed, as for every Rust build");
    out
}

/// One VM's directory, plan and process; killed by proof if a test panics.
struct Vm {
    host: LinuxHost,
    plan: QemuPlan,
    // Held for its removal at the end.
    _dir: tempfile::TempDir,
}

impl Vm {
    fn new(kernel: &Kernel, agent: &Agent, cache: &Path, cpus: u32) -> Vm {
        let host = host();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let base = initramfs::base(&host, cache, kernel, agent).unwrap();
        let initramfs = initramfs::of_vm(&base, &facts()).unwrap();
        fs::write(at("initramfs.cpio"), initramfs).unwrap();
        let disk = |serial: &str, read_only| {
            let path = at(serial);
            fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
            Disk {
                serial: serial.into(),
                source: DiskSource::File(path),
                read_only,
            }
        };
        let id = VmId::from_bytes([7; 6]);
        let plan = QemuPlan {
            program: qemu(),
            label: Label::vm(Instance::from_bytes([9; 4]), id, Role::Vmm),
            uid: rustix::process::getuid().as_raw(),
            accel: Accel::Tcg {
                tsc_khz: tsc::khz(&host, &cache.join("tsc"), &host.boot_id().unwrap()).unwrap(),
            },
            cpus,
            memory: ByteSize(256 << 20),
            kernel: kernel.vmlinux(),
            initramfs: at("initramfs.cpio"),
            disks: vec![
                disk("base", true),
                disk("overlay", false),
                disk("work", false),
            ],
            network: Some(UserNetwork {
                mac: MacAddress::of_vm(id),
                nat: true,
            }),
            console_log: at("console.log"),
            vmm_log: at("vmm.log"),
            sockets: Sockets::in_dir(dir.path()),
            cwd: dir.path().to_owned(),
        };
        Vm {
            host,
            plan,
            _dir: dir,
        }
    }

    fn spawn(&self) {
        self.host.spawn(&spawn_spec(&self.plan).unwrap()).unwrap();
    }

    fn connect(&self, socket: &Path) -> UnixStream {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return stream,
                Err(e) if Instant::now() > deadline => {
                    panic!("{}: {e}; {}", socket.display(), self.logs())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn logs(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        format!(
            "vmm.log: {}\nconsole.log: {}",
            read(&self.plan.vmm_log),
            read(&self.plan.console_log)
        )
    }

    fn proof(&self) -> Proof {
        self.host
            .prove(&spawn_spec(&self.plan).unwrap().identity)
            .unwrap()
    }

    fn await_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.proof(), Proof::Alive(_)) {
            assert!(
                Instant::now() < deadline,
                "QEMU did not end; {}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let Ok(spec) = spawn_spec(&self.plan) else {
            return;
        };
        if let Ok(Proof::Alive(process)) = self.host.prove(&spec.identity) {
            let _ = self.host.signal(&spec.identity, process, Signal::Kill);
            let _ = self
                .host
                .await_exit(&spec.identity, process, Duration::from_secs(5));
        }
    }
}

fn facts() -> BootFacts {
    BootFacts {
        hostname: "boot-test".into(),
        token: Token([3; 16]),
        port: "banger.agent".into(),
        root: Root::Overlay {
            base: "base".into(),
            overlay: "overlay".into(),
        },
        work: Some("work".into()),
        modules: None,
        network: Default::default(),
        power_off: Default::default(),
        init: Default::default(),
        ssh: None,
    }
}

/// Boots once to the end: facts in the guest, timers, QMP, power-off. Yields the time from spawn to the first byte.
fn boot_once(vm: &Vm, round: usize) -> Duration {
    let started = Instant::now();
    vm.spawn();
    let mut port = vm.connect(&vm.plan.sockets.agent);
    port.set_read_timeout(Some(BOOT)).unwrap();
    let mut lines = BufReader::new(port.try_clone().unwrap()).lines();
    let mut line = || match lines.next() {
        Some(Ok(line)) => line,
        other => panic!("round {round}: the guest said {other:?}; {}", vm.logs()),
    };
    let hello = line();
    let took = started.elapsed();
    let told: BootFacts = serde_json::from_str(hello.strip_prefix("hello ").unwrap()).unwrap();
    assert_eq!(told, facts());
    let cpus = if vm.plan.cpus == 1 {
        "cpus 0"
    } else {
        "cpus 0-1"
    };
    assert_eq!(line(), cpus);
    assert_eq!(line(), "slept");

    let mut qmp = Qmp::new(vm.connect(&vm.plan.sockets.qmp), Duration::from_secs(20)).unwrap();
    assert_eq!(qmp.status().unwrap(), RunState::Running);
    assert!(
        matches!(vm.proof(), Proof::Alive(_)),
        "the label and the spare socket prove it"
    );
    qmp.pause().unwrap();
    assert_eq!(qmp.status().unwrap(), RunState::Paused);
    // It is plugged into another network and back, as often as it is asked for.
    for nat in [true, true, false, true] {
        qmp.set_nat(nat).unwrap();
        assert_eq!(qmp.nat().unwrap(), Some(nat));
    }
    // A change that was cut off in the middle is made all the same.
    qmp.command("netdev_del", serde_json::json!({ "id": "uplink" }))
        .unwrap();
    assert_eq!(qmp.nat().unwrap(), None);
    qmp.set_nat(false).unwrap();
    assert_eq!(qmp.nat().unwrap(), Some(false));
    qmp.resume().unwrap();
    port.write_all(b"x").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(
            Instant::now() < deadline,
            "no SHUTDOWN event; {}",
            vm.logs()
        );
        match qmp.next_event(Duration::from_secs(1)) {
            Ok(Some(QmpEvent::Shutdown { guest, reason })) => {
                assert_eq!((guest, reason.as_str()), (true, "guest-shutdown"));
                break;
            }
            Ok(_) => {}
            Err(e) => panic!("{e}; {}", vm.logs()),
        }
    }
    vm.await_end();
    let console = fs::read_to_string(&vm.plan.console_log).unwrap();
    assert_eq!(
        console.matches("console works").count(),
        round + 1,
        "appended, never cut: {console}"
    );
    assert!(!console.contains("cannot load"), "{console}");
    took
}

/// Stands for the image crate's `pack`, which this crate does not see: keeps what modprobe needs first.
fn pack(tree: &Path, disk: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    fs::copy(tree.join("modules.dep"), disk)?;
    Ok(())
}

fn fetch(
    kernels: &Path,
    progress: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<Kernel, KernelError> {
    let shelf = Shelf {
        kernels,
        tag: "test",
        pack: &pack,
        names: &KernelNames::default(),
        replace: false,
        cancelled,
        discard: &|dir| fs::remove_dir_all(dir).unwrap(),
    };
    let new = NewKernel {
        name: "debian",
        ..NewKernel::default()
    };
    kernel::fetch_package(&host(), &shelf, kernel::DEBIAN_CLOUD, &new, progress)
}

#[test]
fn debians_kernel_is_fetched_and_boots_every_time() {
    let home = tempfile::tempdir().unwrap();
    let (kernels, cache) = (home.path().join("kernels"), home.path().join("cache"));
    fs::create_dir(&kernels).unwrap();
    fs::create_dir(&cache).unwrap();
    let mut stages = Vec::new();
    let kernel = fetch(&kernels, &mut |s| stages.push(s.to_owned()), &|| false).unwrap();
    let check = kernel.manifest.check.as_ref().unwrap();
    assert_eq!(check.lacks(), [""; 0]);
    assert_eq!(check.missing, ["CONFIG_VMGENID"]);
    println!("{stages:?} {:#?}", kernel.manifest);
    assert!(
        stages
            .iter()
            .any(|s| s.starts_with("fetching linux-image-")),
        "{stages:?}"
    );
    assert_eq!(
        Kernel::load(&host(), &kernels, "debian").unwrap().as_ref(),
        Some(&kernel)
    );
    assert_eq!(
        fs::read_dir(&kernels).unwrap().count(),
        1,
        "nothing but the kernel is left"
    );
    assert!(kernel.manifest.second.contains(&"overlay.ko".to_owned()));
    let dep = fs::read_to_string(kernel.modules_disk().unwrap()).unwrap();
    assert!(dep.contains("/br_netfilter.ko: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko"));

    let agent = Agent::at(&build_init(home.path())).unwrap();
    for cpus in [1, 2] {
        let vm = Vm::new(&kernel, &agent, &cache, cpus);
        for round in 0..3 {
            println!(
                "{cpus} vCPU, boot {round}: first byte after {:?}",
                boot_once(&vm, round)
            );
        }
    }
    second_qemu_on_a_disk_is_refused(&kernel, &agent, &cache);
    panic_ends_the_vm_and_is_logged(&kernel, home.path(), &cache);
}

/// A writable disk is locked by the QEMU that has it: another one ends at once, and its log says why.
fn second_qemu_on_a_disk_is_refused(kernel: &Kernel, agent: &Agent, cache: &Path) {
    let vm = Vm::new(kernel, agent, cache, 1);
    vm.spawn();
    drop(vm.connect(&vm.plan.sockets.qmp));
    let mut other = Vm::new(kernel, agent, cache, 1);
    other.plan.disks = vm.plan.disks.clone();
    other.spawn();
    other.await_end();
    assert!(other.logs().contains("lock"), "{}", other.logs());
    Qmp::new(vm.connect(&vm.plan.sockets.qmp), Duration::from_secs(20))
        .unwrap()
        .quit()
        .unwrap();
    vm.await_end();
}

/// An /init that cannot be executed: the kernel panics, QEMU ends, the console log holds the kernel's words.
fn panic_ends_the_vm_and_is_logged(kernel: &Kernel, home: &Path, cache: &Path) {
    let broken = home.join("broken");
    fs::write(&broken, "neither ELF nor script").unwrap();
    let vm = Vm::new(kernel, &Agent::at(&broken).unwrap(), cache, 1);
    vm.spawn();
    vm.connect(&vm.plan.sockets.qmp);
    let deadline = Instant::now() + BOOT;
    while matches!(vm.proof(), Proof::Alive(_)) {
        assert!(
            Instant::now() < deadline,
            "a panic must end the VM; {}",
            vm.logs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(vm.logs().contains("Kernel panic"), "{}", vm.logs());
}

#[test]
fn a_cancelled_fetch_leaves_nothing() {
    let kernels = tempfile::tempdir().unwrap();
    let cancelled = fetch(kernels.path(), &mut |_| {}, &|| true);
    assert!(
        matches!(cancelled, Err(KernelError::Fetch { .. })),
        "{cancelled:?}"
    );
    assert_eq!(fs::read_dir(kernels.path()).unwrap().count(), 0);
    assert_eq!(
        Kernel::load(&host(), kernels.path(), "debian").unwrap(),
        None
    );
}

#[test]
fn qemu_tells_a_version_that_the_arguments_were_made_for() {
    let (text, version) = qemu_version(&host(), &qemu()).unwrap();
    assert!(version >= banger_vmm::probe::OLDEST_QEMU, "{text}");
}

#[test]
fn the_clock_rate_is_measured_once_per_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (host, cache) = (host(), dir.path().join("tsc"));
    let boot = host.boot_id().unwrap();
    let measured = tsc::khz(&host, &cache, &boot).unwrap();
    let remembered = Instant::now();
    assert_eq!(tsc::khz(&host, &cache, &boot).unwrap(), measured);
    assert!(
        remembered.elapsed() < Duration::from_millis(40),
        "from the cache"
    );
    let mut file: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(&cache).unwrap()).unwrap();
    file.insert("boot_id".into(), "another".into());
    file.insert("khz".into(), 1_000_000.into());
    fs::write(&cache, serde_json::to_vec(&file).unwrap()).unwrap();
    assert_ne!(
        tsc::khz(&host, &cache, &boot).unwrap(),
        1_000_000,
        "another boot's rate is not this one's"
    );
    fs::write(&cache, "{half").unwrap();
    assert!(tsc::khz(&host, &cache, &boot).unwrap().abs_diff(measured) * 1000 < measured);
}
