//! What a VM is to be → the QEMU process to start. Pure: no file is looked at.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use banger_host::{ProcessIdentity, SpawnSpec};
use banger_model::{ByteSize, Label, MacAddress};
use thiserror::Error;

use crate::boot::cmdline::{Accel, kernel_cmdline};

/// `sun_path` of unix(7) holds 108 bytes with the final NUL.
pub const SOCKET_PATH_MAX: usize = 107;

/// A virtio-blk serial is read from the guest's sysfs as at most 20 bytes (virtio specification 1.2, 5.2.6.1).
const SERIAL_MAX: usize = 20;

/// Everything that makes one VM's QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuPlan {
    /// QEMU's executable, absolute (see [`crate::probe`]).
    pub program: PathBuf,
    /// Proof of identity; stands among the arguments as one exact element.
    pub label: Label,
    /// uid it runs as.
    pub uid: u32,
    /// How instructions are executed.
    pub accel: Accel,
    /// Number of virtual processors, at least 1.
    pub cpus: u32,
    /// Guest memory; rounded up to whole MiB.
    pub memory: ByteSize,
    /// Kernel ELF.
    pub kernel: PathBuf,
    /// Base and per-VM archive in one file.
    pub initramfs: PathBuf,
    /// Disks in the order in which they are attached.
    pub disks: Vec<Disk>,
    /// The user-mode network; `None` gives the guest no interface.
    pub network: Option<UserNetwork>,
    /// File that the guest's serial console is appended to.
    pub console_log: PathBuf,
    /// QEMU's own stdout and stderr; its lock says that the VMM lives (R-HOST-8).
    pub vmm_log: PathBuf,
    /// Where QEMU listens.
    pub sockets: Sockets,
    /// Working directory: the VM's directory, so that a core dump or a stray file lands there.
    pub cwd: PathBuf,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// How the guest finds it: `base`, `overlay`, `work`, `root`.
    pub serial: String,
    /// Raw image file, or a block device.
    pub source: DiskSource,
    /// Shared and never written.
    pub read_only: bool,
}

/// What holds a disk's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A raw image file.
    File(PathBuf),
    /// A block device (`/dev/mapper/…`).
    Device(PathBuf),
}

/// QEMU's user-mode network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNetwork {
    /// MAC address of the guest's interface.
    pub mac: MacAddress,
    /// Whether the guest reaches anything beyond QEMU itself.
    pub nat: bool,
}

/// The unix sockets that QEMU listens on, in a directory that only we can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// The agent channel.
    pub agent: PathBuf,
    /// Control; the daemon's connection.
    pub qmp: PathBuf,
    /// Spare control: proves who listens (a monitor serves one client at a time), and serves when the other is taken.
    pub qmp_spare: PathBuf,
}

impl Sockets {
    /// The sockets under their fixed names in a VM's runtime directory.
    pub fn in_dir(dir: &Path) -> Sockets {
        Sockets {
            agent: dir.join("agent.sock"),
            qmp: dir.join("qmp.sock"),
            qmp_spare: dir.join("qmp2.sock"),
        }
    }
}

/// Why a plan cannot become a process.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The kernel would cut the path.
    #[error(
        "the socket path {path} has {len} bytes, a Unix socket takes {SOCKET_PATH_MAX}: choose a shorter runtime directory (BANGER_RUNTIME_DIR)"
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },
    /// Relative paths would depend on who starts the process.
    #[error("{path} is not an absolute path")]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The guest could not find the disk by it.
    #[error(
        "{serial:?} is no disk serial: 1 to {SERIAL_MAX} letters, digits or dashes, each disk its own"
    )]
    Serial {
        /// What was given.
        serial: String,
    },
    /// Nothing to run on.
    #[error("a VM needs at least one CPU and some memory (cpus {cpus}, memory {memory})")]
    Nothing {
        /// Processors asked for.
        cpus: u32,
        /// Memory asked for.
        memory: ByteSize,
    },
}

/// The process specification of a plan.
///
/// # Errors
/// A plan that QEMU or the guest would misunderstand; see [`PlanError`].
pub fn spawn_spec(plan: &QemuPlan) -> Result<SpawnSpec, PlanError> {
    check(plan)?;
    let identity = ProcessIdentity {
        label: plan.label,
        program: plan.program.clone(),
        uid: plan.uid,
        control_socket: Some(plan.sockets.qmp_spare.clone()),
        log: plan.vmm_log.clone(),
        hint: None,
    };
    Ok(SpawnSpec {
        identity,
        args: args(plan),
        env: Default::default(),
        cwd: plan.cwd.clone(),
        log: plan.vmm_log.clone(),
        cgroup: None,
    })
}

