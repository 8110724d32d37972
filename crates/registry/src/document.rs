//! Manifests and indices. Not by the library, which reads all that a registry sends before anything can be said of it.

use crate::route::Route;
use oci_client::Reference;
use oci_client::errors::OciDistributionError as Oci;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
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

    /// The document of a digest.
    ///
    /// # Errors
    /// As the library's, so that both are told apart by one function.
    pub(crate) async fn get(&self, image: &Reference, digest: &str) -> Result<Document, Oci> {
        let scheme = if self.tls { "https" } else { "http" };
        let (registry, repository) = (image.resolve_registry(), image.repository());
        let url = format!("{scheme}://{registry}/v2/{repository}/manifests/{digest}");
        let accepted = HeaderValue::from_str(&ACCEPTED.join(", "));
        let mut request = self.http.get(&url);
        if let Ok(accepted) = accepted {
            request = request.header(ACCEPT, accepted);
        }
        request = match &self.login {
            Login::Nobody => request,
            Login::Basic(user, password) => request.basic_auth(user, Some(password)),
            Login::Bearer(token) => request.bearer_auth(token),
        };
        let mut answer = request.send().await?;
        if !answer.status().is_success() {
            let (code, message) = (answer.status().as_u16(), String::new());
            return Err(Oci::ServerError { code, url, message });
        }
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
}
