//! The wire: oci-client, with what a registry on this machine needs and with our errors.

use crate::document::{Document, Documents};
use crate::error::{Kind, kind};
use crate::retry::Retry;
use crate::route::Route;
use crate::{Access, Auth, Blob, Error, Result};
use banger_model::ImageReference;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError as Oci;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client as Wire, Reference, RegistryOperation};
use std::future::Future;

/// A registry that has answered, and the repository of one image there.
pub(crate) struct Client {
    wire: Wire,
    documents: Documents,
    image: Reference,
    auth: RegistryAuth,
    reference: ImageReference,
    who: String,
}

/// The rest of a blob.
pub(crate) enum Rest {
    /// From where it was asked for.
    Continued(oci_client::client::SizedStream),
    /// From its beginning: the registry knows no ranges.
    Anew(oci_client::client::SizedStream),
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
        let auth = match &access.auth {
            Auth::Anonymous => RegistryAuth::Anonymous,
            Auth::Basic(user, password) => RegistryAuth::Basic(user.clone(), password.clone()),
            Auth::Bearer(token) => RegistryAuth::Bearer(token.clone()),
        };
        let who = match &access.auth {
            Auth::Anonymous => "anybody".to_owned(),
            Auth::Basic(user, _) => format!("the user '{user}'"),
            Auth::Bearer(_) => "who has this token".to_owned(),
        };
        let image = wire_reference(reference);
        let mut failure = None;
        for tls in schemes {
            let route = Route::of_environment(*tls, insecure);
            let machine = |error| Error::Machine(Box::new(Said(told(&error))));
            let mut client = Client {
                wire: route.wire().map_err(machine)?,
                documents: Documents::new(&route).map_err(machine)?,
                image: image.clone(),
                auth: auth.clone(),
                reference: reference.clone(),
                who: who.clone(),
            };
            match client.greet().await {
                Err(error @ Error::Unreachable { .. }) => failure = Some(error),
                done => return done.map(|()| client),
            }
        }
        Err(failure.unwrap_or(Error::Cancelled))
    }

    async fn greet(&mut self) -> Result<()> {
        let ask = || {
            self.wire
                .auth(&self.image, &self.auth, RegistryOperation::Pull)
        };
        let token = self.asked(ask).await?;
        self.documents.login(token, &self.auth);
        Ok(())
    }

    /// The digest of what the reference means now.
    pub(crate) async fn digest(&self) -> Result<String> {
        if let Some(digest) = self.reference.digest() {
            return Ok(digest.to_owned());
        }
        let tag = self.reference.tag().unwrap_or("latest");
        match self
            .asked(|| self.documents.digest(&self.image, tag))
            .await?
        {
            Document::Other(digest) => Ok(digest),
            Document::TooLong => Err(self.too_long(tag)),
            Document::Proven(_) => Err(self.tampered(tag, "bytes without a digest".to_owned())),
        }
    }

    /// The document of a digest, proven.
    pub(crate) async fn document(&self, digest: &str) -> Result<Vec<u8>> {
        let ask = || self.documents.get(&self.image, digest);
        let found = match self.asked(ask).await? {
            Document::Proven(bytes) => return Ok(bytes),
            Document::TooLong => return Err(self.too_long(digest)),
            Document::Other(digest) => digest,
        };
        Err(self.tampered(digest, found))
    }

    /// A blob's bytes from this offset on. Fails as the library does: who asks tries again.
    pub(crate) async fn blob(&self, blob: &Blob, offset: u64) -> Result<Rest, Oci> {
        let digest = blob.digest();
        if offset == 0 {
            let stream = self
                .wire
                .pull_blob_stream(&self.image, digest.as_str())
                .await;
            return stream.map(Rest::Anew);
        }
        let rest = self
            .wire
            .pull_blob_stream_partial(&self.image, digest.as_str(), offset, None);
        Ok(match rest.await? {
            BlobResponse::Partial(stream) => Rest::Continued(stream),
            BlobResponse::Full(stream) => Rest::Anew(stream),
        })
    }

    /// Asks until there is an answer, or a failure that does not pass.
    async fn asked<T, F>(&self, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Oci>>,
    {
        let mut retry = Retry::default();
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match retry.failed().filter(|_| kind(&error) == Kind::Passing) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(self.failed(error, &self.reference.to_string())),
            }
        }
    }

    /// Our error for what the library says of something.
    pub(crate) fn failed(&self, error: Oci, what: &str) -> Error {
        let (registry, what) = (self.reference.registry().to_owned(), what.to_owned());
        let source = Box::new(Said(told(&error)));
        match kind(&error) {
            Kind::Denied => Error::Denied {
                registry,
                who: self.who.clone(),
                what,
            },
            Kind::Missing => Error::NotFound { registry, what },
            Kind::Unreachable => Error::Unreachable { registry, source },
            Kind::Tampered => self.tampered(&what, source.0),
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
    pub(crate) fn tampered(&self, what: &str, found: String) -> Error {
        Error::Tampered {
            registry: self.reference.registry().to_owned(),
            what: what.to_owned(),
            found,
        }
    }
}

/// What an error of the library says, on one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// An error and what is behind it; of a registry's answer what its words are, and not its page.
fn told(error: &Oci) -> String {
    let text = match error {
        Oci::ServerError { code, .. } => format!("it answers {code}"),
        Oci::RequestError(error) if error.is_timeout() => {
            format!("no answer for {} s", Route::SILENCE.as_secs())
        }
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

fn wire_reference(reference: &ImageReference) -> Reference {
    let (registry, repository) = (reference.registry(), reference.repository());
    let (registry, repository) = (registry.to_owned(), repository.to_owned());
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Reference::with_digest(registry, repository, digest.to_owned()),
        (None, tag) => {
            Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
        }
    }
}
