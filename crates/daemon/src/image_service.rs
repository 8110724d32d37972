//! Images and kernels (R-SVC-1): what a VM boots from is there, fetched or built once, shared by who waits for it.

use crate::core::{Core, DaemonHost};
use crate::ops::Operation;
use banger_host::{ErrorKind, Files};
use banger_image::template::{self, Volume};
use banger_image::{DebianBuild, ImageStore, Manifest, Progress};
use banger_model::ByteSize;
use banger_vmm::boot::kernel::{self, Kernel};
use banger_wire::api::{ApiError, Code};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Name of the kernel that is used when none is named.
pub const DEFAULT_KERNEL: &str = "debian-cloud";

/// What the other services want of images and kernels. Every method may block.
pub trait Images: std::fmt::Debug + Send + Sync {
    /// The image of this name; the default one is built if it is not there.
    ///
    /// # Errors
    /// No such image, or building failed or was cancelled.
    fn image(&self, name: &str, op: &Operation) -> Result<Manifest, ApiError>;

    /// Everything that would keep [`Images::image`] from giving this image, without building anything.
    fn image_obstacles(&self, name: &str) -> Vec<ApiError>;

    /// The kernel of this name; the default one is fetched if it is not there.
    ///
    /// # Errors
    /// No such kernel, or fetching failed or was cancelled.
    fn kernel(&self, name: &str, op: &Operation) -> Result<Kernel, ApiError>;

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
    store: OnceLock<ImageStore<DaemonHost>>,
    /// Taken for fetching a kernel: of two that want one, the second finds it there. Leaf lock.
    kernels: Mutex<()>,
}

/// An operation as the importers report to it.
struct Told<'a>(&'a Operation, &'static str);

impl Progress for Told<'_> {
    fn stage(&self, text: &str) {
        self.0.stage(self.1, text);
    }
    fn detail(&self, line: &str) {
        tracing::debug!(op = %self.0.id, line, "image");
    }
    fn cancelled(&self) -> bool {
        self.0.cancel.why().is_some()
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::of(Code::OperationFailed, error)
}

/// An error of the image store, with its way out.
fn image_failed(code: Code, error: &banger_image::Error) -> ApiError {
    let told = ApiError::of(code, error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

impl ImageService {
    /// The service; touches nothing yet.
    pub fn new(core: Arc<Core>) -> Self {
        ImageService {
            core,
            store: OnceLock::new(),
            kernels: Mutex::new(()),
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

    fn store(&self) -> Result<&ImageStore<DaemonHost>, ApiError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let core = &self.core;
        let store = ImageStore::open(Arc::clone(&core.host), core.recipes.images_dir())
            .map_err(|e| image_failed(Code::OperationFailed, &e))?;
        Ok(self.store.get_or_init(|| store))
    }
}

impl Images for ImageService {
    fn image(&self, name: &str, op: &Operation) -> Result<Manifest, ApiError> {
        let store = self.store()?;
        match store.show(name) {
            Ok(found) => return Ok(found),
            Err(banger_image::Error::NotFound(_)) if name == DebianBuild::DEFAULT_NAME => {}
            Err(banger_image::Error::NotFound(_)) => return Err(no_image(name)),
            Err(error) => return Err(image_failed(Code::OperationFailed, &error)),
        }
        op.stage(
            "image",
            "building the default image, once; this takes a minute",
        );
        store
            .build_debian(&DebianBuild::default(), &Told(op, "image"))
            .map_err(|e| image_failed(Code::OperationFailed, &e))
    }

    fn image_obstacles(&self, name: &str) -> Vec<ApiError> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return vec![error],
        };
        match store.show(name) {
            Ok(_) => Vec::new(),
            Err(banger_image::Error::NotFound(_)) if name == DebianBuild::DEFAULT_NAME => {
                let obstacles = store.build_obstacles().into_iter();
                obstacles
                    .map(|e| image_failed(Code::Precondition, &e))
                    .collect()
            }
            Err(banger_image::Error::NotFound(_)) => vec![no_image(name)],
            Err(error) => vec![image_failed(Code::OperationFailed, &error)],
        }
    }

    fn kernel(&self, name: &str, op: &Operation) -> Result<Kernel, ApiError> {
        let (host, dir) = (&*self.core.host, self.core.recipes.kernels_dir());
        let look = || Kernel::load(host, &dir, name).map_err(|e| failed(&e));
        if let Some(kernel) = look()? {
            return Ok(kernel);
        }
        if name != DEFAULT_KERNEL {
            return Err(no_kernel(name));
        }
        let _fetching = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = look()? {
            return Ok(kernel);
        }
        make_dir(host, &dir)?;
        op.stage("kernel", "fetching the default kernel, once");
        let fetched = kernel::fetch_debian(
            host,
            &dir,
            name,
            &mut |line| op.stage("kernel", line),
            &|| op.cancel.why().is_some(),
        );
        fetched.map_err(|error| failed(&error).hint(put_kernel(&dir.join(name))))
    }

    fn kernel_obstacles(&self, name: &str) -> Vec<ApiError> {
        if name.contains('/') {
            return vec![no_kernel(name)];
        }
        let (host, dir) = (&*self.core.host, self.core.recipes.kernels_dir());
        let missing = match Kernel::load(host, &dir, name) {
            Ok(Some(_)) => None,
            Ok(None) if name == DEFAULT_KERNEL => kernel::fetch_obstacle(host)
                .err()
                .map(|e| ApiError::of(Code::Precondition, &e).hint(put_kernel(&dir.join(name)))),
            Ok(None) => Some(no_kernel(name)),
            Err(error) => Some(failed(&error)),
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
        let home = self.store()?.home(image);
        self.template(Volume::Work { image: &image.id }, size, Some(&home), op)
    }

    fn overlay_obstacles(&self, size: ByteSize) -> Vec<ApiError> {
        self.template_obstacles(Volume::Overlay, size)
    }

    fn work_obstacles(&self, image: &str, size: ByteSize) -> Vec<ApiError> {
        match self.store().map(|store| store.show(image)) {
            Ok(Ok(image)) => self.template_obstacles(Volume::Work { image: &image.id }, size),
            _ => Vec::new(),
        }
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

fn no_image(name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("no image is called '{name}'")).hint(format!(
        "leave --image out to use '{}'",
        DebianBuild::DEFAULT_NAME
    ))
}

fn put_kernel(dir: &std::path::Path) -> String {
    format!(
        "check this machine's apt and its Debian package sources, or put a kernel into {}",
        dir.display()
    )
}

fn no_kernel(name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("no kernel is called '{name}'"))
        .hint(format!("leave --kernel out to use '{DEFAULT_KERNEL}'"))
}