fn check(plan: &QemuPlan) -> Result<(), PlanError> {
    if plan.cpus == 0 || plan.memory.bytes() == 0 {
        return Err(PlanError::Nothing {
            cpus: plan.cpus,
            memory: plan.memory,
        });
    }
    for path in [
        &plan.sockets.agent,
        &plan.sockets.qmp,
        &plan.sockets.qmp_spare,
    ] {
        let len = path.as_os_str().len();
        if len > SOCKET_PATH_MAX {
            return Err(PlanError::SocketPath {
                path: path.clone(),
                len,
            });
        }
    }
    let files = [
        &plan.program,
        &plan.kernel,
        &plan.initramfs,
        &plan.console_log,
        &plan.vmm_log,
        &plan.sockets.agent,
    ];
    let disks = plan.disks.iter().map(|d| d.source.path());
    if let Some(path) = files
        .into_iter()
        .map(PathBuf::as_path)
        .chain(disks)
        .find(|p| !p.is_absolute())
    {
        return Err(PlanError::Relative {
            path: path.to_owned(),
        });
    }
    for (i, disk) in plan.disks.iter().enumerate() {
        let serial = &disk.serial;
        let plain = serial
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let taken = plan.disks[..i].iter().any(|d| d.serial == *serial);
        if serial.is_empty() || serial.len() > SERIAL_MAX || !plain || taken {
            return Err(PlanError::Serial {
                serial: serial.clone(),
            });
        }
    }
    Ok(())
}

impl DiskSource {
    fn path(&self) -> &Path {
        match self {
            DiskSource::File(path) | DiskSource::Device(path) => path,
        }
    }
}

/// The arguments after the program. Why each is there: docs/design/boot.md.
fn args(plan: &QemuPlan) -> Vec<OsString> {
    let mut args = Args::default();
    // The proof of identity: nothing but the label, as one argument.
    args.pair("-name", plan.label.to_string());
    machine(&mut args, plan);
    boot(&mut args, plan);
    control(&mut args, &plan.sockets);
    for disk in &plan.disks {
        attach_disk(&mut args, disk);
    }
    if let Some(network) = &plan.network {
        attach_network(&mut args, network);
    }
    args.pair("-device", "virtio-rng-device");
    args.0
}

fn machine(args: &mut Args, plan: &QemuPlan) {
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", "none");
    // A guest that reboots or panics ends its VMM: the daemon decides what follows.
    args.flag("-no-reboot");
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    args.pair("-M", "microvm");
    match plan.accel {
        Accel::Tcg { .. } => {
            args.pair("-accel", "tcg");
            args.pair("-cpu", "max");
        }
        Accel::Kvm => {
            args.pair("-accel", "kvm");
            args.pair("-cpu", "host");
        }
    }
    args.pair("-smp", plan.cpus.to_string());
    args.pair("-m", format!("{}M", plan.memory.bytes().div_ceil(1 << 20)));
}

fn boot(args: &mut Args, plan: &QemuPlan) {
    args.pair("-kernel", &plan.kernel);
    args.pair("-initrd", &plan.initramfs);
    args.pair("-append", kernel_cmdline(plan.accel, plan.cpus));
    args.option(
        "-chardev",
        &[
            ("file,id=console,path=", &plan.console_log),
            (",append=on", Path::new("")),
        ],
    );
    args.pair("-serial", "chardev:console");
}

fn control(args: &mut Args, sockets: &Sockets) {
    let tail = (",server=on,wait=off", Path::new(""));
    args.option(
        "-chardev",
        &[("socket,id=agent,path=", &sockets.agent), tail],
    );
    // Two ports of which the first is reserved for a console: 31 would be the default, each with two queues.
    args.pair("-device", "virtio-serial-device,max_ports=2");
    // Without the id QEMU tells nobody that the guest opened the port.
    args.pair(
        "-device",
        "virtserialport,chardev=agent,id=agent,name=banger.agent",
    );
    for (id, path) in [("qmp", &sockets.qmp), ("qmp2", &sockets.qmp_spare)] {
        args.option(
            "-chardev",
            &[(&format!("socket,id={id},path="), path), tail],
        );
        args.pair("-mon", format!("chardev={id},mode=control"));
    }
}

