//! One thing to do about one VM.

use banger_model::{Phase, Reason, Role};

/// An action: one effect, or one group of effects that is resumable from every prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Rename `.creating-<id>` to `<id>`, fsync.
    EnterDir,
    /// Make a data disk under a temporary name, fsync, rename.
    MakeDisk(Role),
    /// Make a data disk as long as the VM's spec says, fsync.
    GrowDisk(Role),
    /// fsync the VM's directory: the disks' names are durable.
    SyncDir,
    /// Attach a loop device.
    AttachLoop(Role),
    /// Create the device-mapper device.
    CreateDm,
    /// Load its table.
    LoadDm,
    /// Make its table live.
    ResumeDm,
    /// Make the tap.
    CreateTap,
    /// Make the instance's bridge.
    CreateBridge,
    /// Make the tap a port of the bridge.
    JoinBridge,
    /// Swap the firewall's table for what the rows ask for.
    PublishViews,
    /// Make the VMM's jail directory.
    CreateJail,
    /// Make the VMM's cgroup.
    CreateCgroup,
    /// Make the directory of the VM's sockets.
    MakeRuntimeDir,
    /// Remove what is in the directory of the VM's sockets.
    ClearSockets,
    /// Start a process.
    Spawn(Role),
    /// Wait for the guest's hello, and until its root is mounted and it runs commands.
    AwaitReady,
    /// Write `handles.json`.
    SaveHandles,
    /// Write the mirror into the row.
    SaveMirror,
    /// Rewrite `vm.json` from the row.
    SaveSelf,
    /// Wait until a process whose log is locked is proven, or is gone.
    SeekProof(Role),
    /// Ask the guest to sync and power off, and wait.
    AskPowerOff,
    /// Ask a process to end, and wait.
    Terminate(Role),
    /// Kill a process and await its end.
    Kill(Role),
    /// Remove the cgroup.
    RemoveCgroup,
    /// Remove the jail directory.
    RemoveJail,
    /// Delete the tap (and with it its membership of the bridge).
    DeleteTap,
    /// Remove the device-mapper device.
    RemoveDm,
    /// Detach a loop device.
    DetachLoop(Role),
    /// Remove the directory of the VM's sockets.
    RemoveRuntimeDir,
    /// Remove `handles.json`.
    ClearHandles,
    /// Write the file `deleted`, fsync.
    MarkDeleted,
    /// Rename the directory to `.trash-<id>`, fsync.
    MoveToTrash,
    /// Remove row and leases in one transaction.
    ForgetRow,
    /// Move the logs of a failed create out of the trash (R-HOST-7).
    KeepLogs,
    /// Unlink the trash.
    EmptyTrash,
    /// Write the phase. `Stopped` and `Error` clear the mirror in the same transaction.
    SetPhase {
        /// The new phase.
        phase: Phase,
        /// Why.
        reason: Option<Reason>,
    },
}

impl Action {
    /// True for the steps of the one teardown routine that are independent of each other: when
    /// one fails, the others are tried all the same (R-HOST-2). A process that will not die is not
    /// among them: nothing under it can be removed.
    pub const fn is_teardown(&self) -> bool {
        matches!(
            self,
            Action::RemoveCgroup
                | Action::RemoveJail
                | Action::PublishViews
                | Action::DeleteTap
                | Action::RemoveDm
                | Action::DetachLoop(_)
                | Action::RemoveRuntimeDir
        )
    }
}
