//! Images and kernels (R-SVC-1): what a VM boots from is there, fetched or built once, shared by who waits for it.

use crate::catalogue::{Catalogue, Pinned, Told, image_failed};
use crate::core::{Core, DaemonHost};
use crate::kernel_errors::told as kernel_failed;
use crate::kernels::{default_kernel, no_kernel, pack};
use crate::ops::{self, Operation, Registry, SharedWork};
use crate::trash;
use banger_host::{ErrorKind, Files, linux::shares_blocks};
use banger_image::template::{self, Volume};
use banger_image::{DebianBuild, Manifest};
use banger_model::{ByteSize, spec::Origin};
use banger_vmm::boot::kernel::{self, Kernel, KernelError};
use banger_vmm::boot::package::NewKernel;
use banger_vmm::boot::pins::PinnedKernel;
use banger_vmm::boot::shelf::{self, Shelf};
use banger_wire::api::{ApiError, Code};
use std::path::Path;
use std::sync::Arc;

/// Name of the kernel that is used when none is named.
pub const DEFAULT_KERNEL: &str = "debian-cloud";

/// What the other services want of images and kernels. Every method may block.
pub trait Images: std::fmt::Debug + Send + Sync {
    /// The image a reference means, kept from being deleted as long as the second result lives; the default one is
    /// built if it is not there.
    ///
    /// # Errors
    /// No such image, or building failed or was cancelled.
    fn image(&self, name: &str, op: &Operation) -> Result<(Manifest, Pinned), ApiError>;

    /// Everything that would keep [`Images::image`] from giving this image, without building anything.
    fn image_obstacles(&self, name: &str) -> Vec<ApiError>;

    /// The kernel of a new VM of this image whose request names none, and who says so.
    fn kernel_for(&self, image: &str) -> (String, Origin);

    /// The kernel of this name, kept from being deleted or replaced as long as the second result lives; the default one is
    /// fetched if it is not there.
    ///
    /// # Errors
    /// No such kernel, or fetching failed or was cancelled.
    fn kernel(&self, name: &str, op: &Operation) -> Result<(Kernel, PinnedKernel), ApiError>;

    /// Everything that would keep [`Images::kernel`] from giving this kernel, without fetching anything.
    fn kernel_obstacles(&self, name: &str) -> Vec<ApiError>;

    /// Makes sure that an overlay disk of this size can be copied.
    ///
    /// # Errors
    /// mke2fs failed, or the size is none it can make.
    fn overlay_template(&self, size: ByteSize, op: &Operation) -> Result<(), ApiError>;

    /// Makes sure that a work disk of this size, with the image's `/root` in it, can be copied.
    ///
    /// # Errors
    /// mke2fs failed, or the size is none it can make.
    fn work_template(
        &self,
        image: &Manifest,
        size: ByteSize,
        op: &Operation,
    ) -> Result<(), ApiError>;

    /// Makes sure that a root disk of this size, which begins with the image, can be cloned.
    ///
    /// # Errors
    /// The file system does not share blocks, or a program of e2fsprogs failed.
    fn root_template(
        &self,
        image: &Manifest,
        size: ByteSize,
        op: &Operation,
    ) -> Result<(), ApiError>;

    /// Everything that would keep [`Images::root_template`] from giving a root disk with this room, without making it.
    fn root_obstacles(&self, image: &str, room: ByteSize) -> Vec<ApiError>;

    /// Everything that would keep [`Images::overlay_template`] from giving this disk, without making it.
    fn overlay_obstacles(&self, size: ByteSize) -> Vec<ApiError>;

    /// Everything that would keep [`Images::work_template`] from giving this disk, without making it; nothing where
    /// the image of this name is not there yet: making that takes the same.
    fn work_obstacles(&self, image: &str, size: ByteSize) -> Vec<ApiError>;
}

/// Images and kernels.
#[derive(Debug)]
pub struct ImageService {
    core: Arc<Core>,
    catalogue: Arc<Catalogue>,
    registry: Arc<Registry>,
    shared: SharedWork,
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::of(Code::OperationFailed, error)
}

impl ImageService {
    /// The service; touches nothing yet.
    pub fn new(core: Arc<Core>, catalogue: Arc<Catalogue>, registry: Arc<Registry>) -> Self {
        ImageService {
            core,
            catalogue,
            registry,
            shared: SharedWork::default(),
        }
    }

    fn template(
        &self,
        volume: Volume<'_>,
        size: ByteSize,
        content: Option<&Path>,
        op: &Operation,
    ) -> Result<(), ApiError> {
        let dir = self.core.recipes.templates_dir();
        let host = &*self.core.host;
        make_dir(host, &dir)?;
        let cancelled = || op.cancel.why().is_some();
        template::ext4(host, &dir, volume, size, content, &cancelled)
            .map(drop)
            .map_err(|e| image_failed(Code::OperationFailed, &e))
    }

