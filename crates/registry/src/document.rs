//! Manifests and indices. Not by the library, which reads all that a registry sends before anything can be said of it.

use crate::route::Route;
use oci_client::Reference;
use oci_client::errors::OciDistributionError as Oci;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use sha2::{Digest, Sha256};

/// The documents we can read.
const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];

/// Asks a registry for documents, as OCI Distribution has it ("Pulling manifests").
pub(crate) struct Documents {
    http: reqwest::Client,
    tls: bool,
    login: Login,
}

/// As whom.
enum Login {
    Nobody,
    Basic(String, String),
    Bearer(String),
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

impl Documents {
    /// Longest document, in bytes: the specification wants registries to take 4 MiB at least, and none takes more.
    const LONGEST: u64 = 4 << 20;

    /// By this route, as nobody.
    ///
    /// # Errors
    /// A proxy's address is none, or TLS has no roots.
    pub(crate) fn new(route: &Route) -> Result<Self, Oci> {
        Ok(Documents {
            http: route.http()?,
            tls: route.tls,
            login: Login::Nobody,
        })
    }

    /// From now on as whom the library is let in: with the token it was given, else as the user says.
    pub(crate) fn login(&mut self, token: Option<String>, auth: &RegistryAuth) {
        self.login = match (token, auth) {
            (Some(token), _) => Login::Bearer(token),
            (None, RegistryAuth::Basic(user, password)) => {
                Login::Basic(user.clone(), password.clone())
            }
            (None, RegistryAuth::Bearer(token)) => Login::Bearer(token.clone()),
            (None, RegistryAuth::Anonymous) => Login::Nobody,
        };
    }

    /// The digest of what a tag means now ([`Document::Other`]): as the registry says in a word, else that of what it sends.
    ///
    /// # Errors
    /// As the library's, so that both are told apart by one function.
    pub(crate) async fn digest(&self, image: &Reference, tag: &str) -> Result<Document, Oci> {
        let answer = self.ask(Method::HEAD, image, tag).await?;
        let told = answer.headers().get("docker-content-digest");
        let told = told.and_then(|value| value.to_str().ok());
        match told.filter(|digest| is_digest(digest)) {
            Some(digest) => Ok(Document::Other(digest.to_owned())),
            None => self.get(image, tag).await,
        }
    }

    /// The document of a digest, or of a tag.
    ///
    /// # Errors
    /// As the library's, so that both are told apart by one function.
    pub(crate) async fn get(&self, image: &Reference, digest: &str) -> Result<Document, Oci> {
        let mut answer = self.ask(Method::GET, image, digest).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            if (bytes.len() + piece.len()) as u64 > Self::LONGEST {
                return Ok(Document::TooLong);
            }
            bytes.extend_from_slice(&piece);
        }
        let found = Sha256::digest(&bytes);
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        let found = format!("sha256:{found}");
        Ok(match found == digest {
            true => Document::Proven(bytes),
            false => Document::Other(found),
        })
    }

    /// An answer that is none of failure, before its body.
    async fn ask(
        &self,
        method: Method,
        image: &Reference,
        what: &str,
    ) -> Result<reqwest::Response, Oci> {
        let scheme = if self.tls { "https" } else { "http" };
        let (registry, repository) = (image.resolve_registry(), image.repository());
        let url = format!("{scheme}://{registry}/v2/{repository}/manifests/{what}");
        let accepted = HeaderValue::from_str(&ACCEPTED.join(", "));
        let mut request = self.http.request(method, &url);
        if let Ok(accepted) = accepted {
            request = request.header(ACCEPT, accepted);
        }
        request = match &self.login {
            Login::Nobody => request,
            Login::Basic(user, password) => request.basic_auth(user, Some(password)),
            Login::Bearer(token) => request.bearer_auth(token),
        };
        let answer = request.send().await?;
        if !answer.status().is_success() {
            let (code, message) = (answer.status().as_u16(), String::new());
            return Err(Oci::ServerError { code, url, message });
        }
        Ok(answer)
    }
}

/// Whether a text is a digest as we prove them.
fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
