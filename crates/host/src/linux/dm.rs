//! Device-mapper by its ioctls (linux/dm-ioctl.h); no libdevmapper, no dmsetup.

mod buffer;

use super::{LinuxHost, holder, locked, loopdev};
use crate::{
    Blocks, DmSeen, DmState, DmTable, Effect, Error, ErrorKind, LoopSeen, effects::Result,
};
use banger_model::{DmName, Label};
use buffer::{Buffer, Command, Found};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    io::Errno,
};
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt, unix::fs::symlink},
    path::{Path, PathBuf},
};

/// A label as a uuid: `.` for `/`, as libdevmapper has no `/` in uuids, and every tool on it (dmsetup, LVM) fails on a
/// machine where it meets one.
fn uuid_of(label: &Label) -> String {
    label.to_string().replace('/', ".")
}

/// The label a uuid stands for, or the uuid itself.
fn label_of(uuid: String) -> String {
    match uuid.replace('.', "/").parse::<Label>() {
        Ok(label) => label.to_string(),
        Err(_) => uuid,
    }
}

/// The control node; `NODEV` where the kernel has no device-mapper.
fn control() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    open("/dev/mapper/control", flags, Mode::empty()).map_err(|e| match e {
        Errno::NOENT | Errno::NXIO => Errno::NODEV,
        other => other,
    })
}

/// Whether device-mapper can be used here: the kernel has it and we may.
///
/// # Errors
/// The kernel's: `ENODEV` without device-mapper, `EACCES` without the right.
pub fn device_mapper() -> io::Result<()> {
    control().map(drop).map_err(io::Error::from)
}

fn error(effect: Effect, what: &'static str, name: &str, source: Errno) -> Error {
    let kind = ErrorKind::of_io(&source.into());
    Error::new(effect, what, name, kind, io::Error::from(source))
}

fn refusal(effect: Effect, what: &'static str, name: &DmName, kind: ErrorKind, why: &str) -> Error {
    Error::new(effect, what, name.as_str(), kind, why)
}