    fn template_obstacles(&self, volume: Volume<'_>, size: ByteSize) -> Vec<ApiError> {
        let dir = self.core.recipes.templates_dir();
        let fact = template::obstacle(&*self.core.host, &dir, volume, size);
        let obstacle = fact.err().map(|e| image_failed(Code::Precondition, &e));
        obstacle.into_iter().collect()
    }
}

impl Images for ImageService {
    fn image(&self, name: &str, op: &Operation) -> Result<(Manifest, Pinned), ApiError> {
        match self.catalogue.pin(name) {
            Err(error) if missing_default(name, &error) => {}
            found => return found,
        }
        let catalogue = Arc::clone(&self.catalogue);
        let build = move |op: &Operation| {
            op.stage(
                "image",
                "building the default image, once; this takes a minute",
            );
            let progress = Told {
                op,
                stage: "image",
                total: None,
            };
            let image = catalogue
                .store()
                .build_debian(&DebianBuild::default(), &progress)
                .map_err(|e| image_failed(Code::OperationFailed, &e))?;
            catalogue.tell_made(&image.id, &[image.name]);
            Ok(())
        };
        let what = ("the default image", "image.build");
        self.shared.join(&self.registry, what, op, build)?;
        self.catalogue.pin(name)
    }

    fn image_obstacles(&self, name: &str) -> Vec<ApiError> {
        match self.catalogue.find(name) {
            Ok(image) => {
                let changed = image.external.and_then(|external| external.check().err());
                let obstacle = changed.map(|e| image_failed(Code::Precondition, &e));
                obstacle.into_iter().collect()
            }
            Err(error) if missing_default(name, &error) => {
                let obstacles = self.catalogue.store().build_obstacles();
                obstacles
                    .into_iter()
                    .map(|e| image_failed(Code::Precondition, &e))
                    .collect()
            }
            Err(error) => vec![error],
        }
    }

    fn kernel_for(&self, image: &str) -> (String, Origin) {
        let image = self.catalogue.find(image).ok();
        match image.and_then(|image| image.kernel) {
            Some(kernel) => (kernel, Origin::Image),
            None => (default_kernel(&self.core).to_owned(), Origin::Builtin),
        }
    }

    fn kernel(&self, name: &str, op: &Operation) -> Result<(Kernel, PinnedKernel), ApiError> {
        let (host, dir) = (&*self.core.host, self.core.recipes.kernels_dir());
        // Before the look: what is seen then stays.
        let look = || {
            let pinned = self.core.recipes.kernel_names().pin(name);
            let kernel = Kernel::load(host, &dir, name).map_err(|e| kernel_failed(&e))?;
            Ok(kernel.map(|kernel| (kernel, pinned)))
        };
        if let Some(found) = look()? {
            return Ok(found);
        }
        if name != DEFAULT_KERNEL {
            return Err(no_kernel(&self.core, name));
        }
        let core = Arc::clone(&self.core);
        let fetch = move |op: &Operation| fetch_kernel(&core, op);
        let what = ("the default kernel", "kernel.fetch");
        self.shared.join(&self.registry, what, op, fetch)?;
        look()?.ok_or_else(|| no_kernel(&self.core, name))
    }

    fn kernel_obstacles(&self, name: &str) -> Vec<ApiError> {
        if shelf::check_name(name).is_err() {
            return vec![no_kernel(&self.core, name)];
        }
        let (host, dir) = (&*self.core.host, self.core.recipes.kernels_dir());
        let missing = match Kernel::load(host, &dir, name) {
            Ok(Some(_)) => None,
            Ok(None) if name == DEFAULT_KERNEL => kernel::fetch_obstacle(host)
                .err()
                .map(|e| ApiError::of(Code::Precondition, &e).hint(put_kernel(&dir.join(name)))),
            Ok(None) => Some(no_kernel(&self.core, name)),
            Err(error) => Some(kernel_failed(&error)),
        };
        missing.into_iter().collect()
    }

    fn overlay_template(&self, size: ByteSize, op: &Operation) -> Result<(), ApiError> {
        self.template(Volume::Overlay, size, None, op)
    }

    fn work_template(
        &self,
        image: &Manifest,
        size: ByteSize,
        op: &Operation,
    ) -> Result<(), ApiError> {
        let home = self.catalogue.store().home(image);
        self.template(Volume::Work { image: &image.id }, size, Some(&home), op)
    }

