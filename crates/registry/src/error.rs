//! What can go wrong with a registry, each with the way out.

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
    /// It gives no more for now.
    #[error("the registry {registry} does not give {what} for now")]
    Limited {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// Whether it was asked by nobody that it knows.
        anybody: bool,
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
            Error::Limited {
                registry, anybody, ..
            } => Some(match anybody {
                true => format!(
                    "{registry} limits how much who does not log in may fetch: docker login {registry}, or wait; what has come is kept"
                ),
                false => {
                    format!("{registry} limits how much is fetched: wait; what has come is kept")
                }
            }),
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
