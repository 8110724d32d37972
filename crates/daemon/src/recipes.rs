//! The drivers' answers to the executor: how a disk and a VMM are made for a VM.

use crate::core::DaemonHost;
use crate::ssh_keys;
use banger_converge::{BootFile, Launch, RecipeError, Recipes, Site};
use banger_host::{Clock, DiskRecipe, DmTable, ProcessIdentity};
use banger_image::External;
use banger_image::template::{self, Volume};
use banger_model::{Role, RootDriver, Vm, VmId};
use banger_vmm::boot::{cmdline::Accel, initramfs, kernel::Kernel, pins::KernelNames, tsc};
use banger_vmm::probe::{self, AccelKind, AccelWish, ProbeError};
use banger_vmm::qemu::{Disk, DiskSource, QemuPlan, Sockets, UserNetwork, spawn_spec};
use banger_wire::guest::{BootFacts, Network, PowerOff, Root, StaticNetwork, hex};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Serials by which the guest finds its disks.
const BASE: &str = "base";
const OVERLAY: &str = "overlay";
const WORK: &str = "work";
const ROOT: &str = "root";
const MODULES: &str = "modules";

/// Chunk of a dm snapshot: 8 sectors of 512 bytes, one page.
const CHUNK: u32 = 8;

/// Where the drivers find things.
#[derive(Debug, Clone)]
pub struct DriverPaths {
    /// `qemu_bin` of the configuration.
    pub qemu: Option<PathBuf>,
    /// `PATH`.
    pub path_var: Option<OsString>,
    /// banger's data directory, where a private QEMU may be.
    pub data_dir: PathBuf,
    /// The agent, beside the daemon.
    pub agent: PathBuf,
}

/// The drivers.
#[derive(Debug)]
pub struct DriverRecipes {
    host: Arc<DaemonHost>,
    site: Site,
    paths: DriverPaths,
    machine: Mutex<Option<Machine>>,
    accel: OnceLock<Accel>,
    agent: OnceLock<initramfs::Agent>,
    kernel_names: Arc<KernelNames>,
}

/// What is found out once about this machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// QEMU's program.
    pub qemu: PathBuf,
    /// How instructions are executed.
    pub accel: Accel,
}

fn recipe<E: std::error::Error + Send + Sync + 'static>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> RecipeError {
    let what = what.into();
    move |source| RecipeError {
        what,
        source: Some(Box::new(source)),
    }
}

impl DriverRecipes {
    /// The drivers of an instance. Looks at nothing yet.
    pub fn new(host: Arc<DaemonHost>, site: Site, paths: DriverPaths) -> Self {
        DriverRecipes {
            host,
            site,
            paths,
            machine: Mutex::new(None),
            accel: OnceLock::new(),
            agent: OnceLock::new(),
            kernel_names: Arc::default(),
        }
    }

    /// Directory of images.
    pub fn images_dir(&self) -> PathBuf {
        self.site.state_dir.join("images")
    }

    /// Where blobs of registries are.
    pub fn blobs_dir(&self) -> PathBuf {
        self.site.state_dir.join(banger_registry::BLOBS_DIR)
    }

    /// Directory of kernels.
    pub fn kernels_dir(&self) -> PathBuf {
        self.site.state_dir.join("kernels")
    }

    /// The names of kernels, and who is reading which.
    pub fn kernel_names(&self) -> &Arc<KernelNames> {
        &self.kernel_names
    }

    /// Directory of disk templates and initramfs bases: made anew when missing.
    pub fn templates_dir(&self) -> PathBuf {
        self.site.state_dir.join("templates")
    }

    /// The program that VMs are run with. Looks anew each time: it may be installed or removed while we live.
    ///
    /// # Errors
    /// None that could be run, with the way out.
    pub fn qemu(&self) -> Result<PathBuf, ProbeError> {
        let paths = &self.paths;
        let found = probe::find_qemu(
            paths.qemu.as_deref(),
            paths.path_var.as_deref(),
            &paths.data_dir,
        )?;
        Ok(found.path)
    }

    /// What this machine runs VMs with; found out once, and again when it failed or its program is gone.
    ///
    /// # Errors
    /// No QEMU, or no counter frequency to tell a guest about.
    pub fn machine(&self) -> Result<Machine, RecipeError> {
        let known = || self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = known().as_ref().filter(|m| probe::is_program(&m.qemu)) {
            return Ok(machine.clone());
        }
        let qemu = self.qemu().map_err(recipe("no program to run VMs with"))?;
        let machine = Machine {
            qemu,
            accel: self.accel()?,
        };
        *known() = Some(machine.clone());
        Ok(machine)
    }

