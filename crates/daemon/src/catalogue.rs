//! The images as users meet them: import, list, show, delete; and which of them are being used for something new.

use crate::blobs::BlobUsers;
use crate::core::{Core, DaemonHost};
use crate::ops::{Operation, Why};
use banger_config::{Config, ImageLimits, builtin};
use banger_converge::Ledger;
use banger_image::{
    DebianBuild, ImageStore, Import, Limits, Manifest, Moves, Named, Progress, template,
};
use banger_model::{CatalogPlace, ImageReference, Vm, is_catalog_name};
use banger_registry::{BlobCache, Turns};
use banger_vmm::boot::pins::PinnedKernel;
use banger_wire::api::{
    self, ApiError, Code, ImageDeleted, ImageNotice, ImageView, Pullable, What,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Result<T> = std::result::Result<T, ApiError>;

/// The images. Every method may block.
#[derive(Debug)]
pub struct Catalogue {
    core: Arc<Core>,
    store: ImageStore<DaemonHost>,
    pins: Arc<Pins>,
    blobs: BlobCache,
    pulls: Turns,
    source: Option<CatalogPlace>,
}

/// Images by id, with how many requests are making something of each that no row tells of yet. This is the image lock
/// of the lock order: held while one is looked up, and while one that is deleted is taken out of the list.
type Pins = Mutex<BTreeMap<String, usize>>;

/// Keeps an image from being deleted until it is dropped: from when a new VM's image is chosen to when its row says so.
#[derive(Debug)]
pub struct Pinned {
    id: String,
    pins: Arc<Pins>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}

/// An operation as the importers report to it.
pub struct Told<'a> {
    /// The operation.
    pub op: &'a Operation,
    /// Its stage.
    pub stage: &'static str,
    /// Bytes that will come in, if that is known.
    pub total: Option<u64>,
}

impl Progress for Told<'_> {
    fn stage(&self, text: &str) {
        self.op.stage(self.stage, text);
    }
    fn moved(&self, bytes: u64) {
        self.op.moved(bytes, self.total);
    }
    fn detail(&self, line: &str) {
        tracing::debug!(line, "image");
    }
    fn cancelled(&self) -> bool {
        self.op.cancel.why().is_some()
    }
}

