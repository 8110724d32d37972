//! Preflight (R-SVC-8): what a request needs of this machine, looked at before anything of it exists. Everything that
//! is missing is told at once, each with its way out.
//!
//! Which facts a request needs is decided purely ([`of_create`], [`of_start`]). Each fact is one function of whoever
//! owns it (the image store, the kernels, the probe for QEMU, …), which the work itself asks again when it comes to
//! it; whatever else wants to tell how this machine stands reads the same functions.

use super::publish::reserve;
use super::shape::{self, HostSize, Sized};
use super::{VmService, ledger_error, name, request_error, run_as};
use crate::core::Core;
use crate::image_service::{DEFAULT_KERNEL, Images};
use banger_converge::{Ledger, Recipes, Site, request};
use banger_host::Files;
use banger_model::{ByteSize, Drivers, Goal, Phase, PortWish, RootDriver, Vm, VmName};
use banger_plan::explain::noun;
use banger_wire::api::{ApiError, Code, Command};
use banger_wire::guest::ExecRequest;
use std::{path::PathBuf, sync::Arc};

type Result<T> = std::result::Result<T, ApiError>;

/// One prerequisite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// A command that some guest could run.
    Command(Command),
    /// A name that is free.
    Name(VmName),
    /// Numbers that a VM can have.
    Shape(Sized),
    /// Memory that is not promised to others.
    Memory(ByteSize),
    /// An image that is there or can be made.
    Image(String),
    /// A kernel that is there or can be fetched: the one that is named, else that of VMs of this image.
    Kernel(Option<String>, String),
    /// A kernel that is there.
    BootKernel(String),
    /// An overlay disk to copy that is there or can be made.
    OverlayDisk(ByteSize),
    /// A root disk to clone of this image, with this room, that is there or can be made; a file system that can.
    RootDisk(String, ByteSize),
    /// A work disk of this image to copy that is there or can be made.
    WorkDisk(String, ByteSize),
    /// Ports of the host that are free.
    Ports(Vec<PortWish>),
    /// Something to run VMs with.
    Vmm,
    /// The guest's half of banger.
    Agent,
    /// Room on the file system of the VMs.
    DiskSpace,
    /// A file without which a VM cannot boot.
    File {
        /// What it is.
        what: String,
        /// Where it is.
        path: PathBuf,
        /// What to do when it is not there.
        way_out: String,
    },
}

/// A VM that is asked for, with every value decided.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub command: Option<&'a Command>,
    pub name: Option<&'a VmName>,
    pub image: String,
    pub kernel: Option<String>,
    pub sized: Sized,
    pub drivers: Drivers,
    pub ports: Vec<PortWish>,
    pub force: bool,
}

/// What a new VM needs, in the order in which it is told.
pub(super) fn of_create(wanted: Wanted<'_>) -> Vec<Check> {
    let sized = wanted.sized;
    let command = wanted.command.cloned();
    let mut checks: Vec<Check> = command.map(Check::Command).into_iter().collect();
    checks.extend(wanted.name.cloned().map(Check::Name));
    checks.push(Check::Shape(sized.clone()));
    if !wanted.ports.is_empty() {
        checks.push(Check::Ports(wanted.ports));
    }
    if !wanted.force {
        checks.push(Check::Memory(sized.memory));
    }
    checks.extend([
        Check::Image(wanted.image.clone()),
        Check::Kernel(wanted.kernel, wanted.image.clone()),
        Check::Vmm,
        Check::Agent,
        Check::DiskSpace,
    ]);
    checks.extend(disks(&wanted.drivers, wanted.image, &sized));
    checks
}

/// The disks that are copied for a new VM. A size that no VM can have is told by its shape.
fn disks(drivers: &Drivers, image: String, sized: &Sized) -> Vec<Check> {
    if !shape::obstacles(sized).is_empty() {
        return Vec::new();
    }
    let root = match drivers.root {
        RootDriver::Overlay => Some(Check::OverlayDisk(sized.overlay_size)),
        RootDriver::Reflink => Some(Check::RootDisk(image.clone(), sized.overlay_size)),
        RootDriver::DmSnapshot => None,
    };
    let work = Check::WorkDisk(image, sized.disk_size);
    root.into_iter().chain([work]).collect()
}

