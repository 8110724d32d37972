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

    /// Refuses an image that could not be had, without fetching anything.
    ///
    /// # Errors
    /// No such image.
    fn check_image(&self, name: &str) -> Result<(), ApiError>;

    /// The kernel of this name; the default one is fetched if it is not there.
    ///
    /// # Errors
    /// No such kernel, or fetching failed or was cancelled.
    fn kernel(&self, name: &str, op: &Operation) -> Result<Kernel, ApiError>;

    /// Refuses a kernel that could not be had, without fetching anything.
    ///
    /// # Errors
    /// No such kernel.
    fn check_kernel(&self, name: &str) -> Result<(), ApiError>;

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
            .map_err(|e| failed(&e))
    }

    fn store(&self) -> Result<&ImageStore<DaemonHost>, ApiError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let core = &self.core;
        let store = ImageStore::open(Arc::clone(&core.host), core.recipes.images_dir())
            .map_err(|e| failed(&e))?;
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
            Err(error) => return Err(failed(&error)),
        }
        op.stage(
            "image",
            "building the default image, once; this takes a minute",
        );
        store
            .build_debian(&DebianBuild::default(), &Told(op, "image"))
            .map_err(|e| failed(&e))
    }

    fn check_image(&self, name: &str) -> Result<(), ApiError> {
        if name == DebianBuild::DEFAULT_NAME {
            return Ok(());
        }
        match self.store()?.show(name) {
            Ok(_) => Ok(()),
            Err(banger_image::Error::NotFound(_)) => Err(no_image(name)),
            Err(error) => Err(failed(&error)),
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
        fetched.map_err(|error| {
            failed(&error).hint(format!(
                "check the machine's Debian package sources, or put a kernel into {}",
                dir.join(name).display()
            ))
        })
    }

    fn check_kernel(&self, name: &str) -> Result<(), ApiError> {
        let dir = self.core.recipes.kernels_dir();
        if name == DEFAULT_KERNEL || (!name.contains('/') && dir.join(name).is_dir()) {
            return Ok(());
        }
        Err(no_kernel(name))
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

fn no_kernel(name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("no kernel is called '{name}'"))
        .hint(format!("leave --kernel out to use '{DEFAULT_KERNEL}'"))
}
