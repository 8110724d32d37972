//! One repository of a registry, as OCI Distribution has it: requests for its documents and blobs, signed as it wants.

use crate::answer::{Rest, good, ranged, whole};
use crate::fault::Fault;
use crate::login::{Login, Proof};
use crate::route::Route;
use crate::{Auth, Blob};
use banger_model::{ImageReference, hex};
use reqwest::header::ACCEPT;
use reqwest::{Client, Method, RequestBuilder, Response};
use sha2::{Digest, Sha256};

/// The documents we can read ("Image Media Types" of the image specification, and Docker's schema 2).
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// Longest document, in bytes: the specification wants registries to take 4 MiB at least, and none takes more.
const LONGEST: u64 = 4 << 20;
/// Who answers for Docker Hub.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// A repository, and who asks for what is in it.
pub(crate) struct Repository {
    http: Client,
    /// `https://registry/v2/`.
    base: String,
    name: String,
    login: Login,
}

/// What an answer is.
pub(crate) enum Document {
    /// Bytes of the digest that was asked for.
    Proven(Vec<u8>),
    /// More bytes than any document has.
    TooLong,
    /// Bytes of this digest.
    Other(String),
}

impl Repository {
    /// By this route, for who asks.
    ///
    /// # Errors
    /// A proxy's address is none, or TLS has no roots.
    pub(crate) fn new(
        route: &Route,
        reference: &ImageReference,
        auth: &Auth,
    ) -> reqwest::Result<Self> {
        let host = match reference.registry() {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        let scheme = if route.tls { "https" } else { "http" };
        let name = reference.repository().to_owned();
        Ok(Repository {
            http: route.http()?,
            base: format!("{scheme}://{host}/v2/"),
            login: Login::new(auth, format!("repository:{name}:pull"), route.tls),
            name,
        })
    }

    /// Finds out what the registry wants to know of who asks ("Determining Support").
    ///
    /// # Errors
    /// Nobody answers, or there is no token.
    pub(crate) async fn greet(&self) -> Result<(), Fault> {
        let answer = self.http.get(&self.base).send().await?;
        let shown = &Proof::Nothing;
        self.login.answer(&self.http, &answer, shown).await?;
        match answer.status().as_u16() {
            408 | 429 | 500..=599 => Err(Fault::of(&answer)),
            _ => Ok(()),
        }
    }

    /// The digest of what a tag means now ([`Document::Other`]): as the registry says in a word, else that of what it sends.
    ///
    /// # Errors
    /// There is no good answer.
    pub(crate) async fn digest(&self, tag: &str) -> Result<Document, Fault> {
        let answer = self.manifest(Method::HEAD, tag).await?;
        let told = answer.headers().get("docker-content-digest");
        let told = told.and_then(|value| value.to_str().ok());
        match told.filter(|digest| is_digest(digest)) {
            Some(digest) => Ok(Document::Other(digest.to_owned())),
            None => self.document(tag).await,
        }
    }

    /// The document of a digest, or of a tag.
    ///
    /// # Errors
    /// There is no good answer.
    pub(crate) async fn document(&self, digest: &str) -> Result<Document, Fault> {
        let answer = self.manifest(Method::GET, digest).await?;
        let Some(bytes) = whole(answer, LONGEST).await? else {
            return Ok(Document::TooLong);
        };
        let found = format!("sha256:{}", hex::encode(&Sha256::digest(&bytes)));
        Ok(match found == digest {
            true => Document::Proven(bytes),
            false => Document::Other(found),
        })
    }

    /// A blob's bytes from this offset on.
    ///
    /// # Errors
    /// There is no good answer.
    pub(crate) async fn blob(&self, blob: &Blob, offset: u64) -> Result<Rest, Fault> {
        let url = self.url(&format!("blobs/{}", blob.digest()));
        let answer = self.ask(|| ranged(self.http.get(&url), offset)).await?;
        Ok(Rest::of(answer, offset))
    }

    async fn manifest(&self, method: Method, what: &str) -> Result<Response, Fault> {
        let url = self.url(&format!("manifests/{what}"));
        let request = || self.http.request(method.clone(), &url);
        self.ask(|| request().header(ACCEPT, ACCEPTED)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{}/{path}", self.base, self.name)
    }

    /// An answer that is none of failure, before its body. Where what shows who asks has run out, it is asked once more.
    async fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, Fault> {
        let (signed, shown) = self.login.sign(request());
        let mut answer = signed.send().await?;
        if self.login.answer(&self.http, &answer, &shown).await? {
            answer = self.login.sign(request()).0.send().await?;
        }
        good(answer)
    }
}

/// Whether a text is a digest as we prove them.
fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
