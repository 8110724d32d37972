//! What can go wrong with images, each with the way out.

use crate::NoNamespace;
use banger_ext4::ReadError;
use std::{io, path::PathBuf};

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The way out where a root disk cannot be a clone of its image.
pub const UNSHARED: &str = "set drivers.root = \"overlay\", which works everywhere, or keep BANGER_STATE_DIR whole on one file system that shares blocks (XFS, Btrfs, bcachefs)";

/// A failed image request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing matches a reference.
    #[error("no image is called '{0}'")]
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
    #[error("image {id} is used by {}", told_users(.users))]
    InUse {
        /// The image.
        id: String,
        /// Names of the VMs.
        users: Vec<String>,
    },
    /// A VM is being made of the image.
    #[error("image {0} is being used for a new VM right now")]
    Pinned(String),
    /// The name of an image is not usable.
    #[error(
        "'{0}' cannot name an image: use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, and not 12 hex digits; or a whole reference to a registry, such as ghcr.io/a/b:tag"
    )]
    BadName(String),
    /// The user cannot build a Debian root.
    #[error("{0}")]
    NoNamespace(NoNamespace),
    /// Nothing that an image is built from.
    #[error("no image is built from '{0}'")]
    BadBase(String),
    /// Nothing that can be a package.
    #[error("'{0}' cannot be a package")]
    BadPackage(String),
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
    /// A tree with files of a user's further ids stays, for who may remove them is not to be had.
    #[error("{failed}; it takes what building a Debian image takes: {why}")]
    Unremoved {
        /// What the user alone was told.
        failed: Box<Error>,
        /// What stands in the way.
        why: Box<Error>,
    },
    /// The name of a new image is taken.
    #[error("an image named '{name}' already exists ({id})")]
    Exists {
        /// The name.
        name: String,
        /// The image that has it.
        id: String,
    },
    /// Another image has the same short id.
    #[error("there is another image with the id {id}; this one's digest is {digest}")]
    OtherDigest {
        /// The id.
        id: String,
        /// Digest of the one that is not kept.
        digest: String,
    },
    /// An image with several names is to go by its id.
    #[error("image {id} has several names: {}", .names.join(", "))]
    SeveralNames {
        /// The image.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
    /// What is to be registered is no file of its own.
    #[error("{} is no regular file (a symlink is not followed)", .0.display())]
    NotAFile(PathBuf),
    /// The file of a registered image is not what it was.
    #[error("{} is not the file that was registered any more: it was replaced or written to", .0.display())]
    BaseChanged(PathBuf),
    /// What is to be imported is none of the things that can be.
    #[error("this is no root file system: {0}")]
    NotAnImage(String),
    /// What is to be imported ends before it is whole.
    #[error("what is imported was cut short: its end is missing")]
    Truncated,
    /// What is to be imported contradicts itself.
    #[error("what is imported is damaged")]
    Damaged(#[source] io::Error),
    /// It could not be read, or whoever sends it has left.
    #[error("what is imported could not be read to its end")]
    Source(#[source] io::Error),
    /// An entry of an archive is refused.
    #[error("the entry '{entry}' of the archive is refused: {why}")]
    Refused {
        /// Its name, on one line.
        entry: String,
        /// Why.
        why: String,
    },
    /// It is more than an image may be.
    #[error("what is imported is refused: {0}")]
    TooLarge(String),
    /// The file system is full.
    #[error("the disk is full while {doing}")]
    DiskFull {
        /// What it was for.
        doing: &'static str,
        /// As the system said it.
        #[source]
        source: io::Error,
    },
    /// It could not be written.
    #[error("the image cannot be written")]
    Write(#[source] io::Error),
    /// An archive of image layers that is not as such archives are.
    #[error("the image archive is refused: {0}")]
    BadArchive(String),
    /// A bundle that is not as it says.
    #[error("the bundle is refused: {0}")]
    BadBundle(String),
    /// What a registry has is no image of the kind that it should be.
    #[error("what the registry has is refused: {0}")]
    BadRemote(String),
    /// An image for other machines.
    #[error("the image is not for this machine (linux on {arch}); it is for: {0}", arch = std::env::consts::ARCH)]
    OtherPlatform(String),
    /// An archive of more than one image.
    #[error("the archive has several images: {0}")]
    SeveralImages(String),
    /// An archive without the image that is wanted.
    #[error("the archive has no image '{wanted}'; it has: {has}")]
    NotInArchive {
        /// What is wanted.
        wanted: String,
        /// What its images are called.
        has: String,
    },
    /// A file system that is not clean, or not whole.
    #[error("the file system cannot be used as an image: {0}")]
    BadFileSystem(String),
    /// An image's file system has something that is not read.
    #[error("the image's file system cannot be read")]
    Unreadable(#[source] banger_ext4::ReadError),
    /// A file that no layer can tell of.
    #[error("no layer of an OCI image can tell of '{entry}': {why}")]
    Untold {
        /// Its path, on one line.
        entry: String,
        /// Why.
        why: &'static str,
    },
    /// A root disk cannot share the blocks of its image.
    #[error("a root disk cannot be a clone of its image")]
    Unshared(#[source] banger_host::Error),
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
    /// The directory of an image has lost its manifest.
    #[error("the image of this content is there already, at {}, but its manifest is gone", .0.display())]
    NoManifest(PathBuf),
    /// Reading failed.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
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
    /// What reading a packed stream or an archive failed with.
    pub(crate) fn damaged(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
                doing: "receiving the image",
                source: error,
            },
            // What the stream itself says when its sender is gone.
            io::ErrorKind::ConnectionAborted => Error::Source(error),
            _ => Error::Damaged(error),
        }
    }

    /// What writing the image failed with.
    pub(crate) fn unwritten(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
                doing: "writing the image",
                source,
            },
            _ => Error::Write(source),
        }
    }

    /// What is wrong with layers, told of a registry and not of an archive.
    pub(crate) fn of_registry(self) -> Self {
        match self {
            Error::BadArchive(why) => Error::BadRemote(why),
            other => other,
        }
    }

    /// An entry that is refused.
    pub(crate) fn refused(entry: &[u8], why: &str) -> Self {
        Error::Refused {
            entry: crate::layer::shown(entry),
            why: why.to_owned(),
        }
    }

    /// The way out, where the message itself does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoNamespace(why) => Some(why.hint()),
            Error::BadBase(_) => Some(String::from("debian, or debian:SUITE: debian:bookworm")),
            Error::BadPackage(_) => Some(String::from(
                "a name of the package lists, without a version: apt list",
            )),
            Error::ToolMissing { package, .. } => Some(format!("apt install {package}")),
            Error::NoSpace {
                path, needed_mib, ..
            } => Some(format!(
                "free {needed_mib} MiB there (df -h {}), or delete VMs: banger vm list",
                path.display()
            )),
            Error::Exists { name, .. } => Some(format!(
                "choose another name, or add --replace: '{name}' moves to the new image then"
            )),
            Error::Unremoved { why, .. } => why.hint(),
            Error::Unreadable(ReadError::Unsupported(_)) => Some(String::from(
                "it goes out as it is, without being read: banger image bundle IMAGE -o FILE.tar.zst",
            )),
            Error::OtherDigest { id, .. } => Some(format!(
                "two images with one id are nobody's accident: look at the other one (banger image show {id}) before you use either"
            )),
            Error::SeveralNames { id, names } => Some(format!(
                "banger image delete {} takes one name away; banger image delete --force {id} takes all and the image",
                names.first().map_or("NAME", String::as_str)
            )),
            Error::SeveralImages(_) => Some(String::from(
                "choose one, and import the others after it: banger image import --only IMAGE …",
            )),
            Error::OtherPlatform(_) => Some(String::from(
                "fetch the image for this machine (docker pull --platform linux/amd64, skopeo --override-arch amd64)",
            )),
            Error::BadArchive(_) => Some(String::from(
                "save the image again (docker save, podman save, skopeo copy … oci-archive:FILE)",
            )),
            Error::NotAFile(_) => Some(String::from(
                "name the ext4 file itself; banger image import makes an image of anything else",
            )),
            Error::BaseChanged(path) => Some(format!(
                "put it back as it was, or register it anew and create new VMs: banger image register NAME {}",
                path.display()
            )),
            Error::BadBundle(_) => Some(String::from(
                "make it again, or fetch it again: banger image bundle IMAGE -o FILE.tar.zst",
            )),
            Error::NotAnImage(_) => Some(String::from(
                "import a tar of a root file system (plain, gzip, xz, zstd; docker export makes one), an image archive (docker save, an OCI layout), a directory, or an ext4 file",
            )),
            Error::Untold { .. } => Some(String::from(
                "a bundle has the file system as it is: banger image export --format bundle",
            )),
            Error::BadFileSystem(_) => Some(String::from(
                "repair it where it comes from (e2fsck -fy FILE), then import it again",
            )),
            Error::DiskFull { .. } => Some(String::from(
                "free space there, or delete images or VMs: banger image list, banger vm list",
            )),
            Error::Unshared(_) => Some(String::from(UNSHARED)),
            Error::Pinned(id) => Some(format!(
                "wait until the VM is there (banger vm list), or try again: banger image delete {id}"
            )),
            Error::NoManifest(path) => {
                let id = path.file_name().unwrap_or_default().display();
                Some(format!("banger image delete {id}, then import it again"))
            }
            Error::InUse { users, .. } => {
                Some(format!("banger vm delete --force {}", users.join(" ")))
            }
            _ => None,
        }
    }
}

impl From<banger_ext4::Error> for Error {
    /// The entry is named by its path in the image.
    fn from(error: banger_ext4::Error) -> Self {
        use banger_ext4::Error as E;
        match error {
            E::Inode { path, why } => Error::refused(&path.0, &why.to_string()),
            other => Error::TooLarge(other.to_string()),
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

/// `VM 'a'`, `the VMs a, b`.
fn told_users(users: &[String]) -> String {
    match users {
        [one] => format!("VM '{one}'"),
        several => format!("the VMs {}", several.join(", ")),
    }
}
