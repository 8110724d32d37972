//! The kernels as users meet them (R-IMG-7): import, pull, list, show, delete; and which one a new VM gets.

use crate::catalogue::Catalogue;
use crate::core::Core;
use crate::image_service::{DEFAULT_KERNEL, make_dir};
use crate::kernel_errors::{WAYS, remake, told};
use crate::ops::{self, Operation, Why};
use crate::trash;
use banger_converge::Ledger;
use banger_host::{ErrorKind, Files};
use banger_model::ByteSize;
use banger_vmm::boot::{
    apt, build,
    cache::{self, Unused},
    kernel,
    kernel::{Kernel, KernelError, Pack},
    needs::{CheckedBy, KernelCheck},
    package::NewKernel,
    pins::PinnedKernel,
    publish,
    shelf::{self, Shelf},
};
use banger_wire::api::{
    self, ApiError, Code, KernelDeleted, KernelOffer, KernelOption, KernelView,
};
use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

type Result<T> = std::result::Result<T, ApiError>;

/// Name of the kernel that banger builds; once it is there, new VMs get it.
pub const OWN_KERNEL: &str = "banger";

/// Most compilers at a time.
const JOBS_MAX: u32 = 1024;

/// The kernels. Every method may block.
#[derive(Debug)]
pub struct Kernels {
    core: Arc<Core>,
    catalogue: Arc<Catalogue>,
}

/// The kernel that a new VM gets where neither its request nor its image names one.
pub fn default_kernel(core: &Core) -> &'static str {
    let own = Kernel::load(&*core.host, &core.recipes.kernels_dir(), OWN_KERNEL);
    match own {
        Ok(Some(_)) => OWN_KERNEL,
        _ => DEFAULT_KERNEL,
    }
}

/// How the disks with modules are made here.
pub fn pack<'a>(core: &'a Core, cancelled: &'a dyn Fn() -> bool) -> Box<Pack<'a>> {
    Box::new(move |tree: &Path, disk: &Path| {
        let label = "banger-modules";
        Ok(banger_image::pack(
            &*core.host,
            tree,
            disk,
            label,
            label,
            cancelled,
        )?)
    })
}

/// No kernel of this name that could be used: which there are, and the ways to one.
pub fn no_kernel(core: &Core, name: &str) -> ApiError {
    let dir = core.recipes.kernels_dir();
    if there(core, name) {
        let dir = dir.join(name);
        let what = format!(
            "no kernel that this version of banger reads is in {}",
            dir.display()
        );
        return ApiError::new(Code::Precondition, what).hint(remake(name));
    }
    let kernels = shelf::list(&*core.host, &dir).unwrap_or_default();
    let names: Vec<_> = kernels.into_iter().map(|(name, _)| name).collect();
    let there = match names[..] {
        [] => format!("there are none yet: '{DEFAULT_KERNEL}' is fetched when it is first used"),
        _ => format!("there are: {}", names.join(", ")),
    };
    ApiError::new(Code::NotFound, format!("no kernel is called '{name}'"))
        .hint(format!("{there}; {WAYS}"))
}

/// Whether something has the place of a kernel of this name, whether it can be used or not.
fn there(core: &Core, name: &str) -> bool {
    let path = core.recipes.kernels_dir().join(name);
    shelf::check_name(name).is_ok() && matches!(core.host.stat(&path), Ok(Some(_)))
}

impl Kernels {
    /// The kernels; touches nothing yet.
    pub fn new(core: Arc<Core>, catalogue: Arc<Catalogue>) -> Self {
        Kernels { core, catalogue }
    }

    fn dir(&self) -> PathBuf {
        self.core.recipes.kernels_dir()
    }

    /// Refuses a new kernel that cannot be, before a byte of it is read.
    ///
    /// # Errors
    /// The name is bad or taken.
    pub fn check_new(&self, name: &str, replace: bool) -> Result<()> {
        self.core.writable()?;
        shelf::check_name(name).map_err(|error| told(&error))?;
        let there = Kernel::load(&*self.core.host, &self.dir(), name);
        match there {
            // One that is damaged is no one's.
            Ok(Some(_)) if !replace => {
                let name = name.to_owned();
                Err(told(&KernelError::Exists { name }))
            }
            _ => Ok(()),
        }
    }