/// What a stopped VM needs to boot. `base` is its image's file.
pub(super) fn of_start(vm: &Vm, site: &Site, base: PathBuf) -> Vec<Check> {
    let mut checks = vec![
        Check::Vmm,
        Check::Agent,
        Check::BootKernel(vm.spec.kernel.clone()),
    ];
    // A clone of the image boots without it.
    if vm.needs_image() {
        checks.push(Check::File {
            what: format!("the image '{}'", vm.spec.image),
            path: base,
            way_out: "put it back, or create a new VM".to_owned(),
        });
    }
    for role in vm.spec.drivers.data_roles() {
        checks.extend(site.disk(vm.id, role).map(|path| Check::File {
            what: format!("the {} of VM '{}'", noun(role), vm.name),
            path,
            way_out: format!("put it back, or banger vm delete {}", vm.name),
        }));
    }
    checks
}

/// Looks at one fact. Blocks.
fn look(check: &Check, core: &Core, images: &dyn Images, host: HostSize) -> Vec<ApiError> {
    let told = |fact: Result<()>| fact.err().into_iter().collect();
    match check {
        Check::Command(wanted) => told(run_as::check(wanted)),
        Check::Name(name) => told(free_name(core, name)),
        Check::Shape(sized) => shape::obstacles(sized),
        Check::Ports(wishes) => told(reserve(wishes).map(drop)),
        Check::Memory(wanted) => told(unpromised(core, *wanted, host)),
        Check::Image(name) => images.image_obstacles(name),
        Check::Kernel(named, image) => {
            let name = named.clone().unwrap_or_else(|| images.kernel_for(image).0);
            images.kernel_obstacles(&name)
        }
        Check::BootKernel(name) => told(boot_kernel(core, name)),
        Check::OverlayDisk(size) => images.overlay_obstacles(*size),
        Check::RootDisk(image, room) => images.root_obstacles(image, *room),
        Check::WorkDisk(image, size) => images.work_obstacles(image, *size),
        Check::Vmm => told(vmm(core)),
        Check::Agent => told(agent(core)),
        Check::DiskSpace => told(
            request::room(&core.env())
                .map_err(|e| request_error(&e).hint("banger vm list, then banger vm delete NAME")),
        ),
        Check::File {
            what,
            path,
            way_out,
        } => told(match core.host.stat(path) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ApiError::new(
                Code::Precondition,
                format!("{what} is not at {}", path.display()),
            )
            .hint(way_out)),
            Err(error) => Err(ApiError::of(Code::OperationFailed, &error).hint(way_out)),
        }),
    }
}

/// Whether some guest could run this.
pub(crate) fn command(wanted: &ExecRequest) -> Result<()> {
    wanted
        .check()
        .map_err(|e| ApiError::of(Code::BadRequest, &e).hint(e.hint()))
}

fn free_name(core: &Core, wanted: &VmName) -> Result<()> {
    let store = core.ledger.store().map_err(|e| ledger_error(&e))?;
    match store.by_name(wanted) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(name::taken(wanted)),
        Err(error) => Err(ApiError::of(Code::OperationFailed, &error)),
    }
}

/// Whether this much memory can be promised besides what runs.
pub(crate) fn unpromised(core: &Core, wanted: ByteSize, host: HostSize) -> Result<()> {
    let rows = core.ledger.vms().map_err(|e| ledger_error(&e))?;
    shape::check_memory(wanted, promised(&rows), host)
}

fn promised(rows: &[Vm]) -> ByteSize {
    let running = rows
        .iter()
        .filter(|vm| vm.goal == Goal::Running && vm.phase != Phase::Stopped);
    ByteSize(running.map(|vm| vm.spec.memory.bytes()).sum())
}

fn vmm(core: &Core) -> Result<()> {
    core.recipes.qemu().map_err(|error| {
        let told = ApiError::of(Code::Precondition, &error);
        match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        }
    })?;
    let accel = core.recipes.accel().map(drop);
    accel.map_err(|e| ApiError::of(Code::Precondition, &e).hint("banger daemon logs"))
}