    /// How guests are executed here; found out once, and again while it fails.
    ///
    /// # Errors
    /// No way, or no counter frequency to tell a guest about.
    pub fn accel(&self) -> Result<Accel, RecipeError> {
        if let Some(accel) = self.accel.get() {
            return Ok(*accel);
        }
        let kind = probe::choose_accel(AccelWish::Auto, &probe::probe_kvm())
            .map_err(recipe("no way to execute guests"))?;
        let accel = match kind {
            AccelKind::Kvm => Accel::Kvm,
            AccelKind::Tcg => {
                let boot = self.host.boot_id().map_err(recipe("this boot has no id"))?;
                let cache = self.site.runtime_dir.join("tsc.json");
                let tsc_khz = tsc::khz(&*self.host, &cache, &boot)
                    .map_err(recipe("the guest's clock cannot be set"))?;
                Accel::Tcg { tsc_khz }
            }
        };
        Ok(*self.accel.get_or_init(|| accel))
    }

    /// The guest's agent, read once.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn agent(&self) -> Result<&initramfs::Agent, RecipeError> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let agent = initramfs::Agent::at(&self.paths.agent)
            .map_err(recipe("the guest's agent cannot be read"))?;
        Ok(self.agent.get_or_init(|| agent))
    }

    /// The initramfs base for a kernel, made if it is not there.
    ///
    /// # Errors
    /// Kernel or agent cannot be read.
    pub fn initramfs_base(&self, kernel: &Kernel) -> Result<PathBuf, RecipeError> {
        initramfs::base(&*self.host, &self.templates_dir(), kernel, self.agent()?)
            .map_err(recipe("the initramfs cannot be made"))
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// It is not there or damaged.
    pub fn kernel(&self, name: &str) -> Result<Kernel, RecipeError> {
        Kernel::load(&*self.host, &self.kernels_dir(), name)
            .map_err(recipe("the kernel cannot be read"))?
            .ok_or_else(|| RecipeError {
                what: format!(
                    "the kernel '{name}' is not in {}; put it back, or create a new VM",
                    self.kernels_dir().display()
                ),
                source: None,
            })
    }

    /// The file of the image with this id.
    pub fn rootfs(&self, image_id: &str) -> PathBuf {
        let dir = self.images_dir().join(image_id);
        dir.join(banger_image::ROOTFS_FILE)
    }

    /// Refuses a registered base that was changed: what a guest wrote over it would fit it no more (R-IMG-6).
    ///
    /// # Errors
    /// It is another file than it was, or was written to.
    pub fn check_base(&self, vm: &Vm) -> Result<(), RecipeError> {
        let dir = self.images_dir().join(&vm.spec.image_id);
        let external = match vm.needs_image() {
            true => External::of_image(&dir),
            false => None,
        };
        let Some(external) = external else {
            return Ok(());
        };
        external.check().map_err(|error| {
            let hint = error.hint().unwrap_or_default();
            recipe(format!("the image of this VM cannot be used; {hint}"))(error)
        })
    }

    fn qemu_plan(&self, vm: &Vm, kernel: &Kernel) -> Result<QemuPlan, RecipeError> {
        let machine = self.machine()?;
        self.check_base(vm)?;
        let dir = self.site.vm_dir(vm.id);
        let sockets = Sockets {
            agent: self.site.agent_socket(vm.id),
            qmp: control_socket(&self.site, vm.id),
            qmp_spare: self.site.control_socket(vm.id, Role::Vmm),
        };
        Ok(QemuPlan {
            program: machine.qemu,
            label: self.site.label(vm.id, Role::Vmm),
            uid: rustix::process::geteuid().as_raw(),
            accel: machine.accel,
            cpus: vm.spec.vcpus,
            memory: vm.spec.memory,
            kernel: kernel.vmlinux(),
            initramfs: dir.join("initramfs.cpio"),
            disks: self.disks(vm, kernel),
            network: Some(UserNetwork {
                mac: vm.lease.mac,
                nat: vm.spec.nat,
            }),
            console_log: self.site.console_log(vm.id),
            vmm_log: self.site.process_log(vm.id, Role::Vmm),
            sockets,
            cwd: dir,
        })
    }

    fn disks(&self, vm: &Vm, kernel: &Kernel) -> Vec<Disk> {
        let dir = self.site.vm_dir(vm.id);
        let disk = |serial: &str, source, read_only| Disk {
            serial: serial.to_owned(),
            source,
            read_only,
        };
        let file = |role: Role| DiskSource::File(dir.join(role.file_name().unwrap_or_default()));
        let mut disks = match vm.spec.drivers.root {
            RootDriver::Overlay => vec![
                disk(BASE, DiskSource::File(self.rootfs(&vm.spec.image_id)), true),
                disk(OVERLAY, file(Role::OverlayDisk), false),
            ],
            RootDriver::Reflink => vec![disk(ROOT, file(Role::CowFile), false)],
            RootDriver::DmSnapshot => {
                let name = banger_model::DmName::of_vm(self.site.instance, vm.id);
                let node = Path::new("/dev/mapper").join(name.as_str());
                vec![disk(ROOT, DiskSource::Device(node), false)]
            }
        };
        disks.push(disk(WORK, file(Role::WorkDisk), false));
        let modules = kernel.modules_disk();
        disks.extend(modules.map(|path| disk(MODULES, DiskSource::File(path), true)));
        disks
    }

    fn boot_facts(&self, vm: &Vm, kernel: &Kernel) -> Result<BootFacts, RecipeError> {
        let token = token(&vm.spec.channel_token).ok_or_else(|| RecipeError {
            what: format!("the channel token of VM {} is damaged", vm.id),
            source: None,
        })?;
        Ok(BootFacts {
            hostname: vm.name.as_str().to_owned(),
            token,
            port: banger_wire::guest::PORT_NAME.to_owned(),
            root: match vm.spec.drivers.root {
                RootDriver::Overlay => Root::Overlay {
                    base: BASE.to_owned(),
                    overlay: OVERLAY.to_owned(),
                },
                RootDriver::Reflink | RootDriver::DmSnapshot => Root::Disk {
                    serial: ROOT.to_owned(),
                },
            },
            work: Some(WORK.to_owned()),
            modules: kernel.modules_disk().map(|_| MODULES.to_owned()),
            network: Network::Static(StaticNetwork::qemu_user()),
            power_off: PowerOff::PowerOff,
            init: vm.spec.init.clone(),
            ssh: Some(
                ssh_keys::facts(&self.host, &self.site.state_dir, vm)
                    .map_err(recipe("the VM's SSH host key cannot be made"))?,
            ),
        })
    }
}

