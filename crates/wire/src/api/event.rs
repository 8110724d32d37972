//! What a long method tells while it works.

use super::{ApiError, ImageView, KernelView, VmView};
use banger_model::{OpId, VmId, VmName, spec::Origin};
use serde::{Deserialize, Serialize};

/// Stage of a `vm.run` from when the VM is up and its command has been started: signals and keys are the command's
/// from then on.
pub const COMMAND_STAGE: &str = "command";

/// One line of an event stream, or the payload of an event frame. A stream ends with [`Event::Done`] or
/// [`Event::Failed`]; one that just ends is a lost connection, never success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The request is valid and its operation runs.
    Accepted {
        /// The operation.
        op_id: OpId,
        /// The VM's id.
        id: VmId,
        /// The VM's name, chosen by the daemon if the request had none.
        name: VmName,
    },
    /// The shape that was decided, with the origin of each value (the `spec:` line).
    Spec {
        /// In the order to print.
        values: Vec<SpecValue>,
    },
    /// A stage has begun or moved.
    Progress {
        /// Stage in kebab case: `image`, `kernel`, `disks`, `boot`, `delete`, …
        stage: String,
        /// One sentence for a person.
        detail: String,
        /// How much of the stage is done, in its own unit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<u64>,
        /// How much there is to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// The things of which `done` is the sum, where a stage moves several at once: an image's layers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<Part>,
    },
    /// Something a person should know that stopped nothing.
    Warning {
        /// One sentence.
        message: String,
        /// The way out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// The image that was made; [`Event::Done`] follows.
    Image {
        /// As it is now.
        image: Box<ImageView>,
    },
    /// The kernel that was made; [`Event::Done`] follows.
    Kernel {
        /// As it is now.
        kernel: Box<KernelView>,
    },
    /// It is done; the last event.
    Done {
        /// The VM as it is now; absent if it is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vm: Option<Box<VmView>>,
    },
    /// It failed; the last event.
    Failed {
        /// How.
        error: ApiError,
    },
}

/// One of several things that a stage moves at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Part {
    /// Which, as a person reads it: `layer 3f57d9401f8d`.
    pub name: String,
    /// How much of it is done, in the stage's unit.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
}

/// One decided value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SpecValue {
    /// What: `vcpus`, `memory`, `image`, …
    pub key: String,
    /// As a person reads it.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}