pub(crate) fn agent(core: &Core) -> Result<()> {
    core.recipes.agent().map(drop).map_err(|error| {
        ApiError::of(Code::Precondition, &error)
            .hint("./quickstart builds it; it belongs beside bangerd")
    })
}

fn boot_kernel(core: &Core, name: &str) -> Result<()> {
    core.recipes.kernel(name).map(drop).map_err(|error| {
        let told = ApiError::of(Code::Precondition, &error);
        if name == DEFAULT_KERNEL {
            told.hint("banger vm run --rm -- true fetches it again")
        } else {
            told.hint("put it back, or create a new VM")
        }
    })
}

impl VmService {
    /// Looks at all facts of a request.
    ///
    /// # Errors
    /// All that do not hold, as one.
    pub(super) async fn preflight(self: &Arc<Self>, checks: Vec<Check>) -> Result<()> {
        let (images, host) = (self.peers.images()?, self.host_size);
        self.core
            .blocking(move |core| {
                let mut found: Vec<ApiError> = Vec::new();
                for check in &checks {
                    // A program that several need is missing once.
                    let new = look(check, core, &*images, host).into_iter();
                    found.extend(new.filter(|e| !found.contains(e)).collect::<Vec<_>>());
                }
                ApiError::all(found)
            })
            .await?
    }

    /// What a stopped VM lacks to boot.
    ///
    /// # Errors
    /// All of it, as one.
    pub(super) async fn check_start(self: &Arc<Self>, vm: &Vm) -> Result<()> {
        let base = self
            .core
            .recipes
            .base_image(vm)
            .map_err(|e| ApiError::of(Code::Precondition, &e))?;
        let checks = of_start(vm, &self.core.site, base);
        self.preflight(checks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_config::VmDefaults;
    use banger_wire::api::VmShape;

    const HOST: HostSize = HostSize {
        cpus: 4,
        memory: ByteSize::gib(8),
    };

    fn wanted(shape: &VmShape, root: RootDriver) -> Wanted<'_> {
        Wanted {
            command: None,
            name: shape.name.as_ref(),
            image: "debian".to_owned(),
            kernel: Some("debian-cloud".to_owned()),
            sized: shape::decide(shape, &VmDefaults::default(), HOST),
            drivers: Drivers {
                root,
                ..Drivers::EVERYWHERE
            },
            ports: shape.ports.clone(),
            force: shape.force,
        }
    }

    /// R-SVC-8: which facts a create needs depends on what is asked and on nothing else.
    #[test]
    fn a_create_needs_what_it_will_use() {
        let plain = VmShape::default();
        let checks = of_create(wanted(&plain, RootDriver::Overlay));
        let has = |check: &Check| checks.contains(check);
        assert!(has(&Check::Vmm) && has(&Check::Agent) && has(&Check::DiskSpace));
        assert!(has(&Check::Memory(ByteSize::gib(1))));
        let work = Check::WorkDisk("debian".to_owned(), ByteSize::gib(8));
        assert!(has(&Check::OverlayDisk(ByteSize::gib(8))) && has(&work));
        assert!(
            !checks
                .iter()
                .any(|c| matches!(c, Check::Name(_) | Check::Command(_)))
        );

        let copied = of_create(wanted(&plain, RootDriver::Reflink));
        assert!(copied.contains(&work));
        let root = Check::RootDisk("debian".to_owned(), ByteSize::gib(8));
        assert!(copied.contains(&root), "{copied:?}");
        let overlay = |c: &Check| matches!(c, Check::OverlayDisk(_));
        assert!(!copied.iter().any(overlay), "{copied:?}");

        let special = VmShape {
            name: Some("dev".parse().unwrap()),
            force: true,
            disk_size: Some(ByteSize::mib(1)),
            ..VmShape::default()
        };
        let command = Command::default();
        let checks = of_create(Wanted {
            command: Some(&command),
            ..wanted(&special, RootDriver::Overlay)
        });
        assert!(matches!(&checks[..2], [Check::Command(_), Check::Name(_)]));
        let beside = |c: &Check| matches!(c, Check::Memory(_) | Check::WorkDisk(..));
        assert!(!checks.iter().any(beside), "{checks:?}");
    }
}
