//! Requests about the life of VMs beyond start and stop: restart, wait, rename, prune.

use super::{ApiError, VmState, request::vm_request};
use banger_model::{ByteSize, Reason, VmId, VmName};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

vm_request!(
    /// `vm.restart`: stops a VM in order and starts it; starts one that is stopped. Goes on when the client leaves. Streams
    /// events. A daemon that ends in between leaves a stopped VM whose reason says so.
    VmRestart
);

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WaitFor {
    /// It runs.
    Running,
    /// It is stopped.
    #[default]
    Stopped,
    /// It is gone; one that is not there is.
    Deleted,
    /// It runs, its agent answers, and commands can run.
    Healthy,
}

impl std::fmt::Display for WaitFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WaitFor::Running => "running",
            WaitFor::Stopped => "stopped",
            WaitFor::Deleted => "deleted",
            WaitFor::Healthy => "healthy",
        })
    }
}

/// Longest wait of one `vm.wait`, in milliseconds; who wants to wait longer asks again.
pub const MAX_WAIT_MS: u32 = 60_000;

/// `vm.wait`: answers when a VM is as wanted, when it cannot become so any more, or when the time is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmWait {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// What is waited for.
    #[serde(default, rename = "for")]
    pub wanted: WaitFor,
    /// At most so many milliseconds, and at most 60 000.
    pub timeout_ms: u32,
}

/// Answer of `vm.wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaitView {
    /// Identity; absent if there is no such VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<VmId>,
    /// Name; absent if there is no such VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VmName>,
    /// State shown; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// It is as wanted.
    pub reached: bool,
    /// Why it is in its state, or not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `vm.rename`: another name. The host's names follow at once, the guest's hostname at its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmRename {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// Its new name.
    pub name: VmName,
}

/// `vm.prune`: deletes stopped VMs, disks and all, the logs of failed creates, and cached files that nothing will use
/// again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmPrune {
    /// Only what was not used for so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<u64>,
    /// Only these VMs, as far as they are stopped; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<Vec<VmId>>,
    /// Says what would go, and removes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer of `vm.prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pruned {
    /// Nothing was removed; this is what would be.
    pub dry_run: bool,
    /// VMs.
    pub vms: Vec<PrunedVm>,
    /// Directories with the logs of creates that failed.
    pub failed_logs: Vec<PrunedFile>,
    /// Cached files.
    pub cache: Vec<PrunedFile>,
    /// Bytes of disk that all of it has.
    pub bytes: u64,
    /// What should have gone and is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ApiError>,
}

/// A VM that was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrunedVm {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// Why it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Size of the disk at `/root`.
    pub disk_size: ByteSize,
    /// Unix time in seconds of the last use.
    pub last_used_at: u64,
    /// Bytes of disk that its directory has.
    pub bytes: u64,
}

/// A file or directory that was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrunedFile {
    /// Where it was.
    pub path: PathBuf,
    /// Bytes of disk that it had.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_one_spelling() {
        for wanted in [
            WaitFor::Running,
            WaitFor::Stopped,
            WaitFor::Deleted,
            WaitFor::Healthy,
        ] {
            let json = serde_json::to_value(wanted).unwrap();
            assert_eq!(json, serde_json::json!(wanted.to_string()));
        }
        let bad = r#"{"vm":"dev","for":"sleepy","timeout_ms":1}"#;
        assert!(serde_json::from_str::<VmWait>(bad).is_err());
        let bad = r#"{"vm":"dev","name":"Dev"}"#;
        assert!(serde_json::from_str::<VmRename>(bad).is_err());
    }
}
