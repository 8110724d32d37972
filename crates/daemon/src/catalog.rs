//! What a catalog offers (R-IMG-1): read anew each time it is asked for, and fetched by name. A name means what is here, then
//! what the catalog has, then what a registry has.

use crate::catalogue::{Catalogue, Told, told};
use crate::ops::{Operation, Why};
use crate::pull::unmade;
use banger_image::{Import, Moves};
use banger_model::{
    CATALOG_MAX, Catalog, CatalogEntry, CatalogKind, CatalogPlace, hex, is_catalog_name,
};
use banger_registry::{Blob, Held, Nobody, Watch, Web};
use banger_wire::api::{self, ApiError, CatalogView, Code, ImageView};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

type Result<T> = std::result::Result<T, ApiError>;

/// Stage of the operation.
const STAGE: &str = "image";
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Something that a catalog offers and that has come, proven.
#[derive(Debug)]
pub struct Offered {
    /// Its bytes, from the beginning.
    pub file: File,
    /// What is fetched is not pruned meanwhile.
    _held: Option<Held>,
}

impl Catalogue {
    /// `image.catalog`: what is offered, of any kind and for any machine.
    ///
    /// # Errors
    /// No catalog is configured, or it cannot be read.
    pub fn available(&self) -> Result<Vec<CatalogView>> {
        let source = self.source().ok_or_else(|| {
            ApiError::new(Code::Precondition, "no catalog is configured")
                .hint("set catalog.source to a catalog.json, a file or a URL: banger config show")
        })?;
        let catalog = read(source, &Nobody)?;
        let views = catalog.entries.into_iter().map(|entry| {
            let here = match entry.kind {
                CatalogKind::Image => {
                    let digest = format!("sha256:{}", entry.sha256);
                    self.store().pulled(&digest).ok().flatten().is_some()
                }
                CatalogKind::Kernel => {
                    let dir = self.kernels_dir().join(&entry.name);
                    dir.is_dir()
                }
            };
            CatalogView { entry, here }
        });
        Ok(views.collect())
    }

    /// What an entry of the catalog is, fetched and proven.
    ///
    /// # Errors
    /// It cannot be fetched, or is something else.
    pub(crate) fn fetched(
        &self,
        source: &CatalogPlace,
        entry: &CatalogEntry,
        op: &Operation,
    ) -> Result<Offered> {
        let place = entry.place(source).map_err(|e| broken(source, &e))?;
        op.stage(STAGE, format!("fetching {} from {place}", entry.name));
        let blob = Blob {
            sha256: entry.sha256.clone(),
            size: entry.size,
        };
        match place {
            CatalogPlace::File(path) => Ok(Offered {
                file: proven(&path, &blob, op)?,
                _held: None,
            }),
            CatalogPlace::Url(url) => {
                let (cache, _) = self.registry();
                let held = cache.hold([&blob]);
                let here = cache.here(&blob).min(blob.size);
                let room = self.store().check_layers(blob.size - here);
                room.map_err(|error| told(&error))?;
                let watch = Heard(op, Some(blob.size));
                let web = Web::new(&watch).map_err(|e| failed(&e))?;
                let path = web.blob(cache, &blob, &url).map_err(|e| failed(&e))?;
                Ok(Offered {
                    file: File::open(&path).map_err(|e| unread(&path, &e))?,
                    _held: Some(held),
                })
            }
        }
    }

    /// `image.pull` of a name that the catalog has; `None` if it has not.
    ///
    /// # Errors
    /// As [`Catalogue::offered`], or it is no image.
    pub fn pull_offered(
        &self,
        request: &api::ImagePull,
        op: &Operation,
    ) -> Result<Option<ImageView>> {
        let done = self.pull_from_catalog(request, op);
        done.map_err(|error| op.cancel.why().map_or(error, Why::error))
    }

