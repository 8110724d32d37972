//! What the kernel gave us for a running VM. Transient: `handles.json`, never SQLite (R-STATE-1).

use crate::{BootId, DmName, Role, TapName};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// A process and what tells it from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessHandle {
    /// Process id.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat` (proc(5)): start time in clock ticks since boot.
    pub start_time: u64,
}

/// `handles.json`: a cache of what looking at the machine would find, and a hint where looking
/// cannot tell. A driver that has no such object leaves its field `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmHandles {
    /// Boot these handles belong to; of another boot they are void.
    pub boot_id: BootId,
    /// The VMM and its helpers.
    pub processes: BTreeMap<Role, ProcessHandle>,
    /// Tap device.
    pub tap: Option<TapName>,
    /// Number of the loop device over the base.
    pub base_loop: Option<u32>,
    /// Number of the loop device over the CoW file.
    pub cow_loop: Option<u32>,
    /// Device-mapper name.
    pub dm_name: Option<DmName>,
    /// Device-mapper node, `/dev/mapper/<name>`.
    pub dm_dev: Option<PathBuf>,
    /// cgroup directory.
    pub cgroup: Option<PathBuf>,
    /// Jail directory.
    pub jail: Option<PathBuf>,
    /// Network namespace.
    pub netns: Option<PathBuf>,
}

impl VmHandles {
    /// No handles yet in this boot.
    pub const fn none(boot_id: BootId) -> Self {
        VmHandles {
            boot_id,
            processes: BTreeMap::new(),
            tap: None,
            base_loop: None,
            cow_loop: None,
            dm_name: None,
            dm_dev: None,
            cgroup: None,
            jail: None,
            netns: None,
        }
    }

    /// The part of these handles that is mirrored into the durable row (R-STATE-4).
    pub fn mirror(&self) -> RecoveryMirror {
        RecoveryMirror {
            boot_id: self.boot_id.clone(),
            tap: self.tap.clone(),
            base_loop: self.base_loop,
            cow_loop: self.cow_loop,
            dm_name: self.dm_name.clone(),
        }
    }
}

/// Tap, loop and dm identity kept in the row as recovery state: a hint, read only when
/// `handles.json` is missing or corrupt (R-STATE-4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecoveryMirror {
    /// Boot the identities belong to.
    pub boot_id: BootId,
    /// Tap device.
    pub tap: Option<TapName>,
    /// Loop device over the base.
    pub base_loop: Option<u32>,
    /// Loop device over the CoW file.
    pub cow_loop: Option<u32>,
    /// Device-mapper name.
    pub dm_name: Option<DmName>,
}

impl RecoveryMirror {
    /// True when there is nothing to recover by.
    pub const fn is_empty(&self) -> bool {
        self.tap.is_none()
            && self.base_loop.is_none()
            && self.cow_loop.is_none()
            && self.dm_name.is_none()
    }
}