/// Cache: the host's page cache with the guest's flushes passed on (`cache.direct=off,cache.no-flush=off`): a flush in
/// the guest returns when fdatasync did, and one base read by many VMs is in memory once.
/// Locks: writable disks are locked, so that a second QEMU on one refuses to start; a base is shared and immutable.
fn attach_disk(args: &mut Args, disk: &Disk) {
    let serial = &disk.serial;
    let (driver, path) = match &disk.source {
        DiskSource::File(path) => ("file", path),
        DiskSource::Device(path) => ("host_device", path),
    };
    let access = if disk.read_only {
        "read-only=on,locking=off"
    } else {
        // Freed blocks become holes in the file.
        "read-only=off,auto-read-only=off,locking=on,discard=unmap"
    };
    let file = format!(
        "driver={driver},node-name={serial}-file,cache.direct=off,cache.no-flush=off,{access},filename="
    );
    args.option("-blockdev", &[(&file, path)]);
    let raw = if disk.read_only {
        "read-only=on"
    } else {
        "read-only=off,discard=unmap"
    };
    args.pair(
        "-blockdev",
        format!("driver=raw,node-name={serial},file={serial}-file,{raw}"),
    );
    args.pair(
        "-device",
        format!("virtio-blk-device,drive={serial},serial={serial}"),
    );
}