/// The control socket a VM's watch listens on; the spare one is the site's, and proves who listens.
pub fn control_socket(site: &Site, id: VmId) -> PathBuf {
    site.sockets_dir(id).join("qmp.sock")
}

/// The channel token of a spec.
pub fn token(text: &str) -> Option<banger_wire::guest::Token> {
    hex::decode16(text).map(banger_wire::guest::Token)
}

impl Recipes for DriverRecipes {
    fn disk(&self, vm: &Vm, role: Role) -> Result<DiskRecipe, RecipeError> {
        let template = |volume, size| DiskRecipe::CopyOf {
            template: template::path(&self.templates_dir(), volume, size),
        };
        match role {
            Role::WorkDisk => Ok(template(
                Volume::Work {
                    image: &vm.spec.image_id,
                },
                vm.spec.disk_size,
            )),
            Role::OverlayDisk => Ok(template(Volume::Overlay, vm.spec.overlay_size)),
            // Shares its blocks or is not made: it is as large as the image, and a VM costs no such copy.
            Role::CowFile if vm.spec.drivers.root == RootDriver::Reflink => {
                let volume = Volume::Root {
                    image: &vm.spec.image_id,
                };
                let size = vm.spec.disk_of(role).unwrap_or_default();
                Ok(DiskRecipe::CloneOf {
                    template: template::path(&self.templates_dir(), volume, size),
                })
            }
            Role::CowFile => Ok(DiskRecipe::Sparse {
                size: vm.spec.overlay_size,
            }),
            _ => Err(RecipeError {
                what: format!("the role {role} is no disk file"),
                source: None,
            }),
        }
    }

    fn base_image(&self, vm: &Vm) -> Result<PathBuf, RecipeError> {
        Ok(self.rootfs(&vm.spec.image_id))
    }

    fn dm_table(&self, vm: &Vm, base_loop: u32, cow_loop: u32) -> Result<DmTable, RecipeError> {
        let base = self.rootfs(&vm.spec.image_id);
        let size = std::fs::metadata(&base)
            .map_err(recipe(format!(
                "the image {} cannot be looked at",
                base.display()
            )))?
            .len();
        Ok(DmTable::Snapshot {
            sectors: size / 512,
            base_loop,
            cow_loop,
            chunk: CHUNK,
        })
    }

    fn launch(&self, vm: &Vm, role: Role) -> Result<Launch, RecipeError> {
        if role != Role::Vmm {
            return Err(RecipeError {
                what: format!("the role {role} is no process of these drivers"),
                source: None,
            });
        }
        let kernel = self.kernel(&vm.spec.kernel)?;
        let plan = self.qemu_plan(vm, &kernel)?;
        let spec = spawn_spec(&plan).map_err(recipe("QEMU cannot be started like this"))?;
        let base = self.initramfs_base(&kernel)?;
        let bytes = initramfs::of_vm(&base, &self.boot_facts(vm, &kernel)?)
            .map_err(recipe("the VM's initramfs cannot be made"))?;
        let files = vec![BootFile {
            path: plan.initramfs,
            bytes,
        }];
        Ok(Launch { files, spec })
    }

    fn identity(&self, vm: &Vm, role: Role) -> ProcessIdentity {
        ProcessIdentity {
            label: self.site.label(vm.id, role),
            // Without a QEMU no process can have been started by this daemon's predecessors with another one found
            // now; an empty path proves nothing by executable, the control socket still does.
            program: self
                .machine()
                .map(|machine| machine.qemu)
                .unwrap_or_default(),
            uid: rustix::process::geteuid().as_raw(),
            control_socket: Some(self.site.control_socket(vm.id, role)),
            log: self.site.process_log(vm.id, role),
            hint: None,
        }
    }
}