    /// `kernel.import`: makes a kernel of a stream.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn import(
        &self,
        request: &api::KernelImport,
        source: &mut dyn Read,
        op: &Operation,
    ) -> Result<KernelView> {
        let new = NewKernel {
            name: &request.name,
            package: request.source.as_deref().unwrap_or("what was sent"),
            source: request.source.as_deref(),
            created: ops::now(),
            force: request.force,
            ..NewKernel::default()
        };
        op.stage("kernel", "receiving");
        self.make(&request.name, request.replace, op, |shelf| {
            shelf::import(
                &*self.core.host,
                shelf,
                source,
                &new,
                &mut |line| op.stage("kernel", line),
                &mut |bytes| op.moved(bytes, request.size),
            )
        })
    }

    /// `kernel.pull`: fetches what the catalog has by this name, or a package.
    ///
    /// # Errors
    /// It cannot be had, or is no kernel for banger.
    pub fn pull(&self, request: &api::KernelPull, op: &Operation) -> Result<KernelView> {
        self.check_new(&request.name, request.replace)?;
        let offered = self.catalogue.offered_kernel(&request.package, op);
        let offered = offered.map_err(|error| op.cancel.why().map_or(error, Why::error))?;
        if let Some((mut offered, size, from)) = offered {
            let import = api::KernelImport {
                name: request.name.clone(),
                source: Some(from),
                size: Some(size),
                replace: request.replace,
                force: request.force,
            };
            return self.import(&import, &mut offered.file, op);
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        let package = request.package.as_str();
        if !package.starts_with(|c: char| c.is_ascii_alphanumeric()) || !package.bytes().all(legal)
        {
            let what = format!("'{package}' cannot be a package");
            return Err(
                ApiError::new(Code::BadRequest, what).hint("banger kernel list --available")
            );
        }
        let source = format!("package {package}");
        let new = NewKernel {
            name: &request.name,
            source: Some(&source),
            created: ops::now(),
            force: request.force,
            ..NewKernel::default()
        };
        self.make(&request.name, request.replace, op, |shelf| {
            let stage = &mut |line: &str| op.stage("kernel", line);
            kernel::fetch_package(&*self.core.host, shelf, package, &new, stage)
        })
    }

    /// `kernel.build`: builds one.
    ///
    /// # Errors
    /// Something is missing to build it with, or the build failed.
    pub fn build(&self, request: &api::KernelBuild, op: &Operation) -> Result<KernelView> {
        let name = request.name.as_deref().unwrap_or(OWN_KERNEL);
        self.check_new(name, true)?;
        build::check_options(request.config.as_deref().unwrap_or_default())
            .map_err(|source| told(&KernelError::Build { source }))?;
        if request
            .jobs
            .is_some_and(|jobs| !(1..=JOBS_MAX).contains(&jobs))
        {
            let what = format!("1 to {JOBS_MAX} compilers can run at a time");
            return Err(ApiError::new(Code::BadRequest, what).hint("--jobs NUMBER"));
        }
        let there = Kernel::load(&*self.core.host, &self.dir(), name);
        if let Ok(Some(there)) = there
            && there.manifest.built_of.is_none()
        {
            let name = name.to_owned();
            return Err(told(&KernelError::Exists { name })
                .hint("it was not built here: another --name, or banger kernel delete it first"));
        }
        let cache = self.core.recipes.templates_dir();
        make_dir(&self.core.host, &cache)?;
        let all = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let recipe = build::Recipe {
            more: request.config.as_deref().unwrap_or_default(),
            jobs: request.jobs.unwrap_or(all),
            cache: &cache,
        };
        let new = NewKernel {
            name,
            source: Some("built by banger"),
            created: ops::now(),
            ..NewKernel::default()
        };
        self.make(name, true, op, |shelf| {
            let progress = &mut |line: &str| op.stage("kernel", line);
            build::build(&*self.core.host, shelf, &recipe, &new, progress)
        })
    }

    /// Runs a maker of kernels in a place of its own, and publishes what it made.
    fn make(
        &self,
        name: &str,
        replace: bool,
        op: &Operation,
        work: impl FnOnce(&Shelf<'_>) -> std::result::Result<Kernel, KernelError>,
    ) -> Result<KernelView> {
        make_dir(&self.core.host, &self.dir())?;
        let cancelled = || op.cancel.why().is_some();
        let pack = pack(&self.core, &cancelled);
        let (kernels, tag) = (self.dir(), op.id.to_string());
        let discard = |dir: &Path| trash::discard(&self.core.host, dir);
        let shelf = Shelf {
            kernels: &kernels,
            tag: &tag,
            pack: &*pack,
            names: self.core.recipes.kernel_names(),
            replace,
            cancelled: &cancelled,
            discard: &discard,
        };
        let made = work(&shelf);
        // What breaks because it was cancelled says nothing of the source.
        let cancelled = |error| op.cancel.why().map_or_else(|| told(&error), Why::error);
        made.map_err(cancelled)?;
        // Of one that it may have replaced.
        self.drop_bases();
        self.show(name)
    }

    /// `kernel.list`.
    ///
    /// # Errors
    /// The kernels or the VMs cannot be read.
    pub fn list(&self) -> Result<Vec<KernelView>> {
        let kernels = shelf::list(&*self.core.host, &self.dir()).map_err(|error| told(&error))?;
        let users = self.users()?;
        let mut views = Vec::new();
        for (name, kernel) in kernels {
            match kernel {
                Ok(Some(kernel)) => views.push(self.view(&kernel, &users)),
                Ok(None) => views.push(self.unusable(name, "of another version of banger", &users)),
                Err(error) => {
                    tracing::warn!(%error, kernel = name, "it cannot be used");
                    views.push(self.unusable(name, "damaged", &users));
                }
            }
        }
        Ok(views)
    }

    /// `kernel.available`: what the catalog and the package sources have.
    ///
    /// # Errors
    /// The catalog cannot be read; apt fails, or there is neither it nor a kernel of a catalog.
    pub fn available(&self) -> Result<Vec<KernelOffer>> {
        let of_catalog = self.catalogue.offered_kernels()?.into_iter();
        let of_catalog: Vec<_> = of_catalog
            .map(|entry| KernelOffer {
                kind: "catalog".to_owned(),
                command: format!("banger kernel pull {}", entry.name),
                description: format!("of the catalog, {}", ByteSize(entry.size)),
                name: entry.name,
                version: None,
            })
            .collect();
        let found = match apt::kernel_packages(&*self.core.host, &self.core.site.state_dir) {
            Ok(found) => found,
            // Of another family: what there is, is in the catalog.
            Err(apt::AptError::Missing { .. }) if !of_catalog.is_empty() => Vec::new(),
            Err(error) => {
                return Err(ApiError::of(Code::Precondition, &error).hint(
                    "banger kernel import takes a package's file or a directory from anywhere",
                ));
            }
        };
        let offer = |(name, description): (String, String)| KernelOffer {
            kind: "package".to_owned(),
            command: format!("banger kernel pull {name}"),
            name,
            version: None,
            description,
        };
        let packages = found.into_iter().map(offer);
        Ok(of_catalog.into_iter().chain(packages).collect())
    }

    /// `kernel.show`.
    ///
    /// # Errors
    /// No such kernel, or it is damaged.
    pub fn show(&self, name: &str) -> Result<KernelView> {
        let kernel = self.find(name)?;
        Ok(self.view(&kernel, &self.users()?))
    }

    /// Refuses a kernel that a new VM could not have: one that is neither there nor fetched when it is needed. It stays as
    /// long as the result lives.
    ///
    /// # Errors
    /// No such kernel.
    pub fn usable(&self, name: &str) -> Result<PinnedKernel> {
        // Before the look: what is seen then stays.
        let pinned = self.core.recipes.kernel_names().pin(name);
        match self.find(name) {
            Err(_) if name == DEFAULT_KERNEL => Ok(pinned),
            found => found.map(|_| pinned),
        }
    }

    fn find(&self, name: &str) -> Result<Kernel> {
        let missing = || no_kernel(&self.core, name);
        shelf::check_name(name).map_err(|_| missing())?;
        let kernel = Kernel::load(&*self.core.host, &self.dir(), name);
        kernel.map_err(|error| told(&error))?.ok_or_else(missing)
    }

    /// `kernel.delete`.
    ///
    /// # Errors
    /// No such kernel, or something refers to it.
    pub fn delete(&self, name: &str) -> Result<KernelDeleted> {
        self.core.writable()?;
        // Held until it is out of the list: whoever begins to read it waits, and then finds none.
        let names = self.core.recipes.kernel_names().lock();
        // One that is damaged or of another version nobody can boot; it can at least go.
        if !there(&self.core, name) {
            self.find(name)?;
        }
        let users = self.users()?.remove(name).unwrap_or_default();
        let in_use = |what: String, hint: &str| {
            Err(ApiError::new(Code::Precondition, what).hint(hint.to_owned()))
        };
        if !users.vms.is_empty() {
            let vms = users.vms.join(", ");
            let what = format!("the kernel '{name}' is that of the VMs {vms}");
            return in_use(what, &format!("banger vm delete {}", users.vms.join(" ")));
        }
        if let Some(image) = users.images.first() {
            let images = users.images.join(", ");
            let what = format!("the kernel '{name}' is that of the images {images}");
            return in_use(what, &format!("banger image set {image} --kernel any"));
        }
        let free = match names.pinned(name) {
            true => Err(told(&KernelError::Pinned {
                name: name.to_owned(),
            })),
            false => Ok(()),
        };
        free?;
        let taken = shelf::take_away(&*self.core.host, &self.dir(), name, names);
        let rest = taken.map_err(|error| told(&error))?;
        trash::discard(&self.core.host, &rest);
        self.drop_bases();
        let name = name.to_owned();
        Ok(KernelDeleted { name })
    }

    /// Puts back what was being replaced when the last daemon died, and removes what is kept of kernels that are gone.
    /// What makers that died have left is given back, for [`Kernels::unlink`]: that may take minutes. Asked when nothing is
    /// being made yet.
    pub fn sweep(&self) -> Vec<PathBuf> {
        let recovered = publish::recover(&*self.core.host, &self.dir());
        let rests = recovered.unwrap_or_else(|error| {
            tracing::error!(%error, "what is left of kernels stays");
            Vec::new()
        });
        self.drop_caches(Unused::Unfinished);
        rests
    }

    /// Removes initramfs bases of kernels that are gone.
    fn drop_bases(&self) {
        // Under the lock: a kernel that comes now finds the base that is made for it where it was made.
        let _names = self.core.recipes.kernel_names().lock();
        self.drop_caches(Unused::OfGoneKernels);
    }

    fn drop_caches(&self, unused: Unused) {
        let dir = self.core.recipes.templates_dir();
        for name in unused_caches(&self.core, unused) {
            match self.core.host.unlink(&dir.join(&name)) {
                Err(error) if error.kind != ErrorKind::NotFound => {
                    // A cache: the next start of the daemon tries again.
                    tracing::warn!(%error, name, "what is kept of a kernel stays");
                }
                _ => {}
            }
        }
    }

    /// Removes what [`Kernels::sweep`] has found.
    pub fn unlink(&self, rests: &[PathBuf]) {
        for rest in rests {
            if let Err(error) = shelf::clear(&*self.core.host, rest) {
                tracing::warn!(%error, path = %rest.display(), "what is left of a kernel stays");
            }
        }
    }

    /// Who needs each kernel, by its name.
    fn users(&self) -> Result<BTreeMap<String, Users>> {
        let rows = self.core.ledger.vms();
        let rows = rows.map_err(|error| ApiError::of(Code::Unavailable, &error))?;
        let mut users: BTreeMap<String, Users> = BTreeMap::new();
        for vm in rows {
            let of = users.entry(vm.spec.kernel).or_default();
            of.vms.push(vm.name.to_string());
        }
        // A directory without a row may be adopted again, and is deleted by its id.
        let lost = banger_converge::lost(&self.core.env());
        for vm in lost.map_err(|error| ApiError::of(Code::Unavailable, &error))? {
            if let Some(kernel) = vm.kernel {
                users.entry(kernel).or_default().vms.push(vm.id.to_string());
            }
        }
        for (kernel, image) in self.catalogue.kernels()? {
            users.entry(kernel).or_default().images.push(image);
        }
        Ok(users)
    }

    /// One that takes room and can only be deleted.
    fn unusable(&self, name: String, why: &str, users: &BTreeMap<String, Users>) -> KernelView {
        let used = users.get(&name).cloned().unwrap_or_default();
        KernelView {
            unusable: Some(why.to_owned()),
            disk_usage: shelf::disk_usage(&self.dir().join(&name)),
            used_by: used.vms,
            images: used.images,
            name,
            ..KernelView::default()
        }
    }

    fn view(&self, kernel: &Kernel, users: &BTreeMap<String, Users>) -> KernelView {
        let manifest = kernel.manifest.clone();
        let used = users.get(&manifest.name).cloned().unwrap_or_default();
        let check = manifest.check;
        KernelView {
            unusable: None,
            default: manifest.name == default_kernel(&self.core),
            digest: format!("sha256:{}", manifest.vmlinux_sha256),
            disk_usage: shelf::disk_usage(&kernel.dir),
            name: manifest.name,
            release: manifest.release,
            package: manifest.package,
            version: manifest.version,
            source: manifest.source,
            created_at: Some(manifest.created).filter(|at| *at > 0),
            modules: manifest.modules_disk,
            checked_by: check.as_ref().map(|check| by(check.by).to_owned()),
            missing: check.as_ref().map(missing).unwrap_or_default(),
            unknown: check.map(|check| check.unknown).unwrap_or_default(),
            used_by: used.vms,
            images: used.images,
        }
    }
}

/// Files of the directory of caches that are of no kernel. Where one kernel cannot be read, none is known to be.
pub fn unused_caches(core: &Core, unused: Unused) -> Vec<String> {
    // Before the kernels: what is made for one that comes meanwhile is not among them.
    let names = core.host.list(&core.recipes.templates_dir());
    let mut names = names.unwrap_or_default();
    let kernels = shelf::list(&*core.host, &core.recipes.kernels_dir()).and_then(|kernels| {
        let read = kernels.into_iter().map(|(_, kernel)| kernel);
        read.collect::<std::result::Result<Vec<_>, _>>()
    });
    let Ok(kernels) = kernels else {
        return Vec::new();
    };
    let kernels: Vec<Kernel> = kernels.into_iter().flatten().collect();
    let agent = core.recipes.agent().ok();
    names.retain(|name| cache::goes(name, &kernels, agent, unused));
    names
}

/// Who refers to a kernel.
#[derive(Debug, Clone, Default)]
struct Users {
    /// Names of VMs.
    vms: Vec<String>,
    /// Titles of images.
    images: Vec<String>,
}

const fn by(by: CheckedBy) -> &'static str {
    match by {
        CheckedBy::Config => "config",
        CheckedBy::Modules => "modules",
        CheckedBy::Symbols => "symbols",
        CheckedBy::Nothing => "nothing",
    }
}

fn missing(check: &KernelCheck) -> Vec<KernelOption> {
    let option = |need: &banger_vmm::boot::needs::Need| KernelOption {
        option: need.options[0].to_owned(),
        needed: need.needed,
        why: need.why.to_owned(),
    };
    check.missing().map(option).collect()
}

#[cfg(test)]
mod tests;
