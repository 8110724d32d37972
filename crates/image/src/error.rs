//! What can go wrong with images, each with the way out.

use std::path::PathBuf;

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed image request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing matches a reference.
    #[error("no image is called '{0}'; `banger image list` shows what there is")]
    NotFound(String),
    /// A prefix matches several images.
    #[error("'{reference}' is the beginning of several image ids: {}; write more digits", .ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// The ids it could mean.
        ids: Vec<String>,
    },
    /// VMs pin the image.
    #[error("image {id} is used by {}; delete these VMs first", .users.join(", "))]
    InUse {
        /// The image.
        id: String,
        /// Names of the VMs.
        users: Vec<String>,
    },
    /// The name of an image is not usable.
    #[error(
        "'{0}' cannot name an image: use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, and not 12 hex digits"
    )]
    BadName(String),
    /// The Debian importer needs root.
    #[error("building the Debian image needs root (dpkg sets owners and runs in a chroot)")]
    NeedsRoot,
    /// A program is missing.
    #[error("'{program}' is not installed")]
    ToolMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{doing} failed")]
    Tool {
        /// What it was run for.
        doing: &'static str,
        /// The end of its stderr is in here.
        #[source]
        source: banger_host::Error,
    },
    /// The file system is too full to begin.
    #[error("{} has {free_mib} MiB free and building an image needs {needed_mib} MiB", .path.display())]
    NoSpace {
        /// A directory on the file system.
        path: PathBuf,
        /// Free now, in MiB.
        free_mib: u64,
        /// Needed, in MiB.
        needed_mib: u64,
    },
    /// Another process holds the lock for too long.
    #[error("another process has been working on images for {seconds} s (it holds {}); wait for it, or end it", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A size no file system can have.
    #[error("a disk of {0} bytes cannot hold a file system; use whole MiB, at least 16")]
    BadSize(u64),
    /// A manifest that cannot be read.
    #[error("the manifest {} is damaged; remove the image with `banger image delete`", .path.display())]
    BadManifest {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Reading failed.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An effect on the machine failed.
    #[error("{doing}")]
    Host {
        /// What it was for.
        doing: &'static str,
        /// Which effect, and why.
        #[source]
        source: banger_host::Error,
    },
    /// The work failed, and clearing up after it failed too.
    #[error("the work failed ({original}), and its staging directory {} could not be removed; the next build removes it", .staging.display())]
    NotCleared {
        /// What went wrong first.
        original: Box<Error>,
        /// What is left.
        staging: PathBuf,
        /// Why it is left.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// The way out, where the message itself does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NeedsRoot => Some(String::from(
                "run banger as root, or copy a built image into the images directory",
            )),
            Error::ToolMissing { package, .. } => Some(format!("apt install {package}")),
            Error::NoSpace {
                path, needed_mib, ..
            } => Some(format!(
                "free {needed_mib} MiB there (df -h {}), or delete VMs: banger vm list",
                path.display()
            )),
            _ => None,
        }
    }
}

/// Says what an effect was for.
pub(crate) trait Doing<T> {
    /// Wraps the error of an effect.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for banger_host::effects::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Host { doing, source })
    }
}
