//! Looking at one VM: its directory, its kernel objects, its processes. Only the kinds of object
//! are looked for that a VM with its drivers can have.

use crate::{Env, Error, Ledger, Recipes, SelfDescription, Site, views};
use banger_host::{Blocks, DmState, Files, Host, Links, ProcessIdentity, Proof};
use banger_model::{
    BootId, DmName, NetworkDriver, Phase, RecoveryMirror, Role, RoleSet, TapName, Vm, VmHandles,
    VmId,
};
use banger_plan::{
    DirSeen, DiskSeen, DmStage, HandlesSeen, ObjectSeen, Observed, Planted, ProcessSeen,
    RuntimeDirSeen, SelfSeen, hints::hints, planted::planted,
};
use std::collections::BTreeMap;

/// Looks at one VM. Changes nothing.
///
/// # Errors
/// Looking failed; nothing is concluded from half a look.
pub fn observe<H: Host, L: Ledger, R: Recipes>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
) -> Result<Observed, Error> {
    let (host, site) = (env.host, env.site);
    let boot = host.boot_id()?;
    let dir = directory(host, site, vm.id)?;
    let handles = handles(host, site, vm.id)?;
    let hint = hints(vm, &handles, &boot);
    let recorded = match &handles {
        HandlesSeen::Present(handles) if handles.boot_id == boot => Some(handles),
        _ => None,
    };
    let (disks, short) = disks(host, site, vm)?;
    Ok(Observed {
        dir,
        deleted_marker: dir == DirSeen::Present
            && host.stat(&site.deleted_marker(vm.id))?.is_some(),
        self_description: self_seen(host, site, vm.id, dir)?,
        disks,
        short,
        objects: objects(host, site, vm, hint.as_ref())?,
        processes: processes(env, vm, recorded)?,
        runtime_dir: runtime_dir(host, site, vm.id)?,
        bridge: bridge(host, site, vm)?,
        views_current: vm.spec.drivers.network != NetworkDriver::Bridge || views::current(env)?,
        handles,
        ..Observed::nothing(boot)
    })
}

fn directory<F: Files>(files: &F, site: &Site, id: VmId) -> Result<DirSeen, Error> {
    for (path, seen) in [
        (site.vm_dir(id), DirSeen::Present),
        (site.creating_dir(id), DirSeen::Creating),
        (site.trash_dir(id), DirSeen::Trash),
    ] {
        if files.stat(&path)?.is_some() {
            return Ok(seen);
        }
    }
    Ok(DirSeen::Missing)
}

fn self_seen<F: Files>(
    files: &F,
    site: &Site,
    id: VmId,
    dir: DirSeen,
) -> Result<Option<SelfSeen>, Error> {
    if dir != DirSeen::Present {
        return Ok(None);
    }
    let said = SelfDescription::read(files, &site.vm_dir(id))?;
    Ok(said.map(|said| SelfSeen {
        generation: said.generation,
        goal: said.goal,
    }))
}

/// `handles.json`: missing means no handles, damage is reported and stops nothing (R-STATE-2).
pub(crate) fn handles<F: Files>(files: &F, site: &Site, id: VmId) -> Result<HandlesSeen, Error> {
    Ok(match files.read(&site.handles(id))? {
        None => HandlesSeen::Missing,
        Some(bytes) => match serde_json::from_slice(&bytes) {
            Ok(handles) => HandlesSeen::Present(handles),
            Err(error) => HandlesSeen::Corrupt(error.to_string()),
        },
    })
}

type Disks = (BTreeMap<Role, DiskSeen>, RoleSet);

/// The disks, and which are shorter than they are to be.
fn disks<F: Files>(files: &F, site: &Site, vm: &Vm) -> Result<Disks, Error> {
    let (mut disks, mut short) = (BTreeMap::new(), RoleSet::new());
    for role in vm.spec.drivers.data_roles() {
        let Some(path) = site.disk(vm.id, role) else {
            continue;
        };
        if let Some(seen) = files.stat(&path)? {
            disks.insert(role, DiskSeen::Whole);
            if vm
                .spec
                .disk_of(role)
                .is_some_and(|size| seen.len < size.bytes())
            {
                short.insert(role);
            }
        } else if files
            .stat(&banger_host::state_file::temporary(&path))?
            .is_some()
        {
            disks.insert(role, DiskSeen::Part);
        }
    }
    Ok((disks, short))
}

