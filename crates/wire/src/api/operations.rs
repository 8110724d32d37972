//! Operations: what every long method is while it runs, and for a while after.
//!
//! Every method of [`OPERATIONS`] may be begun and left alone: asked with the header `Prefer: respond-async` (RFC 7240)
//! it is answered at once with `202` and its [`OperationView`], and goes on whoever leaves. With the header
//! `Idempotency-Key` asking twice begins one operation: the second request is told of the first one's, and a different
//! request with the same key is a conflict. An operation with a key is not cancelled when its client leaves.

use super::ApiError;
use banger_model::{OpId, VmId, VmName};
use serde::{Deserialize, Serialize};

/// Methods that are operations.
pub const OPERATIONS: &[&str] = &[
    "vm.create",
    "vm.start",
    "vm.stop",
    "vm.restart",
    "vm.kill",
    "vm.set",
    "vm.rename",
    "vm.prune",
    "vm.delete",
    "image.import",
    "image.pull",
    "image.set",
    "image.build",
    "image.register",
    "image.promote",
    "image.delete",
    "blob.prune",
    "kernel.import",
    "kernel.pull",
    "kernel.build",
    "kernel.delete",
];

/// Header that asks for an answer as soon as the operation has begun.
pub const PREFER_HEADER: &str = "prefer";
/// What it says then.
pub const RESPOND_ASYNC: &str = "respond-async";
/// Header with a key that a client makes up for one request, to be able to send it again.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Longest such key, in bytes.
pub const MAX_KEY: usize = 255;

/// `operation.list`: operations that run or ended lately, oldest first, without their results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationList {}

/// `operation.show`: one operation, with what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationShow {
    /// The operation.
    pub id: OpId,
}

/// `operation.watch`: how an operation stands, then its events from now on, then its outcome; of one that has ended, its
/// outcome. Any number may watch; one that reads slowly misses progress, never the outcome. Streams events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationWatch {
    /// The operation.
    pub id: OpId,
}

/// `operation.cancel`: asks a running operation to end and be undone. Those that only go forward (stop, kill, delete)
/// stop being waited for, and are finished later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationCancel {
    /// The operation.
    pub id: OpId,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
    /// Ended because someone asked for it.
    Cancelled,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 4] = [
        Outcome::Running,
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Cancelled,
    ];
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Outcome::Running => "running",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        })
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationView {
    /// Identity.
    pub id: OpId,
    /// Method that began it.
    pub method: String,
    /// VM it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// What that VM is called, where that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VmName>,
    /// Stage it is in.
    pub stage: String,
    /// One sentence about the stage.
    pub detail: String,
    /// How much of the stage is done, in its own unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// How much there is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How it stands.
    pub outcome: Outcome,
    /// Its failure, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// What came of it: what its method answers with, and for one that streams the VM or image that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Goes on when its client leaves.
    #[serde(default)]
    pub detached: bool,
    /// The key that its client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Unix time in seconds.
    pub started_at: u64,
    /// Unix time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::METHODS;

    #[test]
    fn operations_are_methods_each_named_once() {
        for (n, name) in OPERATIONS.iter().enumerate() {
            assert!(!OPERATIONS[..n].contains(name), "{name} is named twice");
            let known = METHODS.iter().any(|(method, _)| method == name);
            assert!(known, "{name} is no method");
        }
    }
}
