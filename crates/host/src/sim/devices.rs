//! `Blocks` and `Jails` on the simulated machine.

use super::{
    fs::{Answer, Refusal},
    host::SimHost,
    world::{Dm, Loop, World},
};
use crate::{
    Blocks, DmSeen, DmState, DmTable, Effect, ErrorKind, Jails, LoopSeen, effects::Result,
};
use banger_model::{DmName, Label};
use std::{collections::BTreeSet, path::Path, rc::Rc};

const FOREIGN: Refusal = Refusal(ErrorKind::Foreign, "it does not carry our label");

impl World {
    fn our_loop(&mut self, number: u32, label: &Label) -> Answer<()> {
        match self.kernel.loops.get(&number) {
            None => Err(Refusal(ErrorKind::NotFound, "no such loop device")),
            Some(device) if *device.label != *label.to_string() => Err(FOREIGN),
            Some(_) => Ok(()),
        }
    }

    fn our_dm(&mut self, name: &DmName, label: &Label) -> Answer<&mut Dm> {
        match self.kernel_mut().dms.get_mut(name.as_str()) {
            None => Err(Refusal(ErrorKind::NotFound, "no such device")),
            Some(device) if *device.uuid != *label.to_string() => Err(FOREIGN),
            Some(device) => Ok(device),
        }
    }

    fn attach(&mut self, file: &Path, read_only: bool, label: &Label, daemon: u32) -> Answer<u32> {
        let Some(backing) = self.fs.resolve(file)? else {
            return Err(Refusal(ErrorKind::NotFound, "no such file"));
        };
        if self.fs.content(file).is_none() {
            // EISDIR for writing; for reading LOOP_CONFIGURE itself says EINVAL.
            return Err(Refusal(ErrorKind::Other, "not a regular file"));
        }
        let number = (0..self.nature.max_loops)
            .find(|n| !self.kernel.loops.contains_key(n))
            .ok_or(Refusal(ErrorKind::NoDevice, "no free loop device"))?;
        if !read_only
            && self
                .kernel
                .loops
                .values()
                .any(|l| l.backing == backing && !l.read_only)
        {
            self.sin(format!("{} was attached twice for writing", file.display()));
        }
        let device = Loop {
            label: label.to_string().into(),
            path: file.to_str().unwrap_or("").into(),
            backing,
            read_only,
            openers: BTreeSet::from([daemon]),
            autoclear: true,
        };
        self.kernel_mut().loops.insert(number, device);
        Ok(number)
    }

    fn load(&mut self, name: &DmName, label: &Label, table: &DmTable, daemon: u32) -> Answer<()> {
        let DmTable::Snapshot {
            base_loop,
            cow_loop,
            ..
        } = table;
        if self.our_dm(name, label)?.state == DmState::Live {
            return Err(Refusal(ErrorKind::Busy, "a live table is not replaced"));
        }
        for number in [base_loop, cow_loop] {
            if !self.kernel.loops.contains_key(number) {
                return Err(Refusal(ErrorKind::NoDevice, "the table names no device"));
            }
        }
        if self.kernel.loops.get(cow_loop).is_some_and(|l| l.read_only) {
            // dm opens it all the same; writing the header into the new store is EIO.
            return Err(Refusal(ErrorKind::Other, "the CoW device is read-only"));
        }
        let other = |(n, d): (&Rc<str>, &Dm)| {
            **n != *name.as_str() && d.under.is_some_and(|(_, cow)| cow == *cow_loop)
        };
        if self.kernel.dms.iter().any(other) {
            self.sin(format!("two snapshots share CoW device loop{cow_loop}"));
        }
        let (base, cow) = (*base_loop, *cow_loop);
        if base == cow {
            // dm-snap.c, snapshot_ctr: "Exception store device and origin must differ".
            return Err(Refusal(ErrorKind::Other, "the CoW device is the base"));
        }
        let device = self.our_dm(name, label)?;
        if device.under == Some((base, cow)) {
            // __validate_exception_handover: the table that waits is still there while the new one
            // is made, and only a live one hands its exceptions over. Snapshots are known by their
            // base: over another one the kernel does not see that they share.
            return Err(Refusal(ErrorKind::Other, "that very table waits already"));
        }
        device.state = DmState::Loaded;
        device.under = Some((base, cow));
        for number in [base, cow] {
            if let Some(device) = self.kernel_mut().loops.get_mut(&number) {
                device.openers.remove(&daemon);
            }
        }
        // Loading again lets go of what the table before it held.
        self.clear_loops();
        Ok(())
    }
}

impl Blocks for SimHost {
    fn loops(&self) -> Result<Vec<LoopSeen>> {
        self.effect(Effect::LoopList, "list", "loop devices", |world| {
            let seen = |(number, device): (&u32, &Loop)| LoopSeen {
                number: *number,
                label: device.label.to_string(),
                backing: Some(Path::new(&*device.path).to_owned()),
            };
            Ok(world.kernel.loops.iter().map(seen).collect())
        })
    }

    fn loop_attach(&self, file: &Path, read_only: bool, label: &Label) -> Result<u32> {
        self.effect(
            Effect::LoopAttach,
            "attach a loop device to",
            file.display(),
            |world| world.attach(file, read_only, label, self.daemon()),
        )
    }