/// The device of that name; `None` if there is none.
fn find(control: &OwnedFd, name: &str) -> Result<Option<Found>, Errno> {
    let mut buffer = Buffer::named(name)?;
    match buffer.call(control, Command::DevStatus) {
        Ok(()) => Ok(Some(buffer.found())),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The device, if it is there and ours.
fn ours(
    effect: Effect,
    what: &'static str,
    name: &DmName,
    label: &Label,
) -> Result<(OwnedFd, Found)> {
    let control = control().map_err(|e| match e {
        Errno::NODEV => refusal(
            effect,
            what,
            name,
            ErrorKind::NotFound,
            "no device-mapper here",
        ),
        e => error(effect, what, name.as_str(), e),
    })?;
    match find(&control, name.as_str()).map_err(|e| error(effect, what, name.as_str(), e))? {
        None => Err(refusal(
            effect,
            what,
            name,
            ErrorKind::NotFound,
            "no such device",
        )),
        Some(found) if found.uuid != uuid_of(label) => {
            let why = format!("its uuid is '{}', not our label", found.uuid);
            Err(refusal(effect, what, name, ErrorKind::Foreign, &why))
        }
        Some(found) => Ok((control, found)),
    }
}

fn node(name: &DmName) -> PathBuf {
    Path::new("/dev/mapper").join(name.as_str())
}

/// Makes `/dev/mapper/<name>` if udev has not: a link such as udev makes, which it then takes for
/// its own, or a node where there is none to link to.
fn make_node(name: &DmName, dev: u64) -> Result<(), Errno> {
    let path = node(name);
    if fs::metadata(&path).is_ok_and(|meta| meta.rdev() == dev) {
        return Ok(());
    }
    remove_node(name)?;
    let minor = rustix::fs::minor(dev);
    let made = match fs::metadata(format!("/dev/dm-{minor}")) {
        Ok(meta) if meta.rdev() == dev => symlink(format!("../dm-{minor}"), &path)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        _ => mknodat(
            CWD,
            &path,
            FileType::BlockDevice,
            Mode::RUSR | Mode::WUSR,
            dev,
        ),
    };
    match made {
        // udev was faster.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn remove_node(name: &DmName) -> Result<(), Errno> {
    match rustix::fs::unlink(node(name)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The one line of a table: start, length and target, and the target's own parameters.
fn parameters(table: &DmTable) -> Result<String, &'static str> {
    let DmTable::Snapshot {
        base_loop,
        cow_loop,
        chunk,
        ..
    } = table;
    let gone = "a loop device it names is not attached";
    let base = loopdev::device_number(*base_loop).ok_or(gone)?;
    let cow = loopdev::device_number(*cow_loop).ok_or(gone)?;
    Ok(format!("{base} {cow} P {chunk}"))
}

impl Blocks for LinuxHost {
    fn loops(&self) -> Result<Vec<LoopSeen>> {
        loopdev::list()
    }

    fn loop_attach(&self, file: &Path, read_only: bool, label: &Label) -> Result<u32> {
        self.attach_loop(file, read_only, label)
    }

    fn loop_detach(&self, number: u32, label: &Label) -> Result<()> {
        self.detach_loop(number, label)
    }

    fn dms(&self) -> Result<Vec<DmSeen>> {
        let fail = |e| error(Effect::DmList, "list", "device-mapper devices", e);
        let control = match control() {
            Ok(control) => control,
            Err(Errno::NODEV) => return Ok(Vec::new()),
            // Only root may ask; whoever may not has none of their own.
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Vec::new()),
            Err(e) => return Err(fail(e)),
        };
        let mut seen = Vec::new();
        for name in buffer::names(&control).map_err(fail)? {
            // Gone between the two calls: not there.
            if let Some(found) = find(&control, &name).map_err(fail)? {
                seen.push(DmSeen {
                    name,
                    uuid: label_of(found.uuid),
                    state: found.state,
                });
            }
        }
        seen.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(seen)
    }

    fn dm_create(&self, name: &DmName, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::DmCreate, "make the device");
        let fail = |e| error(effect, what, name.as_str(), e);
        let control = control().map_err(fail)?;
        let mut buffer = Buffer::named(name.as_str()).map_err(fail)?;
        buffer.set_uuid(&uuid_of(label)).map_err(fail)?;
        match buffer.call(&control, Command::DevCreate) {
            Ok(()) => Ok(()),
            // EBUSY is how the kernel says that the name or the uuid is taken.
            Err(Errno::BUSY | Errno::EXIST) => {
                let why = "a device of that name or uuid is there";
                Err(refusal(effect, what, name, ErrorKind::Exists, why))
            }
            Err(e) => Err(fail(e)),
        }
    }

    fn dm_load(&self, name: &DmName, label: &Label, table: &DmTable) -> Result<()> {
        let (effect, what) = (Effect::DmLoad, "load the table of");
        let (control, found) = ours(effect, what, name, label)?;
        if found.state == DmState::Live {
            let why = "a live table is not replaced";
            return Err(refusal(effect, what, name, ErrorKind::Busy, why));
        }
        let text = parameters(table)
            .map_err(|why| refusal(effect, what, name, ErrorKind::NoDevice, why))?;
        let DmTable::Snapshot {
            sectors,
            base_loop,
            cow_loop,
            ..
        } = table;
        let fail = |e| error(effect, what, name.as_str(), e);
        let mut buffer = Buffer::named(name.as_str()).map_err(fail)?;
        buffer
            .set_table(*sectors, "snapshot", &text)
            .map_err(fail)?;
        buffer.call(&control, Command::TableLoad).map_err(fail)?;
        // The table holds them now; with it they go.
        let mut held = locked(&self.loops);
        held.remove(base_loop);
        held.remove(cow_loop);
        Ok(())
    }

    fn dm_resume(&self, name: &DmName, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::DmResume, "make live");
        let (control, found) = ours(effect, what, name, label)?;
        if found.state == DmState::Created {
            // The kernel says yes and does nothing.
            let why = "no table is loaded";
            return Err(refusal(effect, what, name, ErrorKind::Other, why));
        }
        let fail = |e| error(effect, what, name.as_str(), e);
        let mut buffer = Buffer::named(name.as_str()).map_err(fail)?;
        buffer.call(&control, Command::DevSuspend).map_err(fail)?;
        make_node(name, buffer.found().dev).map_err(fail)
    }

    fn dm_remove(&self, name: &DmName, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::DmRemove, "remove the device");
        let (control, found) = ours(effect, what, name, label)?;
        let fail = |e| error(effect, what, name.as_str(), e);
        let mut buffer = Buffer::named(name.as_str()).map_err(fail)?;
        // The node first: whoever dies between leaves a device that can still be found and removed,
        // never a node that points to the next device of this number.
        remove_node(name).map_err(fail)?;
        match buffer.call(&control, Command::DevRemove) {
            Ok(()) => Ok(()),
            Err(e) => {
                if found.state == DmState::Live {
                    make_node(name, found.dev).map_err(fail)?;
                }
                match holder::of_device(found.dev).filter(|_| e == Errno::BUSY) {
                    Some(why) => Err(refusal(effect, what, name, ErrorKind::Busy, &why)),
                    None => Err(fail(e)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{Instance, Role, VmId};

    #[test]
    fn a_uuid_has_only_what_libdevmapper_knows_and_gives_the_label_back() {
        let (instance, vm) = (Instance::from_bytes([0xaa; 4]), VmId::from_bytes([7; 6]));
        let label = Label::vm(instance, vm, Role::DmSnapshot);
        let uuid = uuid_of(&label);
        let known = |b: u8| b.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&b);
        assert!(uuid.bytes().all(known), "{uuid}");
        assert_eq!(label_of(uuid), label.to_string());
        assert_eq!(label_of("LVM-a.b".to_owned()), "LVM-a.b");
    }
}
