//! `image.pull`: what a registry has becomes an image, by the way that an archive of the same layers takes.

use crate::catalogue::{Catalogue, Told, told};
use crate::ops::{Operation, Why};
use banger_image::{
    Fetched, Import, Moves, RemoteBlob, RemoteDocument, check_name, layers_of, read_remote,
};
use banger_model::ImageReference;
use banger_registry::{Access, Auth, Blob, Error, Session, Watch};
use banger_wire::api::{self, ApiError, Code, Credentials, ImageView, Part};
use std::cell::RefCell;

type Result<T> = std::result::Result<T, ApiError>;

/// How deep indices may refer to indices.
const DEPTH: usize = 4;
/// Stage of the operation.
const STAGE: &str = "image";

/// A pull under way.
struct Pull<'a> {
    images: &'a Catalogue,
    op: &'a Operation,
    reference: ImageReference,
    names: Vec<String>,
}

impl Catalogue {
    /// `image.pull`: fetches an image unless it is here.
    ///
    /// # Errors
    /// The reference is none, a name is taken, the registry refuses or fails, what it has is no image for this machine.
    pub fn pull(&self, request: &api::ImagePull, op: &Operation) -> Result<ImageView> {
        if let Some(image) = self.pull_offered(request, op)? {
            return Ok(image);
        }
        let reference: ImageReference = request.reference.parse().map_err(|error| {
            ApiError::of(Code::BadRequest, &error)
                .hint("NAME[:TAG] or REGISTRY/PATH[:TAG|@sha256:DIGEST], as for docker pull")
        })?;
        let pull = Pull {
            images: self,
            op,
            names: self.names_of(reference.familiar(), request.name.as_deref())?,
            reference,
        };
        let access = access(request);
        let pulled = pull.run(&access);
        // What breaks because it was cancelled says nothing of the registry.
        pulled.map_err(|error| op.cancel.why().map_or(error, Why::error))
    }

    /// The names it will have. The second is free, or moves along with the first.
    pub(crate) fn names_of(&self, first: String, other: Option<&str>) -> Result<Vec<String>> {
        let mut names = vec![first];
        let Some(other) = other.filter(|other| *other != names[0]) else {
            return Ok(names);
        };
        check_name(other).map_err(|error| told(&error))?;
        names.push(other.to_owned());
        let free = self.store().check_names(&names, Moves::First, None);
        free.map_err(|error| unmade(&error))?;
        Ok(names)
    }
}

/// Why what was pulled is no image, or has not its names.
pub(crate) fn unmade(error: &banger_image::Error) -> ApiError {
    match error {
        banger_image::Error::Exists { name, .. } => told(error).hint(format!(
            "choose another --name, or: banger image delete {name}"
        )),
        _ => told(error),
    }
}