/// Kernel objects by label; nothing else proves whose they are (R-HOST-6).
fn objects<H: Host>(
    host: &H,
    site: &Site,
    vm: &Vm,
    hint: Option<&RecoveryMirror>,
) -> Result<BTreeMap<Role, ObjectSeen>, Error> {
    let roles = vm.spec.drivers.roles();
    let mut objects = BTreeMap::new();
    if roles.contains(&Role::DmSnapshot) {
        objects.extend(loops(host, site, vm, hint)?);
        objects.extend(dm(host, site, vm)?);
    }
    if roles.contains(&Role::Tap) {
        objects.extend(tap(host, site, vm)?);
    }
    let labelled = |role| site.label(vm.id, role);
    if roles.contains(&Role::Jail) && host.jails()?.contains(&labelled(Role::Jail)) {
        objects.insert(Role::Jail, ObjectSeen::Labelled);
    }
    if roles.contains(&Role::Cgroup) && host.cgroups()?.contains(&labelled(Role::Cgroup)) {
        objects.insert(Role::Cgroup, ObjectSeen::Labelled);
    }
    Ok(objects)
}

fn loops<B: Blocks>(
    blocks: &B,
    site: &Site,
    vm: &Vm,
    hint: Option<&RecoveryMirror>,
) -> Result<Vec<(Role, ObjectSeen)>, Error> {
    let all = blocks.loops()?;
    let mut found = Vec::new();
    for role in [Role::BaseLoop, Role::CowLoop] {
        let label = site.label(vm.id, role).to_string();
        let hinted = hint.and_then(|hint| match role {
            Role::BaseLoop => hint.base_loop,
            _ => hint.cow_loop,
        });
        let trusted = hinted.filter(|_| planted(Planted::MirrorUsedThoughHandlesWhole));
        let ours: Vec<_> = all.iter().filter(|l| l.label == label).collect();
        // Of several with our label (an attach that failed after it was done) the recorded one is
        // the one in use.
        let chosen = ours.iter().find(|l| Some(l.number) == hinted);
        let number = chosen.or(ours.first()).map(|l| l.number);
        found.extend(trusted.or(number).map(|n| (role, ObjectSeen::Loop(n))));
    }
    Ok(found)
}

fn dm<B: Blocks>(blocks: &B, site: &Site, vm: &Vm) -> Result<Option<(Role, ObjectSeen)>, Error> {
    let label = site.label(vm.id, Role::DmSnapshot).to_string();
    let name = DmName::of_vm(site.instance, vm.id);
    let found = blocks.dms()?.into_iter().find(|dm| dm.uuid == label);
    Ok(found.map(|dm| {
        let stage = match dm.state {
            DmState::Created => DmStage::Created,
            DmState::Loaded => DmStage::Loaded,
            DmState::Live => DmStage::Live,
        };
        (Role::DmSnapshot, ObjectSeen::Dm(name, stage))
    }))
}

fn tap<K: Links>(links: &K, site: &Site, vm: &Vm) -> Result<Option<(Role, ObjectSeen)>, Error> {
    let label = site.label(vm.id, Role::Tap).to_string();
    let found = links.links()?.into_iter().find(|link| link.alias == label);
    Ok(found.map(|link| {
        (
            Role::Tap,
            ObjectSeen::Tap(TapName::of_vm(vm.id), link.master),
        )
    }))
}

fn bridge<K: Links>(links: &K, site: &Site, vm: &Vm) -> Result<bool, Error> {
    if vm.spec.drivers.network != NetworkDriver::Bridge {
        return Ok(true);
    }
    // Somebody else's of that name is not ours to put guests on: making ours then says so.
    let label = site.bridge_label().to_string();
    let links = links.links()?;
    Ok(links
        .iter()
        .any(|link| link.name == site.bridge.name && link.alias == label))
}

fn processes<H: Host, L, R: Recipes>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    recorded: Option<&VmHandles>,
) -> Result<BTreeMap<Role, ProcessSeen>, Error> {
    let mut processes = BTreeMap::new();
    for role in vm
        .spec
        .drivers
        .roles()
        .into_iter()
        .filter(|r| r.is_process())
    {
        let identity = identity(env.recipes, vm, role, recorded);
        if let Some(seen) = process(env.host, &identity)? {
            processes.insert(role, seen);
        }
    }
    Ok(processes)
}