    /// The kernels that the catalog has for this machine; none without a catalog.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn offered_kernels(&self) -> Result<Vec<CatalogEntry>> {
        let Some(source) = self.source() else {
            return Ok(Vec::new());
        };
        let entries = read(source, &Nobody)?.entries.into_iter();
        let ours = entries.filter(|entry| entry.kind == CatalogKind::Kernel && entry.is_ours());
        Ok(ours.collect())
    }

    /// The kernel that the catalog has by this name for this machine, fetched and proven, and where it is from; `None` if it
    /// has none, or there is no catalog.
    ///
    /// # Errors
    /// It cannot be fetched, or is something else; or cancelled.
    pub fn offered_kernel(
        &self,
        name: &str,
        op: &Operation,
    ) -> Result<Option<(Offered, u64, String)>> {
        let Some(source) = self.source().filter(|_| is_catalog_name(name)) else {
            return Ok(None);
        };
        let catalog = read(source, &Heard(op, None))?;
        let Some(entry) = catalog.find(CatalogKind::Kernel, name) else {
            return Ok(None);
        };
        let offered = self.fetched(source, entry, op)?;
        Ok(Some((offered, entry.size, format!("{name} of {source}"))))
    }

    fn pull_from_catalog(
        &self,
        request: &api::ImagePull,
        op: &Operation,
    ) -> Result<Option<ImageView>> {
        let name = &request.reference;
        let Some(source) = self.source().filter(|_| is_catalog_name(name)) else {
            return Ok(None);
        };
        let catalog = read(source, &Heard(op, None))?;
        let Some(entry) = catalog.find(CatalogKind::Image, name) else {
            return Ok(None);
        };
        let names = self.names_of(name.clone(), request.name.as_deref())?;
        let repo_digest = format!("catalog/{name}@sha256:{}", entry.sha256);
        let digest = format!("sha256:{}", entry.sha256);
        if let Some(there) = self.store().pulled(&digest).map_err(|e| told(&e))? {
            op.stage(STAGE, format!("{name} is up to date"));
            let id = &there.manifest.id;
            if !names.iter().all(|name| there.names.contains(name)) {
                let named = self.store().name(id, &names, &repo_digest);
                named.map_err(|error| unmade(&error))?;
            }
            return self.show(id).map(Some);
        }
        let mut offered = self.fetched(source, entry, op)?;
        let import = Import {
            names,
            moves: Moves::First,
            source: Some(format!("{name} of {source}")),
            repo_digest: Some(repo_digest),
            distro: Some(entry.distro.clone()).filter(|distro| !distro.is_empty()),
            kernel: entry.kernel_ref.clone(),
            ..Import::default()
        };
        let progress = Told {
            op,
            stage: STAGE,
            total: Some(entry.size),
        };
        let made = self.store().import(&mut offered.file, &import, &progress);
        let made = made.map_err(|error| unmade(&error))?;
        self.tell_made(&made.id, &import.names);
        self.show(&made.id).map(Some)
    }
}

/// Reads the catalog.
fn read(source: &CatalogPlace, watch: &dyn Watch) -> Result<Catalog> {
    let bytes = match source {
        CatalogPlace::Url(url) => {
            let web = Web::new(watch).map_err(|e| failed(&e))?;
            web.document(url, CATALOG_MAX).map_err(|e| failed(&e))?
        }
        CatalogPlace::File(path) => {
            let mut bytes = Vec::new();
            let file = regular(path)?;
            let read = file.take(CATALOG_MAX + 1).read_to_end(&mut bytes);
            read.map_err(|error| unread(path, &error))?;
            if bytes.len() as u64 > CATALOG_MAX {
                let why = format!("{source} is longer than {CATALOG_MAX} bytes");
                return Err(ApiError::new(Code::OperationFailed, why));
            }
            bytes
        }
    };
    Catalog::parse(&bytes).map_err(|error| broken(source, &error))
}

/// A file of this machine that has these bytes.
fn proven(path: &Path, blob: &Blob, op: &Operation) -> Result<File> {
    let mut file = regular(path)?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0_u64, vec![0; CHUNK]);
    loop {
        if let Some(why) = op.cancel.why() {
            return Err(why.error());
        }
        match file.read(&mut buffer).map_err(|e| unread(path, &e))? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                len += n as u64;
            }
        }
    }
    let found = hex::encode(&hash.finalize());
    if (found.as_str(), len) != (blob.sha256.as_str(), blob.size) {
        let (path, wanted) = (path.display(), &blob.sha256);
        let why = format!(
            "{path} has {len} bytes of sha256:{found}, and its catalog says {} bytes of sha256:{wanted}",
            blob.size
        );
        let error = ApiError::new(Code::OperationFailed, why);
        return Err(error.hint("ask whoever keeps the catalog"));
    }
    file.rewind().map_err(|error| unread(path, &error))?;
    Ok(file)
}

/// A regular file; what is none is not waited for.
fn regular(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut open = OpenOptions::new();
    let file = open.read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| unread(path, &error))?;
    match file.metadata().map_err(|error| unread(path, &error))? {
        meta if meta.is_file() => Ok(file),
        _ => {
            let why = format!("{} is no file", path.display());
            Err(ApiError::new(Code::OperationFailed, why))
        }
    }
}

fn unread(path: &Path, error: &std::io::Error) -> ApiError {
    let why = format!("{} cannot be read", path.display());
    ApiError::new(Code::OperationFailed, why)
        .caused_by(error)
        .hint("catalog.source says where the catalog is: banger config show")
}

fn broken(source: &CatalogPlace, error: &banger_model::CatalogError) -> ApiError {
    let why = format!("the catalog at {source} is refused");
    ApiError::new(Code::OperationFailed, why)
        .caused_by(error)
        .hint("ask whoever keeps the catalog; catalog.source says where it is")
}

fn failed(error: &banger_registry::Error) -> ApiError {
    let told = ApiError::of(Code::OperationFailed, error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// An operation as a download reports to it.
struct Heard<'a>(&'a Operation, Option<u64>);

impl Watch for Heard<'_> {
    fn moved(&self, bytes: &[u64]) {
        self.0.moved(bytes.iter().sum(), self.1);
    }
    fn arrived(&self, _: &Blob, _: usize) {}
    fn cancelled(&self) -> bool {
        self.0.cancel.why().is_some()
    }
}
