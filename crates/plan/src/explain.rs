//! An action as a sentence, for logs, progress and `--dry-run`.

use crate::Action;
use banger_model::{Phase, Role};

/// What an action does, as one sentence.
pub fn explain(action: &Action) -> String {
    match action {
        Action::EnterDir => "Give the VM's directory its name.".to_owned(),
        Action::GrowDisk(role) => format!("Grow the {}.", noun(*role)),
        Action::MakeDisk(role) => format!("Make the {}.", noun(*role)),
        Action::SyncDir => "Make the names of the disks durable.".to_owned(),
        Action::AttachLoop(role) => format!("Attach the {}.", noun(*role)),
        Action::CreateDm => "Create the root snapshot device.".to_owned(),
        Action::LoadDm => "Load the root snapshot's table.".to_owned(),
        Action::ResumeDm => "Make the root snapshot live.".to_owned(),
        Action::CreateTap => "Make the tap.".to_owned(),
        Action::CreateBridge => "Make the bridge.".to_owned(),
        Action::JoinBridge => "Make the tap a port of the bridge.".to_owned(),
        Action::PublishViews => "Renew the firewall's table.".to_owned(),
        Action::CreateJail => "Make the jail directory.".to_owned(),
        Action::CreateCgroup => "Make the cgroup.".to_owned(),
        Action::MakeRuntimeDir => "Make the directory of the VM's sockets.".to_owned(),
        Action::ClearSockets => "Remove sockets a dead VMM left.".to_owned(),
        Action::Spawn(role) => format!("Start the {}.", noun(*role)),
        Action::AwaitReady => "Wait until the guest is ready.".to_owned(),
        Action::SaveHandles => "Write down what the kernel gave us.".to_owned(),
        Action::SaveMirror => "Write it down in the database as well.".to_owned(),
        Action::SaveSelf => "Bring vm.json up to date with the database.".to_owned(),
        Action::SeekProof(role) => format!("Find out which process is the {}.", noun(*role)),
        Action::AskPowerOff => "Ask the guest to sync and power off.".to_owned(),
        Action::Terminate(role) => format!("Ask the {} to end.", noun(*role)),
        Action::Kill(role) => format!("Kill the {} and await its end.", noun(*role)),
        Action::RemoveCgroup => "Remove the cgroup.".to_owned(),
        Action::RemoveJail => "Remove the jail directory.".to_owned(),
        Action::DeleteTap => "Delete the tap.".to_owned(),
        Action::RemoveDm => "Remove the root snapshot device.".to_owned(),
        Action::DetachLoop(role) => format!("Detach the {}.", noun(*role)),
        Action::RemoveRuntimeDir => "Remove the directory of the VM's sockets.".to_owned(),
        Action::ClearHandles => "Forget what the kernel gave us.".to_owned(),
        Action::MarkDeleted => "Mark the VM's directory as deleted.".to_owned(),
        Action::MoveToTrash => "Move the VM's directory to the trash.".to_owned(),
        Action::ForgetRow => "Remove the VM from the database and free its leases.".to_owned(),
        Action::KeepLogs => "Keep the logs of the failed create.".to_owned(),
        Action::EmptyTrash => "Unlink the VM's files.".to_owned(),
        Action::SetPhase { phase, reason } => match reason {
            Some(reason) => format!("Call it {}: {}.", phase_name(*phase), reason.text),
            None => format!("Call it {}.", phase_name(*phase)),
        },
    }
}

/// A role in words.
pub const fn noun(role: Role) -> &'static str {
    match role {
        Role::BaseLoop => "loop device over the image",
        Role::CowFile => "copy-on-write file",
        Role::CowLoop => "loop device over the copy-on-write file",
        Role::DmSnapshot => "root snapshot device",
        Role::OverlayDisk => "overlay disk",
        Role::WorkDisk => "work disk",
        Role::Tap => "tap",
        Role::BridgePort => "bridge port",
        Role::NftView => "firewall rules",
        Role::Jail => "jail directory",
        Role::Cgroup => "cgroup",
        Role::Helper => "VMM's helper",
        Role::Vmm => "VMM",
    }
}

/// A phase in words.
pub const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Creating => "creating",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Deleting => "deleting",
        Phase::Error => "error",
    }
}
