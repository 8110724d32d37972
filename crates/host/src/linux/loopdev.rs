//! Loop devices (linux/loop.h). They clear themselves: AUTOCLEAR is set in the same call that
//! attaches, and this host object holds the only opening until a dm table takes over.

use super::{LinuxHost, holder, ioctl, locked};
use crate::{Effect, Error, ErrorKind, LoopSeen, effects::Result};
use banger_model::Label;
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_GET_STATUS64: u32 = 0x4C05;
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo64 {
    const ZERO: LoopInfo64 = LoopInfo64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// How often a free number may be taken by somebody else before we give up.
const RACES: u32 = 64;

fn error(effect: Effect, what: &'static str, target: String, source: Errno) -> Error {
    let kind = ErrorKind::of_io(&source.into());
    Error::new(effect, what, target, kind, io::Error::from(source))
}

fn node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn sysfs(number: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/loop{number}"))
}

fn is_attached(number: u32) -> bool {
    sysfs(number).join("loop/backing_file").exists()
}

/// The status of a configured device; `NXIO` if it is not configured.
fn status(device: impl AsFd) -> Result<LoopInfo64, Errno> {
    let mut info = LoopInfo64::ZERO;
    // SAFETY: LOOP_GET_STATUS64 writes a loop_info64.
    unsafe { ioctl::change::<LOOP_GET_STATUS64, _>(device, &mut info) }.map(|()| info)
}

fn open_node(number: u32, access: OFlags) -> Result<OwnedFd, Errno> {
    open(node(number), access | OFlags::CLOEXEC, Mode::empty())
}

/// Attaches the file to this number, or `BUSY` if somebody was faster.
fn attach(number: u32, file: &OwnedFd, flags: u32, name: [u8; 64]) -> Result<OwnedFd, Errno> {
    let device = open_node(number, OFlags::RDWR)?;
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: 0,
        info: LoopInfo64 {
            flags,
            file_name: name,
            ..LoopInfo64::ZERO
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a loop_config.
    unsafe { ioctl::give::<LOOP_CONFIGURE, _>(&device, config) }?;
    Ok(device)
}

/// A number nobody uses; the kernel makes a new device when all are taken.
fn free_number() -> Result<u32, Errno> {
    let control = open(
        "/dev/loop-control",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(no_driver)?;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    unsafe { ioctl::number(control, LOOP_CTL_GET_FREE, 0) }.map_err(no_driver)
}

/// No control node, or no number left: either way there is no device for us.
fn no_driver(e: Errno) -> Errno {
    match e {
        Errno::NOENT | Errno::NOSPC => Errno::NODEV,
        other => other,
    }
}

/// Every configured loop device.
pub(super) fn list() -> Result<Vec<LoopSeen>> {
    let dir = Path::new("/sys/block");
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(super::fail(Effect::LoopList, "list", dir, e)),
    };
    let mut seen: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let number = name.to_str()?.strip_prefix("loop")?.parse().ok()?;
            look(number)
        })
        .collect();
    seen.sort_unstable_by_key(|device| device.number);
    Ok(seen)
}

/// One device, `None` if it is not configured. Whoever may not open it sees no label, and so never
/// takes it for theirs.
fn look(number: u32) -> Option<LoopSeen> {
    let backing = fs::read_to_string(sysfs(number).join("loop/backing_file")).ok()?;
    let label = match open_node(number, OFlags::RDONLY).and_then(status) {
        Ok(info) => ioctl::text(&info.file_name),
        Err(Errno::NXIO) => return None, // cleared between the two looks
        Err(_) => String::new(),
    };
    let backing = backing.trim_end();
    Some(LoopSeen {
        number,
        label,
        backing: (!backing.is_empty()).then(|| PathBuf::from(backing)),
    })
}

impl LinuxHost {
    /// [`Blocks::loop_attach`](crate::Blocks::loop_attach).
    pub(super) fn attach_loop(&self, path: &Path, read_only: bool, label: &Label) -> Result<u32> {
        const WHAT: &str = "attach a loop device to";
        let fail = |e| error(Effect::LoopAttach, WHAT, path.display().to_string(), e);
        let (access, flags) = match read_only {
            true => (OFlags::RDONLY, LO_FLAGS_AUTOCLEAR | LO_FLAGS_READ_ONLY),
            false => (OFlags::RDWR, LO_FLAGS_AUTOCLEAR),
        };
        let file = open(path, access | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        let name = ioctl::field(&label.to_string()).map_err(fail)?;
        for _ in 0..RACES {
            let number = free_number().map_err(fail)?;
            match attach(number, &file, flags, name) {
                Ok(device) => {
                    locked(&self.loops).insert(number, device);
                    return Ok(number);
                }
                // Taken between the two calls, or its node was removed with it.
                Err(Errno::BUSY | Errno::NOENT | Errno::NXIO) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        Err(fail(Errno::BUSY))
    }

    /// [`Blocks::loop_detach`](crate::Blocks::loop_detach).
    pub(super) fn detach_loop(&self, number: u32, label: &Label) -> Result<()> {
        const WHAT: &str = "detach";
        let target = || format!("/dev/loop{number}");
        let refuse = |kind, why: &str| Error::new(Effect::LoopDetach, WHAT, target(), kind, why);
        let fail = |e| match e {
            Errno::NXIO | Errno::NOENT => refuse(ErrorKind::NotFound, "it is not attached"),
            e => error(Effect::LoopDetach, WHAT, target(), e),
        };
        let device = open_node(number, OFlags::RDONLY).map_err(fail)?;
        let info = status(&device).map_err(fail)?;
        if ioctl::text(&info.file_name) != label.to_string() {
            return Err(refuse(ErrorKind::Foreign, "it does not carry our label"));
        }
        if let Some(above) = above(number) {
            return Err(refuse(ErrorKind::Busy, &format!("{above} holds it")));
        }
        let its_number = rustix::fs::fstat(&device).map_err(fail)?.st_rdev;
        locked(&self.loops).remove(&number);
        // With other openers (a udev that looks) the kernel only marks it; it goes with the last.
        // SAFETY: LOOP_CLR_FD takes no argument.
        unsafe { ioctl::number(&device, LOOP_CLR_FD, 0) }.map_err(fail)?;
        drop(device);
        if is_attached(number) && look(number).is_some_and(|d| d.label == label.to_string()) {
            let holder = holder::of_device(its_number);
            let why = holder.unwrap_or_else(|| "someone has it open".to_owned());
            return Err(refuse(ErrorKind::Busy, &why));
        }
        Ok(())
    }
}

/// The name of a device on top of this one.
fn above(number: u32) -> Option<String> {
    let entry = fs::read_dir(sysfs(number).join("holders")).ok()?.next()?;
    Some(entry.ok()?.file_name().to_string_lossy().into_owned())
}

/// `major:minor` as sysfs says it; the minor is not always the number (partitions).
pub(super) fn device_number(number: u32) -> Option<String> {
    let text = fs::read_to_string(sysfs(number).join("dev")).ok()?;
    is_attached(number).then(|| text.trim().to_owned())
}
