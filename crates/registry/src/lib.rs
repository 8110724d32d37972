//! Images from an OCI registry ([docs/design/registry.md](../../../docs/design/registry.md)): what a registry says of an
//! image, and its blobs, which are kept in a cache that has none but whole ones.
//!
//! What the documents mean is not known here; the bytes are proven by their digests, and that is all.

mod answer;
mod cache;
mod client;
mod coming;
mod error;
mod fault;
mod login;
mod prune;
mod repository;
mod retry;
mod route;
mod runtime;
mod session;
mod turns;
mod web;

pub use cache::{BLOBS_DIR, BlobCache};
pub use error::{Error, Result};
pub use prune::{Cached, Held, Prune};
pub use session::{Nobody, Session, Watch};
pub use turns::{Turn, Turns};
pub use web::Web;

use std::fmt;

/// A blob, by what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// sha256 in hex.
    pub sha256: String,
    /// Number of bytes.
    pub size: u64,
}

impl Blob {
    /// `sha256:` and the hex digits.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    /// Enough of it for a person.
    pub fn short(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

/// Who asks a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Anybody.
    #[default]
    Anonymous,
    /// A user with a password.
    Basic(String, String),
    /// Whoever has this token.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Anonymous => "Anonymous",
            Auth::Basic(..) => "Basic(…)",
            Auth::Bearer(_) => "Bearer(…)",
        })
    }
}

/// How a registry is reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who asks.
    pub auth: Auth,
    /// Plain HTTP and certificates that nobody vouches for will do, as they do on this machine.
    pub insecure: bool,
}
