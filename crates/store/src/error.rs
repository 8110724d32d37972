//! What the store refuses and how it fails.

use banger_model::{Generation, VmId};
use std::path::PathBuf;

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What may exist once only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unique {
    /// The VM's id.
    Id,
    /// The VM's name.
    Name,
    /// The leased address.
    Ip,
    /// The leased MAC.
    Mac,
    /// The leased vsock context id.
    Cid,
}

impl std::fmt::Display for Unique {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unique::Id => "id",
            Unique::Name => "name",
            Unique::Ip => "address",
            Unique::Mac => "MAC address",
            Unique::Cid => "vsock context id",
        })
    }
}

/// A failed store request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No database at the path (or one that was never finished).
    #[error("there is no database at {}; `banger recover` makes one from the VMs' directories", .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The database cannot be trusted.
    #[error("the database {} is damaged; `banger recover` rebuilds it from the VMs' directories", .path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// How it shows.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Written by a newer program.
    #[error("the database {} has format {found} and this banger knows formats up to {known}; use the newer banger", .path.display())]
    Newer {
        /// The path.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest we know.
        known: u32,
    },
    /// Written by an older program; a read-only open never migrates.
    #[error("the database {} has format {found}, older than {known}; starting the daemon brings it up to date", .path.display())]
    Older {
        /// The path.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format we need.
        known: u32,
    },
    /// `create` on a database that is there.
    #[error("there is a database at {} already", .path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Something that may exist once only is there.
    #[error("a VM with the {what} {value} already exists")]
    AlreadyExists {
        /// What.
        what: Unique,
        /// Its value.
        value: String,
    },
    /// No such VM.
    #[error("there is no VM {0}")]
    NotFound(VmId),
    /// Another goal was accepted meanwhile.
    #[error("VM {id} is at generation {found}, not {expected}: another request was accepted meanwhile", found = .found.0, expected = .expected.0)]
    Stale {
        /// The VM.
        id: VmId,
        /// Generation the caller acted for.
        expected: Generation,
        /// Generation in the row.
        found: Generation,
    },
    /// An update that changes what a VM keeps for life.
    #[error("VM {id} keeps its {what} for life")]
    Immutable {
        /// The VM.
        id: VmId,
        /// What was different.
        what: &'static str,
    },
    /// SQLite failed otherwise (disk full, locked for too long, I/O).
    #[error("the database failed to {doing}")]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
