//! One image of a registry: asked until there is an answer, with our errors.

use crate::answer::Rest;
use crate::cache::Source;
use crate::fault::{Fault, Kind, Said};
use crate::repository::{Document, Repository};
use crate::retry::until_answered;
use crate::route::Route;
use crate::{Access, Auth, Blob, Error, Result};
use banger_model::ImageReference;
use std::future::Future;

/// A registry that has answered, and the repository of one image there.
pub(crate) struct Client {
    repository: Repository,
    reference: ImageReference,
    who: String,
    anybody: bool,
}

impl Client {
    /// Finds out how the registry is spoken to, and whether it knows who asks.
    ///
    /// # Errors
    /// Nobody answers, or it wants another user.
    pub(crate) async fn open(reference: &ImageReference, access: &Access) -> Result<Self> {
        let insecure = access.insecure || reference.is_loopback();
        // As Docker does it: TLS where there is any.
        let schemes: &[bool] = if insecure { &[true, false] } else { &[true] };
        let who = match &access.auth {
            Auth::Anonymous => "anybody".to_owned(),
            Auth::Basic(user, _) => format!("the user '{user}'"),
            Auth::Bearer(_) => "who has this token".to_owned(),
        };
        let mut failure = None;
        for tls in schemes {
            let route = Route::of_environment(*tls, insecure);
            let repository = Repository::new(&route, reference, &access.auth);
            let client = Client {
                repository: repository.map_err(|error| Error::Machine(Box::new(error)))?,
                reference: reference.clone(),
                who: who.clone(),
                anybody: access.auth == Auth::Anonymous,
            };
            match client.asked(|| client.repository.greet()).await {
                Err(error @ Error::Unreachable { .. }) => failure = Some(error),
                done => return done.map(|()| client),
            }
        }
        Err(failure.unwrap_or(Error::Cancelled))
    }

    /// The digest of what the reference means now.
    pub(crate) async fn digest(&self) -> Result<String> {
        if let Some(digest) = self.reference.digest() {
            return Ok(digest.to_owned());
        }
        let tag = self.reference.tag().unwrap_or("latest");
        match self.asked(|| self.repository.digest(tag)).await? {
            Document::Other(digest) => Ok(digest),
            Document::TooLong => Err(self.too_long(tag)),
            Document::Proven(_) => Err(self.tampered(tag, "bytes without a digest".to_owned())),
        }
    }

    /// The document of a digest, proven.
    pub(crate) async fn document(&self, digest: &str) -> Result<Vec<u8>> {
        let ask = || self.repository.document(digest);
        let found = match self.asked(ask).await? {
            Document::Proven(bytes) => return Ok(bytes),
            Document::TooLong => return Err(self.too_long(digest)),
            Document::Other(digest) => digest,
        };
        Err(self.tampered(digest, found))
    }

    /// Asks until there is an answer, or a failure that does not pass.
    async fn asked<T, F>(&self, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let answer = until_answered(ask).await;
        answer.map_err(|fault| self.told(&fault, &self.reference.to_string()))
    }

    /// Our error for what became of a request for something.
    fn told(&self, fault: &Fault, what: &str) -> Error {
        let (registry, what) = (self.reference.registry().to_owned(), what.to_owned());
        let source = Box::new(Said(fault.told()));
        if fault.is_limit() {
            return Error::Limited {
                registry,
                what,
                anybody: self.anybody,
                source,
            };
        }
        match fault.kind() {
            Kind::Denied => Error::Denied {
                registry,
                who: self.who.clone(),
                what,
            },
            Kind::Missing => Error::NotFound { registry, what },
            Kind::Unreachable => Error::Unreachable { registry, source },
            Kind::Passing | Kind::Lasting => Error::Failed {
                registry,
                what,
                source,
            },
        }
    }

    fn too_long(&self, what: &str) -> Error {
        Error::LongDocument {
            registry: self.reference.registry().to_owned(),
            what: what.to_owned(),
        }
    }

    /// Bytes that are not what was asked for.
    fn tampered(&self, what: &str, found: String) -> Error {
        Error::Tampered {
            registry: self.reference.registry().to_owned(),
            what: what.to_owned(),
            found,
        }
    }
}

impl Source for Client {
    async fn rest(&self, blob: &Blob, offset: u64) -> Result<Rest, Fault> {
        self.repository.blob(blob, offset).await
    }

    fn failed(&self, fault: &Fault, blob: &Blob) -> Error {
        self.told(fault, &blob.digest())
    }

    fn wrong(&self, found: String, blob: &Blob) -> Error {
        self.tampered(&blob.digest(), found)
    }
}