    fn loop_detach(&self, number: u32, label: &Label) -> Result<()> {
        self.effect(Effect::LoopDetach, "detach loop device", number, |world| {
            world.our_loop(number, label)?;
            if world.loop_under_dm(number) {
                return Err(Refusal(ErrorKind::Busy, "a dm device holds it"));
            }
            if let Some(device) = world.kernel_mut().loops.get_mut(&number) {
                device.openers.remove(&self.daemon());
                // LOOP_CLR_FD with other openers only marks it; it goes with the last of them.
                device.autoclear = true;
                if !device.openers.is_empty() {
                    return Err(Refusal(ErrorKind::Busy, "another daemon has it open"));
                }
            }
            world.kernel_mut().loops.remove(&number);
            Ok(())
        })
    }

    fn dms(&self) -> Result<Vec<DmSeen>> {
        self.effect(Effect::DmList, "list", "dm devices", |world| {
            let seen = |(name, device): (&Rc<str>, &Dm)| DmSeen {
                name: name.to_string(),
                uuid: device.uuid.to_string(),
                state: device.state,
            };
            Ok(world.kernel.dms.iter().map(seen).collect())
        })
    }

    fn dm_create(&self, name: &DmName, label: &Label) -> Result<()> {
        self.effect(Effect::DmCreate, "create dm device", name, |world| {
            if !world.nature.has_dm {
                return Err(Refusal(
                    ErrorKind::NoDevice,
                    "no device-mapper in this kernel",
                ));
            }
            if world.kernel.dms.contains_key(name.as_str()) {
                return Err(Refusal(ErrorKind::Exists, "a device of that name is there"));
            }
            let uuid: Rc<str> = label.to_string().into();
            if world.kernel.dms.values().any(|d| d.uuid == uuid) {
                return Err(Refusal(ErrorKind::Exists, "a device of that uuid is there"));
            }
            let device = Dm {
                uuid,
                state: DmState::Created,
                under: None,
            };
            world.kernel_mut().dms.insert(name.as_str().into(), device);
            Ok(())
        })
    }

    fn dm_load(&self, name: &DmName, label: &Label, table: &DmTable) -> Result<()> {
        self.effect(Effect::DmLoad, "load the table of", name, |world| {
            world.load(name, label, table, self.daemon())
        })
    }

    fn dm_resume(&self, name: &DmName, label: &Label) -> Result<()> {
        self.effect(Effect::DmResume, "resume", name, |world| {
            let device = world.our_dm(name, label)?;
            if device.under.is_none() {
                return Err(Refusal(ErrorKind::Other, "no table is loaded"));
            }
            device.state = DmState::Live;
            Ok(())
        })
    }

    fn dm_remove(&self, name: &DmName, label: &Label) -> Result<()> {
        self.effect(Effect::DmRemove, "remove dm device", name, |world| {
            world.our_dm(name, label)?;
            if world.dm_open(name.as_str()) {
                return Err(Refusal(ErrorKind::Busy, "a process has it open"));
            }
            world.kernel_mut().dms.remove(name.as_str());
            world.clear_loops();
            Ok(())
        })
    }
}

impl Jails for SimHost {
    fn jails(&self) -> Result<Vec<Label>> {
        self.effect(Effect::JailList, "list", "jails", |world| {
            Ok(world.jails.keys().copied().collect())
        })
    }

    fn jail_create(&self, label: &Label) -> Result<()> {
        self.effect(Effect::JailCreate, "make jail", label, |world| {
            world.space()?;
            if world.jails.contains_key(label) {
                return Err(Refusal(ErrorKind::Exists, "the jail is there"));
            }
            Rc::make_mut(&mut world.jails).insert(*label, 2);
            Ok(())
        })
    }

    fn jail_remove(&self, label: &Label) -> Result<()> {
        let prefixes = |world: &World, _| {
            let mut half = world.clone();
            match Rc::make_mut(&mut half.jails).get_mut(label) {
                Some(left) => {
                    *left = 1;
                    vec![half]
                }
                None => Vec::new(),
            }
        };
        self.effect_with_prefixes(
            Effect::JailRemove,
            "remove jail",
            label,
            prefixes,
            |world| {
                if world.processes.values().any(|p| {
                    p.is_alive() && p.guest.is_some_and(|(vm, _)| label.vm_id() == Some(vm))
                }) {
                    world.sin(format!("{label} was removed under a live VMM"));
                }
                match Rc::make_mut(&mut world.jails).remove(label) {
                    Some(_) => Ok(()),
                    None => Err(Refusal(ErrorKind::NotFound, "no such jail")),
                }
            },
        )
    }

    fn cgroups(&self) -> Result<Vec<Label>> {
        // Named like the jails' listing in the table: both look for labelled directories.
        self.effect(Effect::JailList, "list", "cgroups", |world| {
            Ok(world.kernel.cgroups.iter().copied().collect())
        })
    }

    fn cgroup_create(&self, label: &Label) -> Result<()> {
        self.effect(
            Effect::CgroupCreate,
            "make cgroup",
            label,
            |world| match world.kernel_mut().cgroups.insert(*label) {
                true => Ok(()),
                false => Err(Refusal(ErrorKind::Exists, "the cgroup is there")),
            },
        )
    }

    fn cgroup_remove(&self, label: &Label) -> Result<()> {
        self.effect(Effect::CgroupRemove, "remove cgroup", label, |world| {
            if world
                .processes
                .values()
                .any(|p| p.is_alive() && p.cgroup == Some(*label))
            {
                return Err(Refusal(ErrorKind::Busy, "a process is in it"));
            }
            match world.kernel_mut().cgroups.remove(label) {
                true => Ok(()),
                false => Err(Refusal(ErrorKind::NotFound, "no such cgroup")),
            }
        })
    }
}
