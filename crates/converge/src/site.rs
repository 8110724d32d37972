//! Where one instance lives: every path of it, its bridge, its time limits.

use banger_model::{Instance, Label, Owner, Role, VmId};
use banger_plan::Pool;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// One instance on this machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// Identity of the state directory.
    pub instance: Instance,
    /// Durable state.
    pub state_dir: PathBuf,
    /// Sockets; gone after a reboot of the host.
    pub runtime_dir: PathBuf,
    /// The guest network.
    pub bridge: Bridge,
    /// Time limits.
    pub limits: Limits,
}

/// The instance's bridge and the network behind it.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// The host's address on it, and the prefix.
    pub pool: Pool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the VMM's start to the guest's hello.
    pub hello: Duration,
    /// From the hello to the guest's word that it is ready. Longer than the guest's own limit, so that its reason
    /// is heard.
    pub ready: Duration,
    /// Boots tried again when no hello came; nothing can be lost before the hello.
    pub boot_retries: u32,
    /// For the guest to power off (R-HOST-5).
    pub power_off: Duration,
    /// For a process to end when asked.
    pub terminate: Duration,
    /// For a killed process to be gone.
    pub kill: Duration,
    /// For a process whose log is locked to be proven.
    pub proof: Duration,
    /// For a device to be let go (R-HOST-3).
    pub busy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            hello: Duration::from_secs(60),
            ready: Duration::from_secs(75),
            boot_retries: 2,
            power_off: Duration::from_secs(10),
            terminate: Duration::from_secs(5),
            kill: Duration::from_secs(10),
            proof: Duration::from_secs(10),
            busy: Duration::from_secs(15),
        }
    }
}

/// Prefix of a directory whose VM has no data yet.
pub(crate) const CREATING: &str = ".creating-";
/// Prefix of a directory that is given up.
pub(crate) const TRASH: &str = ".trash-";

impl Site {
    /// `vms`, the directory of the VMs' directories.
    pub fn vms_dir(&self) -> PathBuf {
        self.state_dir.join("vms")
    }

    /// A VM's directory.
    pub fn vm_dir(&self, id: VmId) -> PathBuf {
        self.vms_dir().join(id.to_string())
    }

    /// A VM's directory before it holds data.
    pub fn creating_dir(&self, id: VmId) -> PathBuf {
        self.vms_dir().join(format!("{CREATING}{id}"))
    }

    /// A VM's directory after it was given up.
    pub fn trash_dir(&self, id: VmId) -> PathBuf {
        self.vms_dir().join(format!("{TRASH}{id}"))
    }

    /// The self-description in a VM's directory, wherever that is at the moment.
    pub fn self_description(dir: &Path) -> PathBuf {
        dir.join("vm.json")
    }

    /// `handles.json` of a VM.
    pub fn handles(&self, id: VmId) -> PathBuf {
        self.vm_dir(id).join("handles.json")
    }

    /// The tombstone on disk.
    pub fn deleted_marker(&self, id: VmId) -> PathBuf {
        self.vm_dir(id).join("deleted")
    }

    /// A data disk; `None` for a role that is no file.
    pub fn disk(&self, id: VmId, role: Role) -> Option<PathBuf> {
        role.file_name().map(|name| self.vm_dir(id).join(name))
    }

    /// stdout and stderr of a VM's process; its lock tells whether it lives.
    pub fn process_log(&self, id: VmId, role: Role) -> PathBuf {
        self.vm_dir(id).join(format!("{role}.log"))
    }

    /// What the guest prints on its console.
    pub fn console_log(&self, id: VmId) -> PathBuf {
        self.vm_dir(id).join("console.log")
    }

    /// The directory of a VM's sockets, 0700.
    pub fn sockets_dir(&self, id: VmId) -> PathBuf {
        self.runtime_dir.join(id.to_string())
    }

    /// Socket by which a VM's process is controlled, and proven.
    pub fn control_socket(&self, id: VmId, role: Role) -> PathBuf {
        self.sockets_dir(id).join(format!("{role}.sock"))
    }

    /// Socket of the agent channel.
    pub fn agent_socket(&self, id: VmId) -> PathBuf {
        self.sockets_dir(id).join("agent.sock")
    }

    /// Logs of failed operations (R-HOST-7).
    pub fn failed_dir(&self) -> PathBuf {
        self.state_dir.join("failed")
    }

    /// Name of the instance's nftables table.
    pub fn table(&self) -> String {
        banger_plan::ruleset::table_name(self.instance)
    }

    /// Label of a VM's object.
    pub fn label(&self, id: VmId, role: Role) -> Label {
        Label::vm(self.instance, id, role)
    }

    /// Label of the bridge: shared by the instance's VMs.
    pub fn bridge_label(&self) -> Label {
        Label {
            instance: self.instance,
            owner: Owner::Pool,
            role: Role::BridgePort,
        }
    }
}
