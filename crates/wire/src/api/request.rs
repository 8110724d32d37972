//! The bodies of requests. Unknown fields are refused everywhere.

use super::Program;
use crate::guest::{ExecId, TtySize};
use banger_model::{ByteSize, Init, PortWish, VmName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `ping`: is anyone there?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// `version`: what was the daemon built from?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetVersion {}

/// `daemon.status`: where the daemon is, what it was built from, what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DaemonStatus {}

/// `shutdown`: ends the daemon after at most 10 s of draining; VMs stay (R-CLI-6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Shutdown {}

/// The wanted shape of a new VM; what is absent is decided by configuration, host and built-in defaults in this
/// order (R-CLI-7). Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmShape {
    /// Name; one is made up if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VmName>,
    /// Image by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kernel by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Guest memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Size of the overlay disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_size: Option<ByteSize>,
    /// Size of the work disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<ByteSize>,
    /// Whether the guest reaches beyond the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// TCP ports to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortWish>,
    /// Who is PID 1 in the guest; the agent if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Overrides the refusal to promise more memory than the host has.
    #[serde(default)]
    pub force: bool,
}

/// `vm.create`: makes a VM and boots it. Streams events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// Shape.
    #[serde(default)]
    pub shape: VmShape,
    /// Goes on when the client leaves.
    #[serde(default)]
    pub detached: bool,
}

/// A command in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments, or what `program` makes of them.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Which program it is; the first word if absent.
    #[serde(default, skip_serializing_if = "Program::is_argv")]
    pub program: Program,
    /// Environment on top of the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User by name or number, perhaps with `:group`; `image` for the one the image says; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal of this size; three pipes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySize>,
    /// What `vm.attach` finds it by, chosen by the client; who chooses one says with frames of type 10 what it has got
    /// of the output. Without one the command ends with its connection. The command of a `vm.run` always has id 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecId>,
    /// Start it and leave it alone: no input, no output, and the exit frame says only whether it was started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// `vm.run`: makes a VM, runs a command in it and, if `rm`, deletes it when the command ends, whether the client
/// is still there or not. Upgrades: event frames, then output frames, then the exit frame. Events may follow the
/// exit frame; the end of the stream says that a VM with `rm` is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmRun {
    /// Shape.
    #[serde(default)]
    pub shape: VmShape,
    /// The command.
    pub command: Command,
    /// Delete the VM when the command ends.
    #[serde(default)]
    pub rm: bool,
}

/// `vm.exec`: runs a command in a running VM. Upgrades: output frames, then the exit frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmExec {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// The command.
    pub command: Command,
}

/// `vm.attach`: takes up a command whose connection was lost: of `vm.exec` with an id, or of `vm.run`. Upgrades: a
/// frame of type 9 says from where input goes on, then output frames from `output` on, then the exit frame; for the
/// command of a `vm.run` events follow as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmAttach {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// The command.
    pub id: ExecId,
    /// Bytes of its output, standard output and error together, that have arrived.
    #[serde(default)]
    pub output: u64,
}

/// `vm.list`: all VMs, or those that are alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmList {
    /// Only VMs that are alive (`banger ps`).
    #[serde(default)]
    pub running: bool,
}

/// A request that is about one VM and says no more.
macro_rules! vm_request {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Reference: name, id, or unique id prefix.
            pub vm: String,
        }
    };
}

pub(super) use vm_request;

vm_request!(
    /// `vm.show`: a VM in full.
    VmShow
);
vm_request!(
    /// `vm.start`: boots a stopped VM.
    VmStart
);
vm_request!(
    /// `vm.stop`: asks the guest to power off, and ends it if it does not (R-HOST-5).
    VmStop
);
vm_request!(
    /// `vm.kill`: ends the VMM at once; waits for no other operation.
    VmKill
);

/// `vm.delete`: removes a VM and its disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmDelete {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// Also when it is running.
    #[serde(default)]
    pub force: bool,
}

/// Which log of a VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// What the guest wrote to its console.
    #[default]
    Console,
    /// What the VMM said.
    Vmm,
}

/// `vm.logs`: the end of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmLogs {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// Which log.
    #[serde(default)]
    pub log: LogKind,
    /// At most so many lines from the end; 200 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}

/// `recover`: rebuilds the database from the VMs' own descriptions, adopts lost directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Recover {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused_at_every_level() {
        for bad in [
            r#"{"shape":{"memroy":5},"command":{"argv":["true"]}}"#,
            r#"{"command":{"argv":["true"],"ty":1}}"#,
            r#"{"command":{"argv":["true"]},"remove":true}"#,
        ] {
            assert!(serde_json::from_str::<VmRun>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Ping>(r#"{"x":1}"#).is_err());
        let ok = r#"{"shape":{"name":"dev","vcpus":1},"command":{"argv":["true"]},"rm":true}"#;
        assert!(serde_json::from_str::<VmRun>(ok).unwrap().rm);
    }
}
