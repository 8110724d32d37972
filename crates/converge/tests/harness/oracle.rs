//! The judge. `plan::check` over what the code under test sees, and over that, looking at the world
//! itself, what it cannot know: what users were told, what is a stranger's, what became of the disks.

use super::{
    acks::Acks,
    drive::with_env,
    site::{self, BASE, FIRST_COME, FIRST_COMERS, TEMPLATE},
};
use banger_converge::{Site, views, whole};
use banger_host::sim::{SimHost, State, Word, World};
use banger_model::{ByteSize, Goal, Label, Phase, VmId};
use banger_plan::{Acknowledged, Finding, check};
use std::collections::{BTreeMap, BTreeSet};

/// Judges a world in which every operation has ended and every daemon is dead. No finding is good.
pub fn judge(world: &World, acks: &Acks, origin: &World) -> Vec<String> {
    let stuck = stuck_vms(world);
    let mut findings: Vec<String> = world.sins.iter().cloned().collect();
    for instance in 0..2 {
        let site = site::site(instance);
        if instance == 0 || !world.rows(site.instance).vms.is_empty() {
            findings.extend(checked(world, acks, &site, &stuck));
        }
        findings.extend(table(world, &site, &stuck));
    }
    findings.extend(disks(world, acks));
    findings.extend(logs(world, acks));
    findings.extend(promises(world, acks, &stuck));
    findings.extend(unready(world));
    findings.extend(sizes(world, acks));
    findings.extend(strangers(world, origin));
    findings.extend(ownerless(world, acks));
    findings
}

/// VMs whose processes no one can end before the host reboots.
fn stuck_vms(world: &World) -> BTreeSet<VmId> {
    let stuck = world
        .processes
        .values()
        .filter(|p| matches!(p.state, State::Stuck { .. }));
    stuck.filter_map(|p| p.guest.map(|(vm, _)| vm)).collect()
}

fn of_vm(finding: &Finding) -> Option<VmId> {
    match finding {
        Finding::LeftOver { vm, .. }
        | Finding::Unsettled { vm, .. }
        | Finding::Undead(vm)
        | Finding::LostVm(vm) => Some(*vm),
        _ => None,
    }
}

/// A disk that a script took away is missing: the oracle is right, and nobody is to blame.
fn told_lost(finding: &Finding, acks: &Acks) -> bool {
    let Finding::LostDisk { vm, .. } = finding else {
        return false;
    };
    let id = vm.to_string();
    acks.lost_disks.iter().any(|path| path.contains(&id))
}

/// What the product's own oracle finds.
fn checked(world: &World, acks: &Acks, site: &Site, stuck: &BTreeSet<VmId>) -> Vec<String> {
    let host = SimHost::new(world.clone());
    let first = site.instance == site::site(0).instance;
    let mine = |vm: &&VmId| (vm.bytes()[0] == 0xb0) == first;
    let told = Acknowledged {
        kept: acks
            .kept
            .keys()
            .filter(mine)
            .filter(|vm| !acks.lost_rows.contains(vm))
            .copied()
            .collect(),
        deleted: acks.gone.iter().filter(mine).copied().collect(),
    };
    let findings = with_env(&host, site, |env| {
        let zone = views::zone(env).map_err(|e| e.to_string())?;
        let whole = whole(env, zone).map_err(|e| e.to_string())?;
        Ok::<_, String>(check(&whole, &told))
    });
    match findings {
        Err(error) => vec![format!("looking failed: {error}")],
        Ok(findings) => findings
            .into_iter()
            .filter(Finding::is_fault)
            .filter(|f| of_vm(f).is_none_or(|vm| !stuck.contains(&vm)))
            .filter(|f| !told_lost(f, acks))
            .map(|f| f.to_string())
            .collect(),
    }
}

/// The firewall lists the VMs that live, and no other.
fn table(world: &World, site: &Site, stuck: &BTreeSet<VmId>) -> Vec<String> {
    let name = site.table();
    let text = world
        .kernel
        .tables
        .get(&*name)
        .map(|t| t.to_string())
        .unwrap_or_default();
    let rows = world.rows(site.instance);
    let mut findings = Vec::new();
    for row in rows.vms.values() {
        let vm = row.vm();
        let listed = text.contains(&format!(" {} comment ", vm.lease.ip));
        if listed && world.vmm_of(vm.id).is_none() && !stuck.contains(&vm.id) {
            findings.push(format!(
                "the firewall lists VM {}, which does not live",
                vm.id
            ));
        }
        let wanted = vm.phase == Phase::Running
            && vm.spec.drivers.network == banger_model::NetworkDriver::Bridge;
        if wanted && !listed {
            findings.push(format!(
                "the firewall does not list VM {}, which runs",
                vm.id
            ));
        }
    }
    if rows.vms.is_empty() && !text.is_empty() {
        findings.push(format!("table {name} is left though there is no VM"));
    }
    findings
}

