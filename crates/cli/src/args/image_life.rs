//! What the verbs of an image's life are given: history, export, bundle.

use crate::complete;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use std::path::PathBuf;

pub const IMAGE_HISTORY_EXAMPLES: &str = "Examples:\n  \
  banger image history alpine:3.20\n  \
  banger image history app --no-trunc\n  \
  banger image history app --json | jq -r '.[].created_by'\n\n\
The newest step is first. An image that came without a history (a flat tar, an ext4 file, a directory) has none.";

pub const IMAGE_EXPORT_EXAMPLES: &str = "Examples:\n  \
  banger image export app -o app.tar\n  \
  banger image export app | docker load\n  \
  banger image export app | zstd >app.tar.zst\n  \
  banger image export app --format bundle -o app.tar.zst\n\n\
oci is a tar of an OCI image layout, which docker load, podman load, skopeo (oci-archive:FILE) and banger image import read: \
one layer, with owners, modes, times, hard links, devices, holes, extended attributes and capabilities, and how the image is run. \
Sockets are left out. bundle is rootfs.ext4 and manifest.json, packed with zstd: the same image with the same id.\n\
FILE is replaced when the archive is whole.";

pub const IMAGE_BUNDLE_EXAMPLES: &str = "Examples:\n  \
  banger image bundle app -o app.tar.zst\n  \
  banger image import app.tar.zst --name app\n\n\
The same as banger image export --format bundle.";

pub const IMAGE_REGISTER_EXAMPLES: &str = "Examples:\n  \
  banger image register base /srv/base.ext4\n  \
  banger image promote base                    a copy of it, kept here\n\n\
Nothing is copied, and the file is never written to or removed. It must stay as it is: a VM of an image whose file was replaced or \
written to is neither created nor started. The file itself is named; a symlink is not followed.";

pub const IMAGE_PROMOTE_EXAMPLES: &str = "Examples:\n  \
  banger image promote base\n\n\
Blocks are shared with the file where the file system can (reflink). From then on the file may change or go.";

pub const IMAGE_BUILD_EXAMPLES: &str = "Examples:\n  \
  banger image build --name dev --package build-essential --package gdb\n  \
  banger image build --name web --from debian:bookworm --package nginx-light\n\n\
A small Debian with apt, git and what is named, of this machine's package sources; the image 'debian' is one without more. \
\
The same packages make the same image, whoever builds it. It takes mmdebstrap and, for who is not root, newuidmap (package uidmap) and ids in \
/etc/subuid and /etc/subgid: banger doctor says what is missing.";

/// `image build`
#[derive(Debug, Args)]
pub struct ImageBuildArgs {
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters
    #[arg(long)]
    pub name: String,
    /// What it is built from: debian (the release of this machine), or debian:SUITE
    #[arg(long, value_name = "BASE", default_value = "debian")]
    pub from: String,
    /// A package besides; more of them one by one
    #[arg(long = "package", value_name = "PACKAGE")]
    pub packages: Vec<String>,
    /// Take the name from the image that has it
    #[arg(long)]
    pub replace: bool,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// `image register`
#[derive(Debug, Args)]
pub struct ImageRegisterArgs {
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters
    pub name: String,
    /// The ext4 file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// Take the name from the image that has it
    #[arg(long)]
    pub replace: bool,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// `image promote`
#[derive(Debug, Args)]
pub struct ImagePromoteArgs {
    /// Image: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// `image list`
#[derive(Debug, Args)]
pub struct ImageListArgs {
    /// What the catalog offers (catalog.source in the configuration) instead of what is here
    #[arg(long)]
    pub available: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image history`
#[derive(Debug, Args)]
pub struct ImageHistoryArgs {
    /// Image: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// Show whole commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A kind of archive.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar
    Oci,
    /// rootfs.ext4 and manifest.json in a tar, packed with zstd
    Bundle,
}

/// `image export`
#[derive(Debug, Args)]
pub struct ImageExportArgs {
    /// Image: name, id or unique id prefix; a name is what the archive calls it
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// File to write; - is stdout [default: stdout, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What kind of archive
    #[arg(long, value_enum, default_value = "oci")]
    pub format: ArchiveFormat,
}

/// `image bundle`
#[derive(Debug, Args)]
pub struct ImageBundleArgs {
    /// Image: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// File to write; - is stdout [default: stdout, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