    fn root_template(
        &self,
        image: &Manifest,
        size: ByteSize,
        op: &Operation,
    ) -> Result<(), ApiError> {
        let dir = self.core.recipes.templates_dir();
        let host = &*self.core.host;
        make_dir(host, &dir)?;
        let rootfs = self.core.recipes.rootfs(&image.id);
        let cancelled = || op.cancel.why().is_some();
        template::root(host, &dir, &image.id, &rootfs, size, &cancelled)
            .map(drop)
            .map_err(|e| image_failed(Code::OperationFailed, &e))
    }

    fn root_obstacles(&self, image: &str, room: ByteSize) -> Vec<ApiError> {
        let recipes = &self.core.recipes;
        let found = self.catalogue.find(image).ok();
        let images = found
            .as_ref()
            .and_then(|image| Some(recipes.rootfs(&image.id).parent()?.to_owned()))
            .unwrap_or_else(|| recipes.images_dir());
        let mut obstacles = clones(&self.core, &images)
            .err()
            .into_iter()
            .collect::<Vec<_>>();
        let id = found.as_ref().map_or("", |image| &image.id);
        let size = found.as_ref().map_or(0, |image| image.size);
        let size = banger_model::spec::root_disk(ByteSize(size), room);
        obstacles.extend(self.template_obstacles(Volume::Root { image: id }, size));
        obstacles
    }

    fn overlay_obstacles(&self, size: ByteSize) -> Vec<ApiError> {
        self.template_obstacles(Volume::Overlay, size)
    }

    fn work_obstacles(&self, image: &str, size: ByteSize) -> Vec<ApiError> {
        match self.catalogue.find(image) {
            Ok(image) => self.template_obstacles(Volume::Work { image: &image.id }, size),
            _ => Vec::new(),
        }
    }
}

fn fetch_kernel(core: &Core, op: &Operation) -> Result<(), ApiError> {
    let (host, dir) = (&*core.host, core.recipes.kernels_dir());
    let there = Kernel::load(host, &dir, DEFAULT_KERNEL).map_err(|e| kernel_failed(&e))?;
    if there.is_some() {
        return Ok(()); // whoever fetched it was done just before we began
    }
    make_dir(host, &dir)?;
    op.stage("kernel", "fetching the default kernel, once");
    let cancelled = || op.cancel.why().is_some();
    let pack = pack(core, &cancelled);
    let tag = op.id.to_string();
    let discard = |dir: &Path| trash::discard(&core.host, dir);
    let shelf = Shelf {
        kernels: &dir,
        tag: &tag,
        pack: &*pack,
        names: core.recipes.kernel_names(),
        // Whoever gave the name meanwhile has a kernel for it.
        replace: false,
        cancelled: &cancelled,
        discard: &discard,
    };
    let new = NewKernel {
        name: DEFAULT_KERNEL,
        created: ops::now(),
        ..NewKernel::default()
    };
    let stage = &mut |line: &str| op.stage("kernel", line);
    let fetched = kernel::fetch_package(host, &shelf, kernel::DEBIAN_CLOUD, &new, stage);
    match fetched {
        Ok(_) | Err(KernelError::Exists { .. }) => Ok(()),
        Err(error) => Err(kernel_failed(&error).hint(put_kernel(&dir.join(DEFAULT_KERNEL)))),
    }
}

/// Makes a directory of the state directory unless it is there.
///
/// # Errors
/// It cannot be made.
pub fn make_dir(host: &DaemonHost, dir: &std::path::Path) -> Result<(), ApiError> {
    match host.mkdir(dir) {
        Err(error) if error.kind != ErrorKind::Exists => Err(failed(&error)),
        _ => Ok(()),
    }
}

/// Whether a VM's root disk can be a clone of an image in this directory.
///
/// # Errors
/// The file system does not share blocks, with the way out.
pub fn clones(core: &Core, images: &Path) -> Result<(), ApiError> {
    // Before the first image or VM is made, what they will be made in.
    let there = |dir: &Path| {
        let mut up = dir.ancestors();
        up.find(|dir| dir.is_dir()).unwrap_or(dir).to_owned()
    };
    let vms = core.site.vms_dir();
    shares_blocks(&there(images), &there(&vms))
        .map_err(|e| ApiError::of(Code::Precondition, &e).hint(banger_image::UNSHARED))
}

/// Whether what was not found is the image that is built when it is missing.
fn missing_default(name: &str, error: &ApiError) -> bool {
    name == DebianBuild::DEFAULT_NAME && error.code == Code::NotFound
}

fn put_kernel(dir: &std::path::Path) -> String {
    format!(
        "check this machine's apt and its Debian package sources, or put a kernel into {}",
        dir.display()
    )
}
