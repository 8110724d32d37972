//! Requests that move files.

use crate::guest::CopyRequest;
use serde::{Deserialize, Serialize};

/// `vm.copy`: files into a running VM or out of it, or out of one that is down, from its disks. Upgrades: frames of the
/// copy, as the guest speaks them; the last one is its outcome. The daemon opens no file of the client (R-OPS-3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmCopy {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// What, and which way.
    pub copy: CopyRequest,
}
