//! The simulated machine as a script finds it: two instances, templates, a base image, strangers,
//! and the drivers' recipes for it.

use banger_converge::{Bridge, Launch, Limits, RecipeError, Recipes, Site};
use banger_host::{
    DiskRecipe, DmTable, ProcessIdentity, SpawnSpec,
    sim::{Dm, Guest, Link, Loop, Nature, Survival, World},
};
use banger_model::{
    ByteSize, DmName, Drivers, Instance, Label, NetworkDriver, Role, RootDriver, TapName, Vm, VmId,
    VmSpec, VmmDriver,
};
use banger_plan::{Planted, Pool, planted::planted};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    rc::Rc,
};

/// The drivers of a script's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// QEMU, overlay, user network: no root.
    Everywhere,
    /// QEMU, a clone of the image, user network.
    Cloned,
    /// The same, of an image that lies on another file system: it cannot be had.
    Apart,
    /// dm-snapshot, bridge, jail, cgroup, helper: every role there is.
    Everything,
}

impl Profile {
    pub fn drivers(self) -> Drivers {
        match self {
            Profile::Everywhere => Drivers::EVERYWHERE,
            Profile::Cloned | Profile::Apart => Drivers {
                root: RootDriver::Reflink,
                ..Drivers::EVERYWHERE
            },
            Profile::Everything => Drivers {
                vmm: VmmDriver::Firecracker,
                root: RootDriver::DmSnapshot,
                network: NetworkDriver::Bridge,
                jail: true,
                cgroup: true,
                helper: true,
            },
        }
    }
}

/// Id of the n-th VM of an instance.
pub fn vm_id(instance: usize, n: u8) -> VmId {
    VmId::from_bytes([0xb0 + instance as u8, 0, 0, 0, 0, n])
}

/// The two instances on the machine.
pub fn site(instance: usize) -> Site {
    let name = ["one", "two"][instance];
    Site {
        instance: Instance::from_bytes([0xa0 + instance as u8; 4]),
        state_dir: PathBuf::from(format!("/s/{name}")),
        runtime_dir: PathBuf::from(format!("/run/{name}")),
        bridge: Bridge {
            name: format!("br-{name}"),
            pool: Pool {
                host: Ipv4Addr::new(172, 16, instance as u8, 1),
                prefix: 29,
            },
        },
        limits: Limits::default(),
    }
}

/// Addresses nobody gets: three are left.
pub fn reserved(instance: Instance) -> impl Iterator<Item = Ipv4Addr> {
    let net = instance.bytes()[0] - 0xa0;
    (5..7).map(move |last| Ipv4Addr::new(172, 16, net, last))
}

/// An empty file system that disks are copied from.
pub const TEMPLATE: &str = "/s/templates/empty.ext4";
/// An image with a journal and the room of a new VM, that root disks are cloned from.
pub const ROOT: &str = "/s/templates/root.ext4";
/// The same on another file system.
pub const ROOT_APART: &str = "/apart/root.ext4";
/// Id of the image there.
const APART: &str = "sha256-1";
/// Length of every image.
pub const IMAGE_SIZE: ByteSize = ByteSize::gib(1);
/// The image every VM shares.
pub const BASE: &str = "/s/images/base.ext4";

/// What the machine holds that is not ours, in every script.
pub fn world(guests: &[(VmId, Guest)]) -> World {
    let mut world = World::new(Nature {
        pid_alone_proves: planted(Planted::PidWithoutStartTime),
        lock_ignored: planted(Planted::VmmSpawnedTwice),
        guests: guests.iter().copied().collect(),
        unshared: vec!["/apart".into()],
        images: vec![ROOT.into(), ROOT_APART.into(), BASE.into()],
        ..Nature::default()
    });
    for instance in 0..2 {
        let site = site(instance);
        world.given_dir(&site.vms_dir());
        world.given_dir(&site.failed_dir());
        world.given_dir(&site.runtime_dir);
    }
    world.given_disk(Path::new(TEMPLATE), 1 << 30);
    world.given_disk(Path::new(BASE), IMAGE_SIZE.bytes());
    for root in [ROOT, ROOT_APART] {
        world.given_disk(Path::new(root), 2 << 30);
    }
    strangers(&mut world);
    world
}

/// Objects of others, as close to ours as can be.
fn strangers(world: &mut World) {
    let label = Label::vm(site(0).instance, vm_id(0, 1), Role::Vmm).to_string();
    let socket = site(0).control_socket(vm_id(0, 1), Role::Vmm);
    let socket = socket.to_str().unwrap_or("");
    world.stranger(None, "/usr/bin/grep", &[&label], 0);
    world.stranger(None, "/usr/bin/vi", &[socket], 0);
    world.stranger(None, "/usr/bin/vmm", &["--somebody-elses"], 1000);
    let backing = world.fs.lookup(Path::new(BASE)).unwrap_or_default();
    let kernel = world.kernel_mut();
    let device = Loop {
        label: "/home/user/disk.img".into(),
        path: BASE.into(),
        backing,
        read_only: true,
        openers: BTreeSet::new(),
        autoclear: false,
    };
    kernel.loops.insert(0, device);
    let dm = Dm {
        uuid: "LVM-somebody".into(),
        state: banger_host::DmState::Live,
        under: None,
    };
    kernel.dms.insert("vg-root".into(), dm);
    let link = Link {
        alias: "uplink".into(),
        master: None,
        bridge: false,
    };
    kernel.links.insert("eth0".into(), link);
    kernel
        .tables
        .insert("filter".into(), "table ip filter {}".into());
}

