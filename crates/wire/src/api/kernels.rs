//! Requests and answers about kernels (R-IMG-7).

use serde::{Deserialize, Serialize};

/// `kernel.import`: makes a kernel of the body of the request: a vmlinux or bzImage, a Debian package, or a tar (plain or
/// packed with gzip, xz or zstd) of a directory with a kernel and perhaps its modules. This object comes in the header
/// `banger-request` ([`super::REQUEST_HEADER`]). Streams events; the kernel is told by [`super::Event::Kernel`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelImport {
    /// Name of the new kernel.
    pub name: String,
    /// Takes the place of a kernel of that name; VMs that use it boot the new one when they next start.
    #[serde(default)]
    pub replace: bool,
    /// Takes a kernel that lacks what banger needs.
    #[serde(default)]
    pub force: bool,
    /// Where it comes from, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Length of the body in bytes, where it is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// `kernel.pull`: fetches a kernel package from this machine's package sources. Streams events; the kernel is told by
/// [`super::Event::Kernel`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelPull {
    /// A kernel of the catalog, or the package, or a meta package that stands for it.
    pub package: String,
    /// Name of the new kernel.
    pub name: String,
    /// Takes the place of a kernel of that name.
    #[serde(default)]
    pub replace: bool,
    /// Takes a kernel that lacks what banger needs.
    #[serde(default)]
    pub force: bool,
}

/// `kernel.build`: builds banger's own kernel of this machine's kernel source package. Streams events; the kernel is told by
/// [`super::Event::Kernel`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelBuild {
    /// Name of the new kernel; `banger` if absent. One that has it makes place when the new one is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Options besides banger's and instead of them, as the kernel's configuration has them (`CONFIG_X=y`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Compilers at a time; as many as the host has processors if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
}

/// `kernel.list`: all kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelList {}

/// `kernel.available`: the kernels that this machine's package sources have, as its package lists know them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelAvailable {}

/// `kernel.show`: one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelShow {
    /// Its name.
    pub kernel: String,
}

/// `kernel.delete`: removes a kernel that no VM and no image refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelDelete {
    /// Its name.
    pub kernel: String,
}

/// What [`ImageSet::kernel`] takes a kernel away by.
pub const ANY_KERNEL: &str = "any";

/// `image.set`: says what VMs of an image get when their request names nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageSet {
    /// Reference: name, id, or unique id prefix.
    pub image: String,
    /// Kernel by name; `any` for the default one.
    pub kernel: String,
}

/// A kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelView {
    /// Name under which VMs and images refer to it.
    pub name: String,
    /// Why it cannot be used and can only be deleted: `damaged`, or `of another version of banger`. Nothing but its name, its
    /// users and its size on the disk is known then, and only `kernel.list` tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
    /// Release as `uname -r` in the guest says it.
    pub release: String,
    /// Whether new VMs get it where neither request nor image names one.
    pub default: bool,
    /// Package it came from; of another origin, what it came in.
    pub package: String,
    /// That package's version.
    pub version: String,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Unix time in seconds; absent if nobody wrote it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u64>,
    /// `sha256:` and 64 hex digits: of the kernel's ELF file.
    pub digest: String,
    /// Bytes it takes on the disk, with its modules.
    pub disk_usage: u64,
    /// Whether there are modules to load in the guest; else everything is built in.
    pub modules: bool,
    /// What its options were read from: `config`, `modules`, `symbols` or `nothing`; absent if nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_by: Option<String>,
    /// Options that it lacks.
    pub missing: Vec<KernelOption>,
    /// Options of which nothing is known.
    pub unknown: Vec<String>,
    /// Names of the VMs that use it.
    pub used_by: Vec<String>,
    /// Titles of the images that name it as theirs.
    pub images: Vec<String>,
}

/// An option that a kernel lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelOption {
    /// As the kernel's configuration names it.
    pub option: String,
    /// Whether no guest runs without it.
    pub needed: bool,
    /// What for.
    pub why: String,
}

/// A kernel that could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelOffer {
    /// Where it is: `catalog`, `package` or `host`.
    pub kind: String,
    /// What it is called there.
    pub name: String,
    /// Its version there, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One line for a person.
    pub description: String,
    /// What brings it here.
    pub command: String,
}

/// Answer of `kernel.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelDeleted {
    /// Its name.
    pub name: String,
}
