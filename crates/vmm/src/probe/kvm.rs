//! Whether KVM really runs guests.
//!
//! The node alone proves nothing: there are machines on which it opens, speaks the right API version and makes VMs
//! that never get past early boot, because the processor has no virtualisation. So: the CPU's flag, the device, and a
//! guest of three instructions. Interface: Documentation/virt/kvm/api.rst of the Linux source.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::Fact;

/// What was found about KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmProbe {
    /// `vmx` or `svm`, if the processor has one.
    pub cpu_flag: Option<&'static str>,
    /// The device node.
    pub device: KvmDevice,
    /// The guest of three instructions.
    pub guest: GuestRun,
}

/// What became of `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmDevice {
    /// No such node.
    Absent,
    /// It is there and does not open.
    Refused {
        /// The kernel's words.
        why: String,
    },
    /// It opens; 12 is the one stable API version.
    Opens {
        /// What KVM_GET_API_VERSION said.
        api: i32,
    },
}

/// What became of the guest of three instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestRun {
    /// Something before it was missing.
    NotTried,
    /// It wrote its byte and halted.
    Ran,
    /// It did not.
    Failed {
        /// Where it ended.
        why: String,
    },
}

const API: i32 = 12;

/// Three instructions run in microseconds; a second is for a machine that swaps.
const GUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks at the processor and the device and runs the guest, if both are there. At most a second.
pub fn probe_kvm() -> KvmProbe {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu_flag = virtualisation_flag(&cpuinfo);
    let (device, file) = open_device(Path::new("/dev/kvm"));
    let guest = match (cpu_flag, file) {
        (Some(_), Some(file)) if device == (KvmDevice::Opens { api: API }) => run_bounded(file),
        _ => GuestRun::NotTried,
    };
    KvmProbe {
        cpu_flag,
        device,
        guest,
    }
}

impl KvmProbe {
    /// The first thing that stands in the way, as a clause; `None` if KVM is usable.
    pub fn obstacle(&self) -> Option<String> {
        if self.cpu_flag.is_none() {
            return Some("the processor has neither vmx nor svm".to_owned());
        }
        match (&self.device, &self.guest) {
            (KvmDevice::Absent, _) => Some("there is no /dev/kvm".to_owned()),
            (KvmDevice::Refused { why }, _) => Some(format!("/dev/kvm does not open ({why})")),
            (KvmDevice::Opens { api }, _) if *api != API => {
                Some(format!("/dev/kvm speaks API {api} instead of {API}"))
            }
            (_, GuestRun::Failed { why }) => {
                Some(format!("a guest of three instructions did not run ({why})"))
            }
            (_, GuestRun::NotTried) => Some("no guest was tried".to_owned()),
            (_, GuestRun::Ran) => None,
        }
    }

    /// Whether guests run on hardware here.
    pub fn usable(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Rows for `doctor`.
    pub fn explain(&self) -> Vec<Fact> {
        let flag = Fact {
            what: "CPU virtualisation",
            good: self.cpu_flag.is_some(),
            seen: self.cpu_flag.map_or("neither vmx nor svm".to_owned(), |f| format!("{f} is there")),
            hint: self.cpu_flag.is_none().then_some(
                "switch virtualisation on in the firmware, or nested virtualisation where this machine is itself virtual; VMs run under emulation meanwhile",
            ),
        };
        let (good, seen, hint) = match &self.device {
            KvmDevice::Absent => (
                false,
                "absent".to_owned(),
                Some("load the module kvm_intel or kvm_amd"),
            ),
            KvmDevice::Refused { why } => {
                (false, why.clone(), Some("become a member of the group kvm"))
            }
            KvmDevice::Opens { api } => (*api == API, format!("opens, API {api}"), None),
        };
        let device = Fact {
            what: "/dev/kvm",
            good,
            seen,
            hint,
        };
        let mut facts = vec![flag, device];
        let (good, seen) = match &self.guest {
            // For one of the reasons above.
            GuestRun::NotTried => return facts,
            GuestRun::Ran => (true, "ran three instructions".to_owned()),
            GuestRun::Failed { why } => (false, why.clone()),
        };
        facts.push(Fact {
            what: "KVM guest",
            good,
            seen,
            hint: None,
        });
        facts
    }
}

/// The flag among those of the first processor.
fn virtualisation_flag(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("flags")?.split_once(':'))?
        .1;
    ["vmx", "svm"]
        .into_iter()
        .find(|wanted| flags.split_whitespace().any(|f| f == *wanted))
}

fn open_device(path: &Path) -> (KvmDevice, Option<File>) {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => match call(&file, KVM_GET_API_VERSION, 0) {
            Ok(api) => (KvmDevice::Opens { api }, Some(file)),
            Err(e) => (
                KvmDevice::Refused {
                    why: format!("it does not tell its API version: {e}"),
                },
                None,
            ),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (KvmDevice::Absent, None),
        Err(e) => (KvmDevice::Refused { why: e.to_string() }, None),
    }
}