/// A VM that is said to run has a guest that runs commands.
fn unready(world: &World) -> Vec<String> {
    let rows = [0, 1].map(|i| world.rows(site::site(i).instance));
    let running = rows.iter().flat_map(|rows| rows.vms.values());
    let running = running.filter(|row| row.vm().phase == Phase::Running);
    running
        .filter_map(|row| {
            let vm = row.vm().id;
            let unready = world.vmm_of(vm)?.word != Word::Ready;
            unready.then(|| format!("VM {vm} is said to run, and its guest is not ready"))
        })
        .collect()
}

/// Every disk that was promised is the one it was; shared files are as they were.
fn disks(world: &World, acks: &Acks) -> Vec<String> {
    let mut findings = Vec::new();
    for (vm, disks) in &acks.kept {
        for (path, serial) in disks {
            match world.fs.content(path.as_ref()).and_then(|c| c.as_disk()) {
                None => findings.push(format!("{path} of VM {vm} is gone")),
                Some(disk) if disk.serial != *serial || !disk.whole => {
                    findings.push(format!("{path} of VM {vm} is not what it was: {disk:?}"));
                }
                Some(_) => {}
            }
        }
    }
    for (vm, disks) in &acks.limbo {
        let rows = site::site(0).instance;
        let kept = world
            .rows(rows)
            .vms
            .get(vm)
            .is_some_and(|r| r.vm().goal != Goal::Absent);
        let whole = |path: &String, serial: &u32| {
            let disk = world.fs.content(path.as_ref()).and_then(|c| c.as_disk());
            disk.is_some_and(|d| d.serial == *serial && d.whole)
        };
        if kept && !disks.iter().all(|(path, serial)| whole(path, serial)) {
            findings.push(format!(
                "VM {vm} was not deleted, and lost a disk all the same"
            ));
        }
    }
    for path in &acks.lost_disks {
        if world.fs.content(path.as_ref()).is_some() {
            findings.push(format!("{path} was lost, and an empty one took its place"));
        }
    }
    for path in [BASE, TEMPLATE] {
        match world.fs.content(path.as_ref()).and_then(|c| c.as_disk()) {
            Some(disk) if disk.writes == 0 && disk.whole => {}
            other => findings.push(format!("the shared {path} was changed: {other:?}")),
        }
    }
    findings
}

/// A row has the sizes that were promised, and the disks of a VM that lives have the sizes of its row.
fn sizes(world: &World, acks: &Acks) -> Vec<String> {
    let mut findings = Vec::new();
    for instance in 0..2 {
        let site = site::site(instance);
        for row in world.rows(site.instance).vms.values() {
            let vm = row.vm();
            let promised = acks.sized.get(&vm.id).copied().unwrap_or(0);
            if vm.spec.disk_size < ByteSize::gib(u64::from(promised)) {
                findings.push(format!("VM {} was given {promised} GiB in vain", vm.id));
            }
            for role in vm.spec.drivers.data_roles() {
                let path = site.disk(vm.id, role).expect("a disk has a path");
                let len = world.fs.content(&path).map(|disk| disk.len());
                let wanted = vm.spec.disk_of(role).map(ByteSize::bytes);
                // One that was taken away is judged elsewhere.
                let short = len.is_some() && len < wanted;
                if vm.phase == Phase::Running && world.vmm_of(vm.id).is_some() && short {
                    findings.push(format!("the {role} of VM {} is too short", vm.id));
                }
            }
        }
    }
    findings
}

/// What a failed create said is where the VM was, as long as it is being undone, and then in `failed/` (R-HOST-7).
fn logs(world: &World, acks: &Acks) -> Vec<String> {
    let lost = acks.failed_logs.iter().filter(|(vm, name)| {
        let site = site::site(usize::from(vm.bytes()[0] != 0xb0));
        let kept = site.failed_dir().join(vm.to_string());
        let mut places = [kept, site.vm_dir(*vm), site.trash_dir(*vm)].into_iter();
        !places.any(|dir| world.fs.content(&dir.join(name)).is_some())
    });
    lost.map(|(vm, name)| format!("{name} of VM {vm}, whose create failed, is lost"))
        .collect()
}