/// An error of the image store, with its way out.
pub fn image_failed(code: Code, error: &banger_image::Error) -> ApiError {
    let told = ApiError::of(code, error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// What kind of failure an error of the image store is.
fn code_of(error: &banger_image::Error) -> Code {
    use banger_image::Error as E;
    match error {
        E::NotFound(_) => Code::NotFound,
        E::Exists { .. } | E::OtherDigest { .. } => Code::AlreadyExists,
        E::Ambiguous { .. }
        | E::BadName(_)
        | E::BadBase(_)
        | E::BadPackage(_)
        | E::NotAnImage(_)
        | E::Truncated
        | E::Damaged(_)
        | E::Refused { .. }
        | E::TooLarge(_)
        | E::BadFileSystem(_)
        | E::BadArchive(_)
        | E::BadBundle(_)
        | E::NotAFile(_)
        | E::Untold { .. }
        | E::BadRemote(_)
        | E::OtherPlatform(_)
        | E::NotInArchive { .. }
        | E::SeveralImages(_) => Code::BadRequest,
        E::InUse { .. }
        | E::Pinned(_)
        | E::BaseChanged(_)
        | E::SeveralNames { .. }
        | E::NoNamespace(_)
        | E::ToolMissing { .. }
        | E::NoSpace { .. } => Code::Precondition,
        E::Cancelled => Code::Conflict,
        _ => Code::OperationFailed,
    }
}

pub(crate) fn told(error: &banger_image::Error) -> ApiError {
    image_failed(code_of(error), error)
}

impl Catalogue {
    /// The catalogue; touches nothing yet.
    pub fn new(core: Arc<Core>, config: &Config) -> Self {
        let dir = core.recipes.images_dir();
        Catalogue {
            blobs: BlobCache::new(core.recipes.blobs_dir()),
            pulls: Turns::default(),
            source: config.catalog.source.clone(),
            store: ImageStore::new(Arc::clone(&core.host), dir).within(limits(&config.images)),
            core,
            pins: Arc::default(),
        }
    }

    /// Blobs of registries, and whose turn it is with what.
    pub(crate) const fn registry(&self) -> (&BlobCache, &Turns) {
        (&self.blobs, &self.pulls)
    }

    /// Where the catalog is, if there is one.
    pub(crate) const fn source(&self) -> Option<&CatalogPlace> {
        self.source.as_ref()
    }

    /// The directory of kernels.
    pub(crate) fn kernels_dir(&self) -> PathBuf {
        self.core.recipes.kernels_dir()
    }

    /// The directory of images.
    pub const fn store(&self) -> &ImageStore<DaemonHost> {
        &self.store
    }

    /// The image a reference means, kept from being deleted as long as the second result lives.
    ///
    /// # Errors
    /// No such image.
    pub fn pin(&self, reference: &str) -> Result<(Manifest, Pinned)> {
        let (image, pinned) = {
            let mut pins = self.pins();
            let image = self.find(reference)?;
            *pins.entry(image.id.clone()).or_default() += 1;
            let pinned = Pinned {
                id: image.id.clone(),
                pins: Arc::clone(&self.pins),
            };
            (image, pinned)
        };
        // A file outside may be where nobody answers: nobody waits for that but who asked.
        if let Some(external) = &image.external {
            external.check().map_err(|error| told(&error))?;
        }
        Ok((image, pinned))
    }

    /// The image a reference means.
    ///
    /// # Errors
    /// No such image: what there is, is the hint.
    pub fn find(&self, reference: &str) -> Result<Manifest> {
        self.store
            .show(reference)
            .map_err(|error| self.not_found(&error))
    }

    /// `image.import`: makes an image of a stream.
    ///
    /// # Errors
    /// What the importer says.
    pub fn import(
        &self,
        request: &api::ImageImport,
        source: &mut dyn Read,
        op: &Operation,
    ) -> Result<ImageView> {
        self.writable()?;
        let import = wanted(request);
        let progress = Told {
            op,
            stage: "image",
            total: request.size,
        };
        let made = self.store.import(source, &import, &progress);
        // What breaks because it was cancelled says nothing of the source.
        let cancelled = |error| op.cancel.why().map_or_else(|| told(&error), Why::error);
        let made = made.map_err(cancelled)?;
        self.tell_made(&made.id, &request.names);
        self.show(&made.id)
    }

    /// Refuses changes where there is no database: the answer, and who uses what, would come from it.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn writable(&self) -> Result<()> {
        self.core.writable()
    }

    /// Tells that there is a new image, or that one has new names.
    pub fn tell_made(&self, id: &str, names: &[String]) {
        self.core
            .ledger
            .feed()
            .tell(What::ImageCreated(ImageNotice {
                id: id.to_owned(),
                names: names.to_owned(),
            }));
    }

    /// Refuses an import that cannot succeed, before a byte of it is read.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_import(&self, request: &api::ImageImport) -> Result<()> {
        if request.names.is_empty() {
            return Err(
                ApiError::new(Code::BadRequest, "an image needs a name").hint("--name NAME")
            );
        }
        let checked = self.store.check_import(&wanted(request));
        checked.map_err(|error| told(&error))
    }

    /// `image.list`.
    ///
    /// # Errors
    /// The images or the VMs cannot be read.
    pub fn list(&self) -> Result<Vec<ImageView>> {
        let images = self.store.list().map_err(|error| told(&error))?;
        let users = self.users()?;
        let blobs = self.blob_users(&images);
        let view = |image| self.view(image, &users, &blobs);
        Ok(images.into_iter().map(view).collect())
    }

    /// `image.show`.
    ///
    /// # Errors
    /// No such image.
    pub fn show(&self, reference: &str) -> Result<ImageView> {
        let found = self.store.inspect(reference);
        let image = found.map_err(|error| self.not_found(&error))?;
        let all = self.store.list().map_err(|error| told(&error))?;
        Ok(self.view(image, &self.users()?, &self.blob_users(&all)))
    }

    /// `image.delete`.
    ///
    /// # Errors
    /// No such image, VMs use it, or an effect failed.
    pub fn delete(&self, request: &api::ImageDelete) -> Result<ImageDeleted> {
        // Held only from the look at who uses the image until it is out of the list: the runtime's thread takes this
        // lock whenever a pin ends.
        let held = RefCell::new(None);
        let unread = RefCell::new(None);
        let users = |id: &str| {
            let pins = self.pins();
            let pinned = pins.contains_key(id);
            held.replace(Some(pins));
            let mut rows = self.users().map_err(|error| {
                unread.replace(Some(error));
                banger_image::Error::Pinned(id.to_owned())
            })?;
            let users = rows.remove(id).unwrap_or_default();
            match users.is_empty() && pinned {
                true => Err(banger_image::Error::Pinned(id.to_owned())),
                false => Ok(users),
            }
        };
        let unlisted = |id: &str| {
            held.take();
            self.drop_templates(id);
        };
        let deleted = self
            .store
            .delete(&request.image, request.force, &users, unlisted);
        held.take();
        if let Some(error) = unread.take() {
            return Err(error);
        }
        let deleted = deleted.map_err(|error| self.not_found(&error))?;
        if let Some(error) = &deleted.left {
            let error = told(error);
            tracing::warn!(%error, image = deleted.id, "files of a deleted image stay until the daemon's next start");
        }
        if deleted.gone {
            self.core
                .ledger
                .feed()
                .tell(What::ImageDeleted(ImageNotice {
                    id: deleted.id.clone(),
                    names: deleted.names.clone(),
                }));
        }
        Ok(ImageDeleted {
            id: deleted.id,
            names: deleted.names,
            gone: deleted.gone,
        })
    }

    /// Sets aside what dead makers and deletes have left; called when nothing else happens yet. What is given back is
    /// for [`Catalogue::unlink`] when the daemon listens, because it may take minutes.
    pub fn sweep(&self) -> Vec<PathBuf> {
        let swept = self.store.sweep().and_then(|trash| {
            let ids = self.store.ids()?;
            let dir = self.core.recipes.templates_dir();
            let kept = template::keep_only(&*self.core.host, &dir, &ids);
            if let Err(error) = kept {
                tracing::warn!(%error, "templates of images that are gone stay");
            }
            Ok(trash)
        });
        swept.unwrap_or_else(|error| {
            let error = told(&error);
            tracing::warn!(%error, "what is left of images stays");
            Vec::new()
        })
    }

    /// Unlinks what [`Catalogue::sweep`] has set aside.
    pub fn unlink(&self, trash: &[PathBuf]) {
        for trash in trash {
            if let Err(error) = self.store.unlink(trash) {
                let error = told(&error);
                tracing::warn!(%error, path = %trash.display(), "what is left of an image stays");
            }
        }
    }

    fn drop_templates(&self, id: &str) {
        let dir = self.core.recipes.templates_dir();
        if let Err(error) = template::forget(&*self.core.host, &dir, id) {
            // A cache: the next start of the daemon clears it.
            tracing::warn!(%error, image = id, "templates of a deleted image stay");
        }
    }

    /// `image.set`: says what VMs of an image get; `kernels` refuses kernels that are not there, and keeps the others there.
    ///
    /// # Errors
    /// No such image, or no such kernel.
    pub fn set(
        &self,
        request: &api::ImageSet,
        kernels: impl FnOnce(&str) -> Result<PinnedKernel>,
    ) -> Result<ImageView> {
        let image = self.find(&request.image)?;
        let kernel = Some(request.kernel.as_str()).filter(|name| *name != api::ANY_KERNEL);
        // Until the image says it, and so keeps the kernel itself.
        let _pinned = kernel.map(kernels).transpose()?;
        let set = self.store.set_kernel(&image.id, kernel);
        set.map_err(|error| self.not_found(&error))?;
        self.show(&image.id)
    }

    /// The kernels that images name as theirs, each with the image's title.
    ///
    /// # Errors
    /// The images cannot be read.
    pub fn kernels(&self) -> Result<Vec<(String, String)>> {
        let images = self.store.list().map_err(|error| told(&error))?;
        let of = |image: Named| Some((image.manifest.kernel.clone()?, image.title().to_owned()));
        Ok(images.into_iter().filter_map(of).collect())
    }

    /// Names of the VMs that need each image, by its id; of lost ones, their ids.
    fn users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let rows = self.core.ledger.vms();
        let rows = rows.map_err(|error| ApiError::of(Code::Unavailable, &error))?;
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for vm in rows.into_iter().filter(Vm::needs_image) {
            let of = users.entry(vm.spec.image_id).or_default();
            of.push(vm.name.to_string());
        }
        // A directory without a row may be adopted again, and is deleted by its id.
        let lost = banger_converge::lost(&self.core.env());
        for vm in lost.map_err(|error| ApiError::of(Code::Unavailable, &error))? {
            if let Some(image) = vm.image_id {
                users.entry(image).or_default().push(vm.id.to_string());
            }
        }
        Ok(users)
    }

    fn view(
        &self,
        image: Named,
        users: &BTreeMap<String, Vec<String>>,
        blobs: &BlobUsers,
    ) -> ImageView {
        let (disk_usage, own) = self.store.disk_usage(&image.manifest.id);
        let (shared_blobs, own_blobs) = blobs.of(&image.manifest);
        let Named { manifest, names } = image;
        let origin = manifest.origin;
        let (config_sha256, built, labels, layers) = match origin {
            Some(origin) => (
                Some(origin.config),
                origin.created,
                origin.labels,
                origin.layers,
            ),
            None => Default::default(),
        };
        ImageView {
            disk_usage,
            own: own + own_blobs,
            shared: disk_usage - own + shared_blobs,
            config_sha256,
            built,
            labels,
            layers,
            used_by: users.get(&manifest.id).cloned().unwrap_or_default(),
            id: manifest.id,
            names,
            digest: manifest.digest,
            size: manifest.size,
            created_at: manifest.created,
            source: manifest.source,
            repo_digests: manifest.repo_digests.into_iter().collect(),
            distro: Some(manifest.distro).filter(|distro| !distro.is_empty()),
            external: manifest
                .external
                .map(|external| external.path.display().to_string()),
            arch: manifest.arch,
            kernel: manifest.kernel,
            config: manifest.config,
        }
    }

    /// An error of a look-up; where nothing was found, with what there is.
    pub(crate) fn not_found(&self, error: &banger_image::Error) -> ApiError {
        if let banger_image::Error::NotFound(name) = error {
            let mut told = told(error).hint(self.what_there_is());
            told.pullable = pullable(name);
            return told;
        }
        told(error)
    }

    fn what_there_is(&self) -> String {
        let images = self.store.list().unwrap_or_default();
        let titles: Vec<_> = images.iter().map(Named::title).collect();
        match titles[..] {
            [] => format!(
                "there are none yet: '{}' is built when it is first used; banger image pull fetches one, banger image import makes one of a tar, a directory or an ext4 file",
                DebianBuild::DEFAULT_NAME
            ),
            _ => format!(
                "there are: {}; banger image pull and banger image import bring more",
                titles.join(", ")
            ),
        }
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a registry may have under a name that nothing here has.
fn pullable(name: &str) -> Option<Box<Pullable>> {
    let is_id = name.len() == Manifest::ID_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit());
    let read: ImageReference = name.parse().ok().filter(|_| !is_id)?;
    // A name alone is also one of a catalog, and all the same to a registry.
    let reference = match is_catalog_name(name) {
        true => name.to_owned(),
        false => read.familiar(),
    };
    Some(Box::new(Pullable { reference }))
}