fn attach_network(args: &mut Args, network: &UserNetwork) {
    // restrict=on: the guest reaches neither the host nor anything beyond it. The user network is on a hub, because what
    // a network card is plugged into is for life, and what a hub is plugged into is not (`Qmp::set_nat`).
    let (id, restrict) = if network.nat {
        (super::qmp::OPEN, "off")
    } else {
        (super::qmp::CLOSED, "on")
    };
    let uplink = super::qmp::UPLINK;
    args.pair(
        "-netdev",
        format!("user,id={id},ipv6=off,restrict={restrict}"),
    );
    args.pair(
        "-netdev",
        format!("hubport,id={uplink},hubid=0,netdev={id}"),
    );
    args.pair("-netdev", "hubport,id=net,hubid=0");
    args.pair(
        "-device",
        format!("virtio-net-device,netdev=net,mac={}", network.mac),
    );
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl AsRef<OsStr>) {
        self.0.push(flag.into());
        self.0.push(value.as_ref().to_owned());
    }

    /// An option with paths in it: QEMU takes a comma in a value as two commas (qemu(1), "QemuOpts").
    fn option(&mut self, flag: &str, parts: &[(&str, &Path)]) {
        let mut value = Vec::new();
        for (text, path) in parts {
            value.extend_from_slice(text.as_bytes());
            for byte in path.as_os_str().as_bytes() {
                value.push(*byte);
                if *byte == b',' {
                    value.push(b',');
                }
            }
        }
        self.pair(flag, OsString::from_vec(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{Instance, Role, VmId};

    fn plan() -> QemuPlan {
        let dir = Path::new("/v/aabb");
        let vm = VmId::from_bytes([0xab; 6]);
        QemuPlan {
            program: "/usr/bin/qemu-system-x86_64".into(),
            label: Label::vm(Instance::from_bytes([1; 4]), vm, Role::Vmm),
            uid: 1000,
            accel: Accel::Tcg { tsc_khz: 2_000_000 },
            cpus: 2,
            memory: ByteSize(512 << 20),
            kernel: "/k/vmlinux".into(),
            initramfs: dir.join("initramfs.cpio"),
            disks: vec![
                Disk {
                    serial: "base".into(),
                    source: DiskSource::File("/i/a,b/rootfs.ext4".into()),
                    read_only: true,
                },
                Disk {
                    serial: "work".into(),
                    source: DiskSource::File(dir.join("work.ext4")),
                    read_only: false,
                },
                Disk {
                    serial: "root".into(),
                    source: DiskSource::Device("/dev/mapper/x".into()),
                    read_only: false,
                },
            ],
            network: Some(UserNetwork {
                mac: MacAddress::of_vm(vm),
                nat: false,
            }),
            console_log: dir.join("console.log"),
            vmm_log: dir.join("vmm.log"),
            sockets: Sockets::in_dir(Path::new("/run/b/aabb")),
            cwd: dir.into(),
        }
    }

    fn words(plan: &QemuPlan) -> Vec<String> {
        spawn_spec(plan)
            .unwrap()
            .args
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_arguments_are_pinned() {
        let cmdline = kernel_cmdline(plan().accel, 2);
        let expected = [
            "-name",
            "banger1/01010101/abababababab/vmm",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-M",
            "microvm",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "512M",
            "-kernel",
            "/k/vmlinux",
            "-initrd",
            "/v/aabb/initramfs.cpio",
            "-append",
            &cmdline,
            "-chardev",
            "file,id=console,path=/v/aabb/console.log,append=on",
            "-serial",
            "chardev:console",
            "-chardev",
            "socket,id=agent,path=/run/b/aabb/agent.sock,server=on,wait=off",
            "-device",
            "virtio-serial-device,max_ports=2",
            "-device",
            "virtserialport,chardev=agent,id=agent,name=banger.agent",
            "-chardev",
            "socket,id=qmp,path=/run/b/aabb/qmp.sock,server=on,wait=off",
            "-mon",
            "chardev=qmp,mode=control",
            "-chardev",
            "socket,id=qmp2,path=/run/b/aabb/qmp2.sock,server=on,wait=off",
            "-mon",
            "chardev=qmp2,mode=control",
            "-blockdev",
            "driver=file,node-name=base-file,cache.direct=off,cache.no-flush=off,read-only=on,locking=off,filename=/i/a,,b/rootfs.ext4",
            "-blockdev",
            "driver=raw,node-name=base,file=base-file,read-only=on",
            "-device",
            "virtio-blk-device,drive=base,serial=base",
            "-blockdev",
            "driver=file,node-name=work-file,cache.direct=off,cache.no-flush=off,read-only=off,auto-read-only=off,locking=on,discard=unmap,filename=/v/aabb/work.ext4",
            "-blockdev",
            "driver=raw,node-name=work,file=work-file,read-only=off,discard=unmap",
            "-device",
            "virtio-blk-device,drive=work,serial=work",
            "-blockdev",
            "driver=host_device,node-name=root-file,cache.direct=off,cache.no-flush=off,read-only=off,auto-read-only=off,locking=on,discard=unmap,filename=/dev/mapper/x",
            "-blockdev",
            "driver=raw,node-name=root,file=root-file,read-only=off,discard=unmap",
            "-device",
            "virtio-blk-device,drive=root,serial=root",
            "-netdev",
            "user,id=closed,ipv6=off,restrict=on",
            "-netdev",
            "hubport,id=uplink,hubid=0,netdev=closed",
            "-netdev",
            "hubport,id=net,hubid=0",
            "-device",
            "virtio-net-device,netdev=net,mac=aa:ab:ab:ab:ab:ab",
            "-device",
            "virtio-rng-device",
        ];
        assert_eq!(words(&plan()), expected);
    }

    #[test]
    fn the_label_is_one_exact_argument_and_the_spare_socket_proves() {
        let plan = plan();
        let spec = spawn_spec(&plan).unwrap();
        assert_eq!(
            spec.args
                .iter()
                .filter(|a| **a == *plan.label.to_string())
                .count(),
            1
        );
        assert_eq!(
            spec.identity.control_socket.as_deref(),
            Some(Path::new("/run/b/aabb/qmp2.sock"))
        );
        assert_eq!(spec.identity.log, spec.log);
    }

    #[test]
    fn hardware_and_nat_change_just_their_words() {
        let mut plan = plan();
        plan.accel = Accel::Kvm;
        plan.network.as_mut().unwrap().nat = true;
        let words = words(&plan).join(" ");
        assert!(words.contains("-accel kvm -cpu host ") && words.contains("restrict=off"));
        assert!(!words.contains("tsc_early_khz"));
    }

    #[test]
    fn what_would_be_misunderstood_is_refused() {
        let refused = |change: fn(&mut QemuPlan)| {
            let mut plan = plan();
            change(&mut plan);
            spawn_spec(&plan).unwrap_err()
        };
        let long = refused(|p| p.sockets.qmp = Path::new("/r").join("x".repeat(105)));
        assert!(
            matches!(long, PlanError::SocketPath { len: 108, .. }),
            "{long:?}"
        );
        assert!(matches!(
            refused(|p| p.disks[1].serial = "base".into()),
            PlanError::Serial { .. }
        ));
        assert!(matches!(
            refused(|p| p.disks[1].serial = "a,b".into()),
            PlanError::Serial { .. }
        ));
        assert!(matches!(
            refused(|p| p.kernel = "vmlinux".into()),
            PlanError::Relative { .. }
        ));
        assert!(matches!(refused(|p| p.cpus = 0), PlanError::Nothing { .. }));
        let mut plan = plan();
        plan.sockets.qmp = Path::new("/r").join("x".repeat(104));
        assert!(spawn_spec(&plan).is_ok(), "107 bytes fit");
    }
}