/// How a process is proven; the recorded handle is where to look first.
pub(crate) fn identity<R: Recipes>(
    recipes: &R,
    vm: &Vm,
    role: Role,
    recorded: Option<&VmHandles>,
) -> ProcessIdentity {
    let hint = recorded.and_then(|handles| handles.processes.get(&role).copied());
    ProcessIdentity {
        hint,
        ..recipes.identity(vm, role)
    }
}

/// The lock on the log says whether one lives; proof says which (R-HOST-8).
pub(crate) fn process<H: Host>(
    host: &H,
    identity: &ProcessIdentity,
) -> Result<Option<ProcessSeen>, Error> {
    let locked = host.log_locked(&identity.log)?;
    if !locked && identity.hint.is_none() {
        return Ok(None);
    }
    // Without the lock only a zombie is left to be found, and reaped.
    Ok(match host.prove(identity)? {
        Proof::Alive(handle) => Some(ProcessSeen::Alive(handle)),
        Proof::Zombie(_) => Some(ProcessSeen::Zombie),
        Proof::Absent if locked => Some(ProcessSeen::LockHeldUnproven),
        Proof::Absent => None,
    })
}

/// Whether a VM may be alive, with no more looking than that takes: none at all for a VM whose phase says it is down. One
/// whose VMM holds its log and cannot be proven at this moment may be, and is not to be told as ended (R-STATE-11).
///
/// # Errors
/// Looking failed.
pub fn may_live<H: Host, L, R: Recipes>(env: &Env<'_, H, L, R>, vm: &Vm) -> Result<bool, Error> {
    let seen = Observed {
        processes: if_it_may_live(env, vm)?,
        ..Observed::nothing(env.host.boot_id()?)
    };
    Ok(seen.may_live(Role::Vmm))
}

/// The processes of a VM whose phase lets it be alive; nothing of others is looked at.
pub(crate) fn if_it_may_live<H: Host, L, R: Recipes>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
) -> Result<BTreeMap<Role, ProcessSeen>, Error> {
    if !matches!(vm.phase, Phase::Running | Phase::Stopping) {
        return Ok(BTreeMap::new());
    }
    processes(env, vm, env.shared.handles.get(vm.id).as_ref())
}

fn runtime_dir<F: Files>(files: &F, site: &Site, id: VmId) -> Result<RuntimeDirSeen, Error> {
    let dir = site.sockets_dir(id);
    if files.stat(&dir)?.is_none() {
        return Ok(RuntimeDirSeen::Missing);
    }
    Ok(if files.list(&dir)?.is_empty() {
        RuntimeDirSeen::Empty
    } else {
        RuntimeDirSeen::Occupied
    })
}

/// The handles as the machine shows them: what `handles.json` should say.
pub(crate) fn handles_as_seen(site: &Site, vm: &Vm, seen: &Observed) -> VmHandles {
    let mut handles = VmHandles::none(BootId::clone(&seen.boot));
    for (role, object) in &seen.objects {
        note(site, vm, &mut handles, *role, object);
    }
    for (role, process) in &seen.processes {
        if let ProcessSeen::Alive(process) = process {
            handles.processes.insert(*role, *process);
        }
    }
    handles
}

/// Notes an object that is there.
pub(crate) fn note(site: &Site, vm: &Vm, handles: &mut VmHandles, role: Role, object: &ObjectSeen) {
    match (role, object) {
        (Role::BaseLoop, ObjectSeen::Loop(number)) => handles.base_loop = Some(*number),
        (Role::CowLoop, ObjectSeen::Loop(number)) => handles.cow_loop = Some(*number),
        (_, ObjectSeen::Dm(name, _)) => {
            handles.dm_dev = Some(dm_node(name));
            handles.dm_name = Some(name.clone());
        }
        (_, ObjectSeen::Tap(name, _)) => handles.tap = Some(name.clone()),
        (Role::Cgroup, ObjectSeen::Labelled) => {
            handles.cgroup = Some(site.label(vm.id, role).to_string().into());
        }
        (Role::Jail, ObjectSeen::Labelled) => {
            handles.jail = Some(site.label(vm.id, role).to_string().into());
        }
        _ => {}
    }
}

fn dm_node(name: &DmName) -> std::path::PathBuf {
    std::path::Path::new("/dev/mapper").join(name.as_str())
}