/// Runs the guest in a thread of its own. One that never comes back keeps its thread and its page of memory: nothing
/// can take them from it, and the process only lives on without it.
fn run_bounded(kvm: File) -> GuestRun {
    let (tell, told) = mpsc::channel();
    let spawned = std::thread::Builder::new()
        .name("kvm-probe".into())
        .spawn(move || {
            let _ = tell.send(run_guest(&kvm));
        });
    if let Err(e) = spawned {
        return GuestRun::Failed {
            why: format!("no thread for it: {e}"),
        };
    }
    match told.recv_timeout(GUEST_TIMEOUT) {
        Ok(Ok(())) => GuestRun::Ran,
        Ok(Err(why)) => GuestRun::Failed { why },
        Err(_) => GuestRun::Failed {
            why: format!("it did not halt within {GUEST_TIMEOUT:?}"),
        },
    }
}

// Numbers of linux/kvm.h: _IO(0xAE, n), or with direction and size where a structure is passed.
const KVM_GET_API_VERSION: Opcode = 0xAE00;
const KVM_CREATE_VM: Opcode = 0xAE01;
const KVM_GET_VCPU_MMAP_SIZE: Opcode = 0xAE04;
const KVM_CREATE_VCPU: Opcode = 0xAE41;
const KVM_SET_TSS_ADDR: Opcode = 0xAE47;
const KVM_SET_USER_MEMORY_REGION: Opcode = 0x4020_AE46;
const KVM_RUN: Opcode = 0xAE80;
const KVM_SET_REGS: Opcode = 0x4090_AE82;
const KVM_GET_SREGS: Opcode = 0x8138_AE83;
const KVM_SET_SREGS: Opcode = 0x4138_AE84;

const KVM_EXIT_IO: u32 = 2;
const KVM_EXIT_HLT: u32 = 5;

/// `mov $0x42,%al; out %al,$0x10; hlt` in real mode.
const CODE: [u8; 5] = [0xb0, 0x42, 0xe6, 0x10, 0xf4];
const PAGE: usize = 4096;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

struct Call {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: the opcodes are those of linux/kvm.h and each argument is an integer or points to the structure that the
// opcode's size field announces; `call_with` and `call` are the only makers.
unsafe impl Ioctl for Call {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

fn call(fd: impl AsFd, opcode: Opcode, argument: usize) -> Result<i32, Errno> {
    // SAFETY: these opcodes take an integer.
    unsafe {
        ioctl::ioctl(
            fd,
            Call {
                opcode,
                argument: std::ptr::without_provenance_mut(argument),
            },
        )
    }
}

fn call_with<T>(fd: impl AsFd, opcode: Opcode, argument: &mut T) -> Result<i32, Errno> {
    // The size is part of the opcode (bits 16 to 29): a wrong structure is a bug found at the first call.
    assert_eq!(
        size_of::<T>(),
        (opcode as usize >> 16) & 0x3fff,
        "structure of opcode {opcode:#x}"
    );
    // SAFETY: the structure has the announced size and outlives the call.
    unsafe {
        ioctl::ioctl(
            fd,
            Call {
                opcode,
                argument: std::ptr::from_mut(argument).cast(),
            },
        )
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: KVM_CREATE_VM and KVM_CREATE_VCPU return a new descriptor that nobody else holds.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

fn run_guest(kvm: &File) -> Result<(), String> {
    let failed = |what: &'static str| move |e: Errno| format!("{what}: {e}");
    let vm = owned(call(kvm, KVM_CREATE_VM, 0).map_err(failed("KVM_CREATE_VM"))?);
    // Older Intel processors emulate real mode and want three pages for it; others do not care.
    let _ = call(&vm, KVM_SET_TSS_ADDR, 0xfffb_d000);
    let memory = Mapping::anonymous(PAGE).map_err(failed("mmap of guest memory"))?;
    memory.write(0, &CODE);
    let mut region = MemoryRegion {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: PAGE as u64,
        userspace_addr: memory.at as u64,
    };
    call_with(&vm, KVM_SET_USER_MEMORY_REGION, &mut region)
        .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    let vcpu = owned(call(&vm, KVM_CREATE_VCPU, 0).map_err(failed("KVM_CREATE_VCPU"))?);
    let size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0).map_err(failed("KVM_GET_VCPU_MMAP_SIZE"))?;
    let run = Mapping::of(&vcpu, usize::try_from(size).unwrap_or(0).max(PAGE))
        .map_err(failed("mmap of the vcpu"))?;
    set_registers(&vcpu)?;

    call(&vcpu, KVM_RUN, 0).map_err(failed("KVM_RUN"))?;
    let reason = run.u32_at(8);
    let port = run.u32_at(32) >> 16;
    if reason != KVM_EXIT_IO || port != 0x10 {
        return Err(format!(
            "its first exit was {reason} at port {port:#x} instead of its write to a port"
        ));
    }
    call(&vcpu, KVM_RUN, 0).map_err(failed("KVM_RUN"))?;
    match run.u32_at(8) {
        KVM_EXIT_HLT => Ok(()),
        other => Err(format!("its second exit was {other} instead of its halt")),
    }
}

/// Real mode at address 0.
fn set_registers(vcpu: &OwnedFd) -> Result<(), String> {
    // `struct kvm_sregs`: the code segment comes first: base (8 bytes), limit (4), selector (2).
    let mut sregs = [0u8; 0x138];
    call_with(vcpu, KVM_GET_SREGS, &mut sregs).map_err(|e| format!("KVM_GET_SREGS: {e}"))?;
    sregs[0..8].fill(0);
    sregs[12..14].fill(0);
    call_with(vcpu, KVM_SET_SREGS, &mut sregs).map_err(|e| format!("KVM_SET_SREGS: {e}"))?;
    // `struct kvm_regs`: sixteen general registers, rip, rflags (bit 1 is always set).
    let mut regs = [0u64; 18];
    regs[17] = 2;
    call_with(vcpu, KVM_SET_REGS, &mut regs).map_err(|e| format!("KVM_SET_REGS: {e}"))?;
    Ok(())
}

/// Memory shared with the kernel; unmapped at the end.
struct Mapping {
    at: *mut c_void,
    len: usize,
}

impl Mapping {
    fn anonymous(len: usize) -> Result<Mapping, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::SHARED)? };
        Ok(Mapping { at, len })
    }

