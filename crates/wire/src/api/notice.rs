//! What happens in the daemon, for whoever watches it as a whole.

use super::{Outcome, VmState};
use banger_model::{OpId, Reason, VmId, VmName};
use serde::{Deserialize, Serialize};

/// `events`: what happens from now on, as it happens: a stream of notices without an end, the first of which is
/// `listening`. One that reads slowly is told by `lost` how many notices it has missed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Events {}

/// One line of the stream of `events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notice {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event")]
pub enum What {
    /// The first one: what happens after it is told. Who lists after it misses nothing.
    #[serde(rename = "listening")]
    Listening {
        /// Process id of the daemon.
        pid: u32,
    },
    /// So many notices were not told to this reader, which was slow: list again.
    #[serde(rename = "lost")]
    Lost {
        /// How many.
        count: u64,
    },
    /// Told by the command line when it listens to another daemon than before: list again.
    #[serde(rename = "reconnected")]
    Reconnected {
        /// Process id of the daemon.
        pid: u32,
    },
    /// A VM has a new state.
    #[serde(rename = "vm")]
    Vm(VmNotice),
    /// An operation began.
    #[serde(rename = "operation.began")]
    OperationBegan(OperationNotice),
    /// An operation ended.
    #[serde(rename = "operation.ended")]
    OperationEnded(OperationNotice),
    /// An image was made.
    #[serde(rename = "image.created")]
    ImageCreated(ImageNotice),
    /// An image is gone.
    #[serde(rename = "image.deleted")]
    ImageDeleted(ImageNotice),
    /// The daemon ends as soon as what runs is over; VMs stay.
    #[serde(rename = "daemon.stopping")]
    DaemonStopping {
        /// Operations it waits for.
        operations: u32,
    },
}

/// What happened to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmChange {
    /// It is there, and being made.
    Created,
    /// It boots.
    Starting,
    /// It runs commands.
    Running,
    /// It goes down.
    Stopping,
    /// It is down.
    Stopped,
    /// It is going away.
    Deleting,
    /// It is gone, disks and all.
    Deleted,
    /// It needs a person; the reason names the way out.
    Error,
    /// It has another name.
    Renamed,
    /// It is held still: the disk is full.
    Paused,
    /// It goes on.
    Resumed,
    /// It was lost, and is listed again.
    Adopted,
}

/// A change of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmNotice {
    /// What happened to it.
    pub change: VmChange,
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State after it; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// The beginning or end of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationNotice {
    /// Identity.
    pub op_id: OpId,
    /// Method that began it.
    pub method: String,
    /// VM it is about, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// How it stands.
    pub outcome: Outcome,
    /// Its failure, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An image that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageNotice {
    /// Identity: the head of the digest.
    pub id: String,
    /// Names that it has, or had.
    pub names: Vec<String>,
}
