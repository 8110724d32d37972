//! The durable record of a VM: what it is, what was asked of it, and where its files are.

use crate::{Generation, Lease, RecoveryMirror, RootDriver, VmId, VmName, VmSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the last accepted request asked for; not a promise to keep alive (R-STATE-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// Up, with an agent that answered.
    Running,
    /// Down, disks kept.
    Stopped,
    /// The tombstone: gone, disks and all. The only reason ever to remove data (R-STATE-10).
    Absent,
}

/// How far the record is on its way; the state shown is this corrected by observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Disks are being made; never acknowledged to anyone. Rolled back at daemon start.
    Creating,
    /// Host objects are being made and the guest boots.
    Starting,
    /// The agent answered.
    Running,
    /// Going down.
    Stopping,
    /// Down; nothing of it is on the host but its directory.
    Stopped,
    /// Tombstone accepted, teardown under way.
    Deleting,
    /// Fenced: something only a person can decide. The reason names the way out.
    Error,
}

/// Why a VM is in its phase, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reason {
    /// Machine-readable kind.
    pub kind: ReasonKind,
    /// One sentence.
    pub text: String,
}

/// Kinds of [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// A request asked for it.
    Requested,
    /// The guest powered itself off.
    GuestPowerOff,
    /// The guest asked for a reboot.
    GuestReboot,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The VMM ended by itself or was killed.
    VmmExited,
    /// The host was rebooted under it.
    HostReboot,
    /// Start failed and was rolled back.
    StartFailed,
    /// The daemon ended while it was starting, or between the halves of a restart.
    Interrupted,
    /// A data disk is missing.
    DiskMissing,
    /// Undoing a failed step failed as well.
    RollbackFailed,
    /// Paused because the disk is full.
    DiskFull,
    /// Nobody used it for as long as the configuration says.
    Idle,
}

/// Durable facts of a VM's life besides its spec (R-STATE-1). Paths are absolute and deterministic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmRuntime {
    /// API (control) socket of the VMM.
    pub api_socket: PathBuf,
    /// Socket of the agent channel.
    pub vsock_path: PathBuf,
    /// Console output of the guest.
    pub log_path: PathBuf,
    /// Metrics file or pipe of the VMM, where it has one.
    pub metrics_path: Option<PathBuf>,
    /// `<name>.vm`.
    pub dns_name: String,
    /// The VM's directory, `vms/<id>`.
    pub vm_dir: PathBuf,
    /// Overlay (or CoW) disk.
    pub system_overlay: PathBuf,
    /// Work disk.
    pub work_disk: PathBuf,
}

/// One VM as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Identity.
    pub id: VmId,
    /// Name, unique among the instance's VMs.
    pub name: VmName,
    /// uid of the user who created it.
    pub owner_uid: u32,
    /// What was last asked for.
    pub goal: Goal,
    /// Which goal that was, counted.
    pub generation: Generation,
    /// How far it got.
    pub phase: Phase,
    /// Why it is there.
    pub reason: Option<Reason>,
    /// Shape.
    pub spec: VmSpec,
    /// Leases.
    pub lease: Lease,
    /// Paths.
    pub runtime: VmRuntime,
    /// Identities of kernel objects for the day `handles.json` is lost (R-STATE-4).
    pub mirror: Option<RecoveryMirror>,
    /// Last failure, whole chain in one text.
    pub last_error: Option<String>,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds of the last exec, ssh, attach, copy or prepare (R-SVC-7).
    pub last_used_at: u64,
}

impl Vm {
    /// Whether it cannot do without its image's file: all but one whose root disk is a clone that is made.
    pub fn needs_image(&self) -> bool {
        self.phase == Phase::Creating || self.spec.drivers.root != RootDriver::Reflink
    }
}