fn promises(world: &World, acks: &Acks, stuck: &BTreeSet<VmId>) -> Vec<String> {
    let mut findings = Vec::new();
    for (vm, handle) in &acks.running {
        if world.vmm_of(*vm).map(|p| p.handle()) != Some(*handle) {
            findings.push(format!("VM {vm} ran, and nobody asked it to end"));
        }
    }
    for vm in acks.stopped.iter().filter(|vm| !stuck.contains(vm)) {
        if world.vmm_of(*vm).is_some() {
            findings.push(format!("VM {vm} was asked to stop, and runs"));
        }
    }
    let rows = || world.rows.values().flat_map(|rows| rows.vms.values());
    for (vm, name) in &acks.names {
        let row = rows().find(|row| row.vm().id == *vm);
        if let Some(row) = row.filter(|row| row.vm().name.as_str() != *name) {
            findings.push(format!(
                "VM {vm} was renamed to {name}, and is called {}",
                row.vm().name
            ));
        }
    }
    for (vm, nat) in &acks.nat {
        let row = rows().find(|row| row.vm().id == *vm);
        if row.is_some_and(|row| row.vm().spec.nat != *nat) {
            findings.push(format!(
                "of VM {vm} nat {nat} was accepted, and is not its row's"
            ));
        }
    }
    findings
}

/// Addresses that two VMs hold at one time, be it a row and a VMM that is not dead yet. Asked after
/// every step, because it heals by itself.
pub fn shared_addresses(world: &World) -> Vec<String> {
    let mut holders: BTreeMap<String, VmId> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut hold = |ip: String, vm: VmId| {
        if let Some(other) = holders.get(&ip).filter(|other| **other != vm) {
            findings.push(format!("VMs {other} and {vm} have {ip} at one time"));
        }
        holders.insert(ip, vm);
    };
    for process in world.processes.values().filter(|p| p.is_alive()) {
        let ip = process.argv.iter().find_map(|a| a.strip_prefix("ip="));
        if let (Some(ip), Some((vm, _))) = (ip, process.guest) {
            hold(ip.to_owned(), vm);
        }
    }
    for row in world.rows.values().flat_map(|rows| rows.vms.values()) {
        hold(row.vm().lease.ip.to_string(), row.vm().id);
    }
    findings
}

/// Whether some process cannot be ended before the host reboots.
pub fn has_stuck(world: &World) -> bool {
    let mut processes = world.processes.values();
    processes.any(|p| matches!(p.state, State::Stuck { .. }))
}

/// What is not ours is as it was.
fn strangers(world: &World, origin: &World) -> Vec<String> {
    let mut findings = Vec::new();
    if world.boot != origin.boot {
        // What was there went with the power; others came.
        let theirs = world
            .kernel
            .loops
            .values()
            .filter(|l| &*l.label == FIRST_COME);
        if theirs.count() != FIRST_COMERS as usize {
            findings.push("a loop device of a stranger was touched".to_owned());
        }
        return findings;
    }
    let foreign = |text: &str| !text.starts_with("banger1");
    let loops = |w: &World| {
        let all = w.kernel.loops.iter().filter(|(_, l)| foreign(&l.label));
        all.map(|(n, l)| (*n, l.clone())).collect::<Vec<_>>()
    };
    let dms = |w: &World| {
        let all = w.kernel.dms.iter().filter(|(_, d)| foreign(&d.uuid));
        all.map(|(n, d)| (n.clone(), d.clone())).collect::<Vec<_>>()
    };
    let links = |w: &World| {
        let all = w.kernel.links.iter().filter(|(_, l)| foreign(&l.alias));
        all.map(|(n, l)| (n.clone(), l.clone())).collect::<Vec<_>>()
    };
    let tables = |w: &World| {
        let all = w.kernel.tables.iter().filter(|(n, _)| foreign(n));
        all.map(|(n, t)| (n.clone(), t.clone())).collect::<Vec<_>>()
    };
    if loops(world) != loops(origin)
        || dms(world) != dms(origin)
        || links(world) != links(origin)
        || tables(world) != tables(origin)
    {
        findings.push("a device, link or table of a stranger was touched".to_owned());
    }
    for (pid, process) in &*origin.processes {
        let same = |p: &banger_host::sim::Process| {
            p.start_time == process.start_time && p.state == process.state
        };
        if process.guest.is_none() && !world.processes.get(pid).is_some_and(same) {
            findings.push(format!(
                "process {pid} ({}) of a stranger was touched",
                process.exe
            ));
        }
    }
    findings
}

/// Processes of ours have a row.
fn ownerless(world: &World, acks: &Acks) -> Vec<String> {
    let mut findings = Vec::new();
    for process in world
        .processes
        .values()
        .filter(|p| p.log.is_some() && p.is_alive())
    {
        let label = process.argv.iter().find_map(|a| a.parse::<Label>().ok());
        let Some((label, vm)) = label.and_then(|l| Some((l, l.vm_id()?))) else {
            continue;
        };
        let row = world.rows(label.instance).vms.contains_key(&vm);
        if !row && !acks.lost_rows.contains(&vm) {
            findings.push(format!(
                "process {} ({label}) belongs to no VM",
                process.pid
            ));
        }
    }
    findings
}
