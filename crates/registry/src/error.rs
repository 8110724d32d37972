//! What can go wrong with a registry, each with the way out.

use oci_client::errors::{OciDistributionError as Oci, OciErrorCode};
use std::{io, path::PathBuf};

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request to a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It wants to know who asks, or does not let that one in.
    #[error("the registry {registry} does not let {who} have {what}")]
    Denied {
        /// The registry.
        registry: String,
        /// `the user 'x'`, `anybody`.
        who: String,
        /// What was asked for.
        what: String,
    },
    /// It has no such image.
    #[error("the registry {registry} has no image {what}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Nobody answers there.
    #[error("the registry {registry} cannot be reached")]
    Unreachable {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers, but fails again and again.
    #[error("the registry {registry} does not give {what}")]
    Failed {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It gave other bytes than were asked for.
    #[error("the registry {registry} gives other bytes than {what} has: {found}")]
    Tampered {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What came.
        found: String,
    },
    /// It gave more than any document has.
    #[error(
        "what the registry {registry} has as {what} is longer than 4 MiB: no image's document is"
    )]
    LongDocument {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Nobody answers at a URL, or not to the end.
    #[error("{url} cannot be fetched")]
    Offline {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is at a URL is not given.
    #[error("{url} answers {code}")]
    Answer {
        /// The URL.
        url: String,
        /// HTTP's status.
        code: u16,
    },
    /// A document is longer than it may be.
    #[error("{url} is longer than {most} bytes")]
    TooLong {
        /// The URL.
        url: String,
        /// The most.
        most: u64,
    },
    /// At a URL are other bytes than a catalog says.
    #[error("{url} has {found}, and its catalog says {wanted}")]
    Lying {
        /// The URL.
        url: String,
        /// What came.
        found: String,
        /// What should have.
        wanted: String,
    },
    /// The cache of blobs cannot be used.
    #[error("the blob cache at {} cannot be used", .path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine has no threads or no TLS for it.
    #[error("no connection to a registry can be made")]
    Machine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// The way out, where the message itself does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Denied { registry, .. } => Some(format!(
                "docker login {registry} (or podman login --authfile ~/.docker/config.json {registry}), then again; it says the same of images that are not there"
            )),
            Error::NotFound { .. } => Some(String::from(
                "look for a slip in its name or tag; docker.io is meant where no registry is named",
            )),
            Error::Unreachable { .. } => Some(String::from(
                "is there a network, or a proxy (https_proxy, of the shell that started the daemon: banger daemon stop)? A registry without TLS, or with a certificate that nobody here vouches for, takes --insecure",
            )),
            Error::Failed { .. } => Some(String::from(
                "try again: what has come is kept, and the rest is fetched",
            )),
            Error::LongDocument { .. } => Some(String::from(
                "is this an image? Whoever runs the registry knows what it is",
            )),
            Error::Tampered { .. } => Some(String::from(
                "nothing of it is kept; try again, and if it stays so ask whoever runs the registry",
            )),
            Error::Offline { .. } | Error::Answer { .. } | Error::TooLong { .. } => Some(
                String::from("catalog.source says where the catalog is: banger config show"),
            ),
            Error::Lying { .. } => Some(String::from(
                "nothing of it is kept; ask whoever keeps the catalog",
            )),
            Error::Cache { source, .. } if full(source) => Some(String::from(
                "free space there, or delete images or VMs: banger image list, banger vm list",
            )),
            Error::Cache { .. } | Error::Machine(_) | Error::Cancelled => None,
        }
    }
}

fn full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What a library's error means for who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who asks must be somebody else.
    Denied,
    /// It is not there.
    Missing,
    /// No connection came about.
    Unreachable,
    /// It may be better the next time.
    Passing,
    /// The digest is wrong.
    Tampered,
    /// It will not be better.
    Lasting,
}

/// Tells errors of the library apart.
pub(crate) fn kind(error: &Oci) -> Kind {
    match error {
        Oci::UnauthorizedError { .. } | Oci::AuthenticationFailure(_) => Kind::Denied,
        Oci::ImageManifestNotFoundError(_) => Kind::Missing,
        Oci::DigestError(_) => Kind::Tampered,
        Oci::RegistryError { envelope, .. } => {
            let codes = envelope.errors.iter().map(|error| &error.code);
            codes.map(kind_of_code).next().unwrap_or(Kind::Lasting)
        }
        Oci::ServerError { code, .. } => kind_of_status(*code),
        Oci::RequestError(error) if error.is_connect() => Kind::Unreachable,
        Oci::RequestError(error) => match error.status() {
            Some(status) => kind_of_status(status.as_u16()),
            None if error.is_builder() || error.is_redirect() => Kind::Lasting,
            None => Kind::Passing,
        },
        Oci::IoError(_) => Kind::Passing,
        _ => Kind::Lasting,
    }
}

fn kind_of_code(code: &OciErrorCode) -> Kind {
    use OciErrorCode as C;
    match code {
        C::Unauthorized | C::Denied => Kind::Denied,
        C::ManifestUnknown | C::NameUnknown | C::NotFound | C::BlobUnknown => Kind::Missing,
        C::NameInvalid | C::TagInvalid => Kind::Missing,
        C::Toomanyrequests => Kind::Passing,
        _ => Kind::Lasting,
    }
}

const fn kind_of_status(status: u16) -> Kind {
    match status {
        401 | 403 => Kind::Denied,
        404 => Kind::Missing,
        408 | 429 | 500..=599 => Kind::Passing,
        _ => Kind::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let server = |code| Oci::ServerError {
            code,
            url: String::new(),
            message: String::new(),
        };
        for (code, means) in [
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::Missing),
            (429, Kind::Passing),
            (500, Kind::Passing),
            (503, Kind::Passing),
            (400, Kind::Lasting),
        ] {
            assert_eq!(kind(&server(code)), means, "{code}");
        }
        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(kind(&Oci::IoError(cut)), Kind::Passing);
    }
}