impl Pull<'_> {
    fn run(&self, access: &Access) -> Result<ImageView> {
        let watch = Heard {
            op: self.op,
            layers: RefCell::default(),
        };
        let name = self.reference.familiar();
        self.say(format!("asking {} for {name}", self.reference.registry()));
        let session = Session::open(&self.reference, access, &watch).map_err(failed)?;
        let digest = session.digest().map_err(failed)?;
        // Of several that pull one thing the first does it, and the others find it done.
        self.say(format!("{name} is {digest}"));
        let (_, turns) = self.images.registry();
        let _turn = session.turn(turns, &digest).map_err(failed)?;
        let repo_digest = self.reference.at(&digest);
        if let Some(there) = self.images.store().pulled(&digest).map_err(|e| told(&e))? {
            return self.is_here(&there, &repo_digest);
        }
        let (config, layers) = self.documents(&session, digest)?;
        let (cache, _) = self.images.registry();
        let _held = cache.hold(layers.iter().chain([&config]));
        let (config, layers) = self.fetch(&session, &watch, &config, &layers)?;
        let import = Import {
            names: self.names.clone(),
            moves: Moves::First,
            source: Some(self.reference.to_string()),
            repo_digest: Some(repo_digest),
            ..Import::default()
        };
        let progress = Told {
            op: self.op,
            stage: STAGE,
            total: None,
        };
        let made = self
            .images
            .store()
            .import_layers(&config, &layers, &import, &progress);
        self.made(&made.map_err(|error| unmade(&error))?.id)
    }

    /// What was pulled before and is still there.
    fn is_here(&self, there: &banger_image::Named, repo_digest: &str) -> Result<ImageView> {
        let name = self.reference.familiar();
        let has = |name: &String| there.names.contains(name);
        let known = there.manifest.repo_digests.contains(repo_digest);
        if known && self.names.iter().all(has) {
            self.say(format!("{name} is up to date"));
            return self.images.show(&there.manifest.id);
        }
        self.say(format!("{name} is here already, as {}", there.title()));
        let id = &there.manifest.id;
        let named = self.images.store().name(id, &self.names, repo_digest);
        named.map_err(|error| unmade(&error))?;
        self.made(id)
    }

    fn made(&self, id: &str) -> Result<ImageView> {
        let image = self.images.show(id)?;
        self.images.tell_made(&image.id, &image.names);
        Ok(image)
    }

    /// From a digest to the configuration and the layers for this machine.
    fn documents(&self, session: &Session<'_>, mut digest: String) -> Result<(Blob, Vec<Blob>)> {
        for _ in 0..DEPTH {
            let bytes = session.document(&digest).map_err(failed)?;
            match read_remote(&bytes).map_err(|error| told(&error))? {
                RemoteDocument::Index(chosen) => digest = blob(&chosen).digest(),
                RemoteDocument::Image { config, layers } => {
                    return Ok((blob(&config), layers.iter().map(blob).collect()));
                }
            }
        }
        let why = "its indices refer to each other too deep".to_owned();
        Err(told(&banger_image::Error::BadRemote(why)))
    }

    /// The configuration's bytes, and the layers' files.
    fn fetch(
        &self,
        session: &Session<'_>,
        watch: &Heard<'_>,
        config: &Blob,
        layers: &[Blob],
    ) -> Result<(Vec<u8>, Vec<Fetched>)> {
        let (cache, _) = self.images.registry();
        let file = session
            .blobs(cache, std::slice::from_ref(config))
            .map_err(failed)?;
        let read = file
            .first()
            .map(std::fs::read)
            .unwrap_or_else(|| Ok(Vec::new()));
        let config = read.map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
        layers_of(&config, layers.len()).map_err(|error| told(&error))?;
        // What a manifest says of sizes may be anything.
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        let bytes = sum(&mut layers.iter().map(|layer| layer.size));
        let here = sum(&mut layers.iter().map(|layer| cache.here(layer)));
        let needed = bytes.saturating_sub(here);
        self.images
            .store()
            .check_layers(needed)
            .map_err(|error| told(&error))?;
        let mib = needed.div_ceil(1 << 20);
        let count = layers.len();
        self.say(format!("fetching {mib} MiB of {count} layers"));
        watch.layers.replace(layers.to_vec());
        let files = session.blobs(cache, layers).map_err(failed)?;
        let fetched = layers.iter().zip(files).map(|(layer, path)| Fetched {
            sha256: layer.sha256.clone(),
            path,
        });
        Ok((config, fetched.collect()))
    }

    fn say(&self, text: String) {
        self.op.stage(STAGE, text);
    }
}

/// An operation as a session reports to it.
struct Heard<'a> {
    op: &'a Operation,
    /// Layers that are wanted.
    layers: RefCell<Vec<Blob>>,
}

impl Watch for Heard<'_> {
    fn moved(&self, bytes: &[u64]) {
        let layers = self.layers.borrow();
        if layers.is_empty() {
            return;
        }
        let total: u64 = layers.iter().map(|layer| layer.size).sum();
        let parts = layers.iter().zip(bytes).map(|(layer, done)| Part {
            name: format!("layer {}", layer.short()),
            done: *done,
            total: layer.size,
        });
        let under_way = |part: &Part| (1..part.total).contains(&part.done);
        let parts = parts.filter(under_way).collect();
        self.op.moved_parts(bytes.iter().sum(), Some(total), parts);
    }
    fn arrived(&self, blob: &Blob, n: usize) {
        let all = self.layers.borrow().len();
        if all > 0 {
            let text = format!("layer {} is here, {n} of {all}", blob.short());
            self.op.stage(STAGE, text);
        }
    }
    fn cancelled(&self) -> bool {
        self.op.cancel.why().is_some()
    }
}

fn access(request: &api::ImagePull) -> Access {
    let auth = match &request.credentials {
        None => Auth::Anonymous,
        Some(Credentials::Password { username, password }) => {
            Auth::Basic(username.clone(), password.clone())
        }
        Some(Credentials::Token(token)) => Auth::Bearer(token.clone()),
    };
    Access {
        auth,
        insecure: request.insecure,
    }
}

fn blob(told: &RemoteBlob) -> Blob {
    Blob {
        sha256: told.sha256.clone(),
        size: told.size,
    }
}

/// An error of a registry, with its way out.
fn failed(error: Error) -> ApiError {
    let code = match &error {
        Error::NotFound { .. } => Code::NotFound,
        Error::Denied { .. } => Code::Precondition,
        Error::Cancelled => Code::Conflict,
        _ => Code::OperationFailed,
    };
    let told = ApiError::of(code, &error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}
