//! VMs and observations for the tests of this crate, whole and at random.

use crate::{
    AgentSeen, DirSeen, DiskSeen, DmStage, Grace, HandlesSeen, ObjectSeen, Observed, ProcessSeen,
    RuntimeDirSeen, SelfSeen,
};
use banger_model::{
    BootId, ByteSize, DmName, Drivers, Generation, Goal, Instance, Lease, MacAddress,
    NetworkDriver, Phase, ProcessHandle, Role, RootDriver, TapName, Vm, VmHandles, VmId, VmRuntime,
    VmSpec, VmmDriver,
};
use proptest::{option, prelude::*, sample::select};
use std::{net::Ipv4Addr, path::PathBuf};

pub(crate) const INSTANCE: Instance = Instance::from_bytes([0xaa; 4]);

/// Every role there is, the alternatives of the root disk excepted.
pub(crate) const EVERYTHING: Drivers = Drivers {
    vmm: VmmDriver::Firecracker,
    root: RootDriver::DmSnapshot,
    network: NetworkDriver::Bridge,
    jail: true,
    cgroup: true,
    helper: true,
};

pub(crate) fn boot() -> BootId {
    BootId("this boot".to_owned())
}

/// The `n`-th VM, up, as its user asked.
pub(crate) fn vm(n: u8, drivers: Drivers) -> Vm {
    let id = VmId::from_bytes([n, 0, 0, 0, 0, n]);
    let dir = PathBuf::from(format!("/s/vms/{id}"));
    Vm {
        id,
        name: format!("vm-{n}").parse().unwrap(),
        owner_uid: 0,
        goal: Goal::Running,
        generation: Generation(2),
        phase: Phase::Running,
        reason: None,
        spec: VmSpec {
            image: "base".to_owned(),
            image_id: "sha256-0".to_owned(),
            image_size: ByteSize::mib(300),
            image_config: None,
            kernel: "k".to_owned(),
            vcpus: 1,
            memory: ByteSize::mib(256),
            overlay_size: ByteSize::gib(1),
            disk_size: ByteSize::gib(1),
            nat: true,
            ports: Vec::new(),
            remove_on_exit: false,
            init: banger_model::Init::Agent,
            drivers,
            channel_token: "00".repeat(16),
        },
        lease: Lease {
            ip: Ipv4Addr::new(172, 16, 0, n),
            mac: MacAddress::of_vm(id),
            cid: 3 + u32::from(n),
        },
        runtime: VmRuntime {
            api_socket: dir.join("api"),
            vsock_path: dir.join("agent"),
            log_path: dir.join("console.log"),
            metrics_path: None,
            dns_name: format!("vm-{n}.vm"),
            system_overlay: dir.join("overlay.ext4"),
            work_disk: dir.join("work.ext4"),
            vm_dir: dir,
        },
        mirror: None,
        last_error: None,
        created_at: 0,
        last_used_at: 0,
    }
}

/// The object of a role as it is when the VM is up.
pub(crate) fn object(vm: &Vm, role: Role) -> Option<ObjectSeen> {
    Some(match role {
        Role::BaseLoop => ObjectSeen::Loop(4),
        Role::CowLoop => ObjectSeen::Loop(5),
        Role::DmSnapshot => ObjectSeen::Dm(DmName::of_vm(INSTANCE, vm.id), DmStage::Live),
        Role::Tap => ObjectSeen::Tap(TapName::of_vm(vm.id), Some("br-fc".to_owned())),
        Role::Jail | Role::Cgroup => ObjectSeen::Labelled,
        _ => return None,
    })
}

/// The VM down: its directory, its disks, its self-description, nothing else.
pub(crate) fn down(vm: &Vm) -> Observed {
    let data = vm.spec.drivers.data_roles();
    Observed {
        dir: DirSeen::Present,
        self_description: Some(SelfSeen {
            generation: vm.generation,
            goal: vm.goal,
        }),
        disks: data.into_iter().map(|r| (r, DiskSeen::Whole)).collect(),
        ..Observed::nothing(boot())
    }
}

/// The VM up, everything written down.
pub(crate) fn up(vm: &Vm) -> Observed {
    let process = |role| ProcessHandle {
        pid: 100 + role as u32,
        start_time: 7,
    };
    let roles = vm.spec.drivers.roles();
    let processes: Vec<_> = roles.iter().copied().filter(|r| r.is_process()).collect();
    let mut handles = VmHandles::none(boot());
    handles.processes = processes.iter().map(|r| (*r, process(*r))).collect();
    Observed {
        handles: HandlesSeen::Present(handles),
        objects: roles
            .iter()
            .filter_map(|role| Some((*role, object(vm, *role)?)))
            .collect(),
        processes: processes
            .iter()
            .map(|r| (*r, ProcessSeen::Alive(process(*r))))
            .collect(),
        runtime_dir: RuntimeDirSeen::Occupied,
        ..down(vm)
    }
}