/// Which names move, where the user says that they do.
pub(crate) const fn moves(replace: bool) -> Moves {
    match replace {
        true => Moves::All,
        false => Moves::None,
    }
}

/// What archives may expand to.
fn limits(said: &ImageLimits) -> Limits {
    let entries = u64::from(said.max_entries.unwrap_or(builtin::IMAGE_ENTRIES));
    let standard = Limits::default();
    let in_directory = said.max_directory_entries;
    Limits {
        entries,
        bytes: said.max_size.unwrap_or(builtin::IMAGE_SIZE).bytes(),
        // Grows with what may be kept of each entry, so that more entries need one key and not two.
        kept: standard
            .kept
            .max(standard.kept / standard.entries * entries),
        in_directory: in_directory
            .unwrap_or(builtin::IMAGE_DIRECTORY_ENTRIES)
            .into(),
        devices: said.max_devices.unwrap_or(builtin::IMAGE_DEVICES).into(),
        ratio: said.max_ratio.unwrap_or(builtin::IMAGE_RATIO).into(),
        ..standard
    }
}

fn wanted(request: &api::ImageImport) -> Import {
    Import {
        names: request.names.clone(),
        moves: moves(request.replace),
        only: request.only.clone(),
        source: request.source.clone(),
        ..Import::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the configuration documents as its defaults is what the store takes where nobody says.
    #[test]
    fn the_limits_of_who_says_nothing_are_the_stores() {
        assert_eq!(limits(&ImageLimits::default()), Limits::default());
        let more = limits(&ImageLimits {
            max_entries: Some(2 * builtin::IMAGE_ENTRIES),
            ..ImageLimits::default()
        });
        assert!(more.kept > Limits::default().kept);
    }
}
