//! What was seen of one VM: its directory, its objects on the host, its processes.

use banger_model::{
    BootId, DmName, Generation, Goal, ProcessHandle, Reason, Role, RoleSet, TapName, VmHandles,
};
use std::collections::BTreeMap;

/// Everything a decision about one VM depends on, besides its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// This boot.
    pub boot: BootId,
    /// Where the VM's directory is.
    pub dir: DirSeen,
    /// The file `deleted` stands in the directory: the tombstone on disk.
    pub deleted_marker: bool,
    /// What `vm.json` says; `None` if it is missing or unreadable.
    pub self_description: Option<SelfSeen>,
    /// `handles.json`.
    pub handles: HandlesSeen,
    /// Data disks; a role that is not in the map has no file at all.
    pub disks: BTreeMap<Role, DiskSeen>,
    /// Data disks that are shorter than the VM's spec says.
    pub short: RoleSet,
    /// Kernel objects that carry the VM's label.
    pub objects: BTreeMap<Role, ObjectSeen>,
    /// Processes.
    pub processes: BTreeMap<Role, ProcessSeen>,
    /// The directory of the VM's sockets.
    pub runtime_dir: RuntimeDirSeen,
    /// The instance's bridge is there, with its label (true where no VM of this kind needs one).
    pub bridge: bool,
    /// The firewall's table is what the rows ask for (true where this VM is not concerned).
    pub views_current: bool,
    /// Whether the guest said in this convergence that it is ready; cannot be seen, is told.
    pub agent: AgentSeen,
    /// How far a graceful stop went; cannot be seen, is told.
    pub grace: Grace,
    /// Why the VMM ended by itself, in its guest's last words; cannot be seen, is told.
    pub last_word: Option<Reason>,
}

/// Where a VM's directory is on its way from birth to death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirSeen {
    /// Nowhere.
    Missing,
    /// `vms/.creating-<id>`: holds no data yet.
    Creating,
    /// `vms/<id>`.
    Present,
    /// `vms/.trash-<id>`: given up, being unlinked.
    Trash,
}

/// What `vm.json` says about the last goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelfSeen {
    /// Which goal.
    pub generation: Generation,
    /// The goal.
    pub goal: Goal,
}

/// `handles.json` as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlesSeen {
    /// No file: no handles.
    Missing,
    /// Not readable as handles; why. Never stops cleanup (R-STATE-2).
    Corrupt(String),
    /// Whole. Void if of another boot.
    Present(VmHandles),
}

/// A data disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSeen {
    /// Only under its temporary name: perhaps half made.
    Part,
    /// Under its final name.
    Whole,
}

/// A kernel object that carries the VM's label, with the name the kernel knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectSeen {
    /// A loop device, by number.
    Loop(u32),
    /// A device-mapper device.
    Dm(DmName, DmStage),
    /// A tap, and the bridge it is a port of.
    Tap(TapName, Option<String>),
    /// A jail directory or a cgroup: the label is its name.
    Labelled,
}

/// How far a device-mapper device was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmStage {
    /// No table.
    Created,
    /// A table waits.
    Loaded,
    /// The table is live.
    Live,
}

/// A process of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessSeen {
    /// Proven alive (R-HOST-8).
    Alive(ProcessHandle),
    /// Ended, not reaped: dead for every purpose.
    Zombie,
    /// Its log's lock is held, by a process that cannot be proven (yet): just forked, or dying.
    LockHeldUnproven,
}

/// The directory of a VM's sockets under the runtime directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeDirSeen {
    /// Not there.
    Missing,
    /// There, empty.
    Empty,
    /// There, with sockets in it.
    Occupied,
}

/// What the guest's agent said since this boot of it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentSeen {
    /// Nothing yet.
    Silent,
    /// That it runs commands: its root is mounted.
    Ready,
}

/// How far a graceful stop went; each stage has its own time limit (R-HOST-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grace {
    /// The guest has not been asked.
    Fresh,
    /// The guest was asked to power off, and its time is over.
    GuestSpent,
    /// The VMM was asked to end as well, and its time is over; or no grace was wanted.
    Spent,
}

impl Observed {
    /// Nothing anywhere: the VM before its first effect.
    pub fn nothing(boot: BootId) -> Self {
        Observed {
            boot,
            dir: DirSeen::Missing,
            deleted_marker: false,
            self_description: None,
            handles: HandlesSeen::Missing,
            disks: BTreeMap::new(),
            short: RoleSet::new(),
            objects: BTreeMap::new(),
            processes: BTreeMap::new(),
            runtime_dir: RuntimeDirSeen::Missing,
            bridge: true,
            views_current: true,
            agent: AgentSeen::Silent,
            grace: Grace::Fresh,
            last_word: None,
        }
    }

    /// Handles of this boot; those of another are void without looking (R-STATE-7).
    pub fn valid_handles(&self) -> Option<&VmHandles> {
        match &self.handles {
            HandlesSeen::Present(handles) if handles.boot_id == self.boot => Some(handles),
            _ => None,
        }
    }

    /// True if a process of this role is, or may be, alive.
    pub fn may_live(&self, role: Role) -> bool {
        matches!(
            self.processes.get(&role),
            Some(ProcessSeen::Alive(_) | ProcessSeen::LockHeldUnproven)
        )
    }

    /// True if a process of this role is proven alive.
    pub fn lives(&self, role: Role) -> bool {
        matches!(self.processes.get(&role), Some(ProcessSeen::Alive(_)))
    }
}