/// The label of the loop devices that somebody else attaches first after a reboot.
pub const FIRST_COME: &str = "/var/lib/somebody/disk.img";
/// How many those are: all the numbers that ours had.
pub const FIRST_COMERS: u32 = 6;

/// The host loses power and comes back, and somebody else is first to take loop devices.
pub fn reboot(world: &mut World, survival: &Survival) {
    world.reboot(survival);
    let backing = world.fs.lookup(Path::new(BASE)).unwrap_or_default();
    for number in 0..FIRST_COMERS {
        let device = Loop {
            label: FIRST_COME.into(),
            path: BASE.into(),
            backing,
            read_only: true,
            openers: BTreeSet::new(),
            autoclear: false,
        };
        world.kernel_mut().loops.insert(number, device);
    }
}

/// The shape of every simulated VM.
pub fn spec(profile: Profile) -> VmSpec {
    VmSpec {
        image: "base".into(),
        image_id: match profile {
            Profile::Apart => APART.into(),
            _ => "sha256-0".into(),
        },
        image_size: IMAGE_SIZE,
        image_config: None,
        kernel: "k".into(),
        vcpus: 1,
        memory: ByteSize::mib(256),
        overlay_size: ByteSize::gib(1),
        disk_size: ByteSize::gib(1),
        nat: true,
        ports: Vec::new(),
        remove_on_exit: false,
        init: banger_model::Init::Agent,
        drivers: profile.drivers(),
        channel_token: "00".repeat(16),
    }
}

/// Recipes of an instance.
#[derive(Debug, Clone)]
pub struct SimRecipes {
    site: Rc<Site>,
}

impl SimRecipes {
    pub fn new(site: Rc<Site>) -> Self {
        SimRecipes { site }
    }

    /// Arguments that tell the simulated kernel what the process opens.
    fn args(&self, vm: &Vm, role: Role) -> Vec<String> {
        let mut args = vec![self.site.label(vm.id, role).to_string()];
        if role == Role::Vmm {
            args.push(format!("ip={}", vm.lease.ip));
            for data in vm.spec.drivers.data_roles() {
                // A dm snapshot has its CoW store open.
                if (data != Role::CowFile || vm.spec.drivers.root == RootDriver::Reflink)
                    && let Some(path) = self.site.disk(vm.id, data)
                {
                    args.push(format!("disk={}", path.display()));
                }
            }
            if vm.spec.drivers.root == RootDriver::DmSnapshot {
                args.push(format!(
                    "/dev/mapper/{}",
                    DmName::of_vm(self.site.instance, vm.id)
                ));
            }
            if vm.spec.drivers.network == NetworkDriver::Bridge {
                args.push(format!("tap={}", TapName::of_vm(vm.id)));
            }
        }
        args
    }
}

impl Recipes for SimRecipes {
    fn disk(&self, vm: &Vm, role: Role) -> Result<DiskRecipe, RecipeError> {
        Ok(match role {
            Role::CowFile if vm.spec.drivers.root == RootDriver::Reflink => DiskRecipe::CloneOf {
                template: match vm.spec.image_id.as_str() {
                    APART => ROOT_APART.into(),
                    _ => ROOT.into(),
                },
            },
            Role::CowFile => DiskRecipe::Sparse {
                size: ByteSize::gib(1),
            },
            _ => DiskRecipe::CopyOf {
                template: TEMPLATE.into(),
            },
        })
    }

    fn base_image(&self, _: &Vm) -> Result<PathBuf, RecipeError> {
        Ok(BASE.into())
    }

    fn dm_table(&self, _: &Vm, base_loop: u32, cow_loop: u32) -> Result<DmTable, RecipeError> {
        Ok(DmTable::Snapshot {
            sectors: 1 << 21,
            base_loop,
            cow_loop,
            chunk: 8,
        })
    }

    fn launch(&self, vm: &Vm, role: Role) -> Result<Launch, RecipeError> {
        let identity = self.identity(vm, role);
        let cgroup = vm
            .spec
            .drivers
            .cgroup
            .then(|| self.site.label(vm.id, Role::Cgroup));
        Ok(Launch {
            files: Vec::new(),
            spec: SpawnSpec {
                args: self.args(vm, role).into_iter().map(Into::into).collect(),
                env: BTreeMap::new(),
                cwd: "/".into(),
                log: identity.log.clone(),
                cgroup,
                identity,
            },
        })
    }

    fn identity(&self, vm: &Vm, role: Role) -> ProcessIdentity {
        ProcessIdentity {
            label: self.site.label(vm.id, role),
            program: PathBuf::from(format!("/usr/bin/{role}")),
            uid: 0,
            control_socket: Some(self.site.control_socket(vm.id, role)),
            log: self.site.process_log(vm.id, role),
            hint: None,
        }
    }
}
