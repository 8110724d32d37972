//! `vm.set`: another shape for a VM.

use banger_model::ByteSize;
use serde::{Deserialize, Serialize};

/// `vm.set`: changes what a stopped VM has when it starts next (R-CLI-3). What is absent stays as it is; disks only grow,
/// and the guest's file systems with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmSet {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Guest memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Overlay disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_size: Option<ByteSize>,
    /// Work disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<ByteSize>,
    /// Whether the guest reaches beyond the host: at once, and also of a VM that runs; not together with the others then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// More memory than the host has, too.
    #[serde(default)]
    pub force: bool,
}