    fn of(fd: &OwnedFd, len: usize) -> Result<Mapping, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        Ok(Mapping { at, len })
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: within the mapping, which nobody reads before the guest runs.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.at.cast::<u8>().add(offset),
                bytes.len(),
            )
        }
    }

    fn u32_at(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len);
        // SAFETY: within the mapping; the kernel writes it only while KVM_RUN is executing.
        unsafe {
            self.at
                .cast::<u8>()
                .add(offset)
                .cast::<u32>()
                .read_volatile()
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, mapped with this length, no reference into it is left.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_a_whole_word_of_the_flags_line() {
        assert_eq!(virtualisation_flag("flags\t\t: fpu vmx sse\n"), Some("vmx"));
        assert_eq!(virtualisation_flag("flags : fpu svm\n"), Some("svm"));
        assert_eq!(
            virtualisation_flag("flags : fpu vmx_only svm_lock\nbugs : vmx\n"),
            None
        );
        assert_eq!(virtualisation_flag(""), None);
    }

    #[test]
    fn each_obstacle_is_named_and_explained() {
        let probe = |cpu_flag, device, guest| KvmProbe {
            cpu_flag,
            device,
            guest,
        };
        let cases = [
            (
                probe(None, KvmDevice::Opens { api: 12 }, GuestRun::NotTried),
                "neither vmx nor svm",
            ),
            (
                probe(Some("vmx"), KvmDevice::Absent, GuestRun::NotTried),
                "no /dev/kvm",
            ),
            (
                probe(
                    Some("vmx"),
                    KvmDevice::Refused {
                        why: "denied".into(),
                    },
                    GuestRun::NotTried,
                ),
                "denied",
            ),
            (
                probe(
                    Some("vmx"),
                    KvmDevice::Opens { api: 11 },
                    GuestRun::NotTried,
                ),
                "API 11",
            ),
            (
                probe(
                    Some("svm"),
                    KvmDevice::Opens { api: 12 },
                    GuestRun::Failed {
                        why: "exit 8".into(),
                    },
                ),
                "exit 8",
            ),
        ];
        for (probe, says) in cases {
            assert!(
                probe.obstacle().is_some_and(|o| o.contains(says)),
                "{probe:?}"
            );
            assert!(probe.explain().iter().any(|fact| !fact.good));
        }
        let good = probe(Some("svm"), KvmDevice::Opens { api: 12 }, GuestRun::Ran);
        assert!(good.usable() && good.explain().iter().all(|fact| fact.good));
    }

    /// Whatever this machine is, the answer comes in bounded time and agrees with the processor's flag.
    #[test]
    fn this_machine_gets_an_answer() {
        let started = std::time::Instant::now();
        let probe = probe_kvm();
        assert!(started.elapsed() < GUEST_TIMEOUT * 3);
        assert!(probe.cpu_flag.is_some() || !probe.usable(), "{probe:?}");
    }

    /// Where the device opens, the guest itself is run, flag or not: the code above must not be wrong.
    #[test]
    fn the_guest_ends_in_bounded_time_where_the_device_opens() {
        let (device, file) = open_device(Path::new("/dev/kvm"));
        match file {
            Some(file) => assert_ne!(run_bounded(file), GuestRun::NotTried),
            None => println!("Skipped(no usable /dev/kvm: {device:?})"),
        }
    }
}
