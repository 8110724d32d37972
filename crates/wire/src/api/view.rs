//! The bodies of answers. Names are stable: they are what `--json` prints.

use super::{PublishedView, Version};
use banger_model::{
    ByteSize, Drivers, Goal, ImageConfig, Init, Lease, Phase, Reason, VmHandles, VmId, VmName,
    VmRuntime,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An answer that says nothing more than yes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Empty {}

/// The state shown of a VM: its phase, corrected by looking (R-STATE-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Being made.
    Creating,
    /// Booting.
    Starting,
    /// Up and answering.
    Running,
    /// Held still by the daemon (disk full).
    Paused,
    /// Going down.
    Stopping,
    /// Down, disks kept.
    Stopped,
    /// Going away.
    Deleting,
    /// Needs a person; the reason names the way out.
    Error,
}

impl From<Phase> for VmState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Creating => VmState::Creating,
            Phase::Starting => VmState::Starting,
            Phase::Running => VmState::Running,
            Phase::Stopping => VmState::Stopping,
            Phase::Stopped => VmState::Stopped,
            Phase::Deleting => VmState::Deleting,
            Phase::Error => VmState::Error,
        }
    }
}

impl VmState {
    /// Every state.
    pub const ALL: [VmState; 8] = [
        VmState::Creating,
        VmState::Starting,
        VmState::Running,
        VmState::Paused,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Deleting,
        VmState::Error,
    ];
}

impl std::fmt::Display for VmState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            VmState::Creating => "creating",
            VmState::Starting => "starting",
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Stopping => "stopping",
            VmState::Stopped => "stopped",
            VmState::Deleting => "deleting",
            VmState::Error => "error",
        })
    }
}

/// A VM in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmView {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State shown.
    pub state: VmState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What was last asked for.
    pub goal: Goal,
    /// Image as named at create.
    pub image: String,
    /// Kernel.
    pub kernel: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory: ByteSize,
    /// Overlay disk in bytes.
    pub overlay_size: ByteSize,
    /// Work disk in bytes.
    pub disk_size: ByteSize,
    /// Whether the guest reaches beyond the host.
    pub nat: bool,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PublishedView>,
    /// Deleted by the daemon when its command ends.
    pub remove_on_exit: bool,
    /// Who is PID 1 in the guest.
    #[serde(default)]
    pub init: Init,
    /// Drivers.
    pub drivers: Drivers,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds of the last use.
    pub last_used_at: u64,
}

/// A VM in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmDetail {
    /// What a listing shows.
    #[serde(flatten)]
    pub vm: VmView,
    /// Digest the image is pinned to.
    pub image_id: String,
    /// How the image says it is run; what came as an image archive says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_config: Option<ImageConfig>,
    /// Address, MAC, context id.
    pub lease: Lease,
    /// Paths.
    pub runtime: VmRuntime,
    /// What the kernel gave us, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handles: Option<VmHandles>,
    /// Last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What the agent says of the guest, if it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentView>,
}

/// The agent's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentView {
    /// Version.
    pub version: String,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// What went wrong in the guest without stopping it.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Answer of `vm.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deleted {
    /// The id that is gone.
    pub id: VmId,
    /// Its name.
    pub name: VmName,
}

/// Answer of `vm.logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogText {
    /// The file.
    pub path: PathBuf,
    /// Its end; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether there is more before it.
    pub truncated: bool,
}

/// Answer of `daemon.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DaemonView {
    /// Process id.
    pub pid: u32,
    /// Socket it listens on.
    pub socket: PathBuf,
    /// What it was built from.
    #[serde(flatten)]
    pub version: Version,
    /// State directory.
    pub state_dir: PathBuf,
    /// Runtime directory.
    pub runtime_dir: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// Instance of the state directory.
    pub instance: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// Unix time in seconds at which it started.
    pub started_at: u64,
    /// Attached streams; a daemon with any is not replaced (R-PROG-4).
    pub streams: u32,
    /// Running operations.
    pub operations: u32,
    /// VMs known.
    pub vms: u32,
    /// Why it changes nothing, if it does not (R-STATE-10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<String>,
    /// Directories of VMs that no row names, listed by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<VmId>,
}

/// Answer of `shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShutdownView {
    /// Process that is ending.
    pub pid: u32,
    /// Operations it waits for, at most 10 s.
    pub operations: u32,
}

/// Answer of `recover`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecoverView {
    /// VMs whose row was made anew from their directory.
    pub adopted: Vec<VmId>,
    /// Directories that could not be adopted, and why.
    pub failed: Vec<RecoverFailure>,
    /// Where the damaged database was kept, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_database: Option<PathBuf>,
}

/// A directory `recover` could not adopt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecoverFailure {
    /// The directory.
    pub directory: PathBuf,
    /// Why.
    pub message: String,
}