pub(crate) fn any_goal() -> impl Strategy<Value = Goal> {
    select(vec![Goal::Running, Goal::Stopped, Goal::Absent])
}

pub(crate) fn any_phase() -> impl Strategy<Value = Phase> {
    select(vec![
        Phase::Creating,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Deleting,
        Phase::Error,
    ])
}

pub(crate) fn any_drivers() -> impl Strategy<Value = Drivers> {
    let roots = select(vec![
        RootDriver::Overlay,
        RootDriver::DmSnapshot,
        RootDriver::Reflink,
    ]);
    let networks = select(vec![NetworkDriver::User, NetworkDriver::Bridge]);
    (roots, networks, any::<[bool; 3]>()).prop_map(|(root, network, [jail, cgroup, helper])| {
        Drivers {
            vmm: VmmDriver::Qemu,
            root,
            network,
            jail,
            cgroup,
            helper,
        }
    })
}

/// Any row.
pub(crate) fn any_vm() -> impl Strategy<Value = Vm> {
    (any_drivers(), any_goal(), any_phase(), 1..4_u64).prop_map(
        |(drivers, goal, phase, generation)| Vm {
            goal,
            phase,
            generation: Generation(generation),
            ..vm(1, drivers)
        },
    )
}

fn any_process() -> impl Strategy<Value = Option<ProcessSeen>> {
    let handle = ProcessHandle {
        pid: 9,
        start_time: 9,
    };
    option::of(select(vec![
        ProcessSeen::Alive(handle),
        ProcessSeen::Zombie,
        ProcessSeen::LockHeldUnproven,
    ]))
}

/// Any observation of a VM with these drivers: every subset of its objects, in every state.
pub(crate) fn any_seen(vm: Vm) -> impl Strategy<Value = Observed> {
    let disk = || option::of(select(vec![DiskSeen::Part, DiskSeen::Whole]));
    let dirs = select(vec![
        DirSeen::Missing,
        DirSeen::Creating,
        DirSeen::Present,
        DirSeen::Trash,
    ]);
    let stages = select(vec![DmStage::Created, DmStage::Loaded, DmStage::Live]);
    let runtime = select(vec![
        RuntimeDirSeen::Missing,
        RuntimeDirSeen::Empty,
        RuntimeDirSeen::Occupied,
    ]);
    let handles = select(vec![
        HandlesSeen::Missing,
        HandlesSeen::Corrupt("half".to_owned()),
        HandlesSeen::Present(VmHandles::none(boot())),
        HandlesSeen::Present(VmHandles::none(BootId("another boot".to_owned()))),
    ]);
    let told = (
        select(vec![AgentSeen::Silent, AgentSeen::Ready]),
        select(vec![Grace::Fresh, Grace::GuestSpent, Grace::Spent]),
    );
    let present = any::<[bool; 9]>();
    (
        (dirs, stages, runtime, handles),
        (disk(), disk(), disk()),
        (any_process(), any_process()),
        told,
        present,
    )
        .prop_map(move |(places, disks, processes, told, present)| {
            let (dir, stage, runtime_dir, handles) = places;
            let roles = vm.spec.drivers.roles();
            let has = |role: &Role| roles.contains(role);
            let mut objects: std::collections::BTreeMap<_, _> = roles
                .iter()
                .filter_map(|role| Some((*role, object(&vm, *role)?)))
                .zip(present)
                .filter_map(|(object, there)| there.then_some(object))
                .collect();
            if let Some(ObjectSeen::Dm(_, seen)) = objects.get_mut(&Role::DmSnapshot) {
                *seen = stage;
            }
            let disks = [
                (Role::CowFile, disks.0),
                (Role::OverlayDisk, disks.1),
                (Role::WorkDisk, disks.2),
            ];
            let processes = [(Role::Helper, processes.0), (Role::Vmm, processes.1)];
            Observed {
                dir,
                deleted_marker: present[6],
                handles,
                disks: disks
                    .into_iter()
                    .filter_map(|(role, seen)| Some((role, seen?)))
                    .filter(|(role, _)| has(role))
                    .collect(),
                objects,
                processes: processes
                    .into_iter()
                    .filter_map(|(role, seen)| Some((role, seen?)))
                    .filter(|(role, _)| has(role))
                    .collect(),
                runtime_dir,
                bridge: present[7],
                views_current: present[8] || !has(&Role::NftView),
                agent: told.0,
                grace: told.1,
                ..Observed::nothing(boot())
            }
        })
}

/// Any row with any observation of it.
pub(crate) fn any_situation() -> impl Strategy<Value = (Vm, Observed)> {
    any_vm().prop_flat_map(|vm| (Just(vm.clone()), any_seen(vm)))
}
