//! Roles: what an object on the host is *for* in a VM. Declaration order is build order; teardown
//! is the exact reverse.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// The part an object plays in a VM, in build order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Read-only loop device over the image (dm-snapshot driver).
    BaseLoop,
    /// Sparse copy-on-write file of the dm snapshot, or the reflink clone. Data.
    CowFile,
    /// Loop device over the copy-on-write file.
    CowLoop,
    /// `/dev/mapper` snapshot over the two loops.
    DmSnapshot,
    /// Sparse ext4 joined with the base by overlayfs in the guest. Data.
    OverlayDisk,
    /// ext4 mounted at `/root`; outlives the root overlay. Data.
    WorkDisk,
    /// Persistent tap device.
    Tap,
    /// The tap's membership of the bridge.
    BridgePort,
    /// The VM's part of the one nftables view.
    NftView,
    /// Jail directory of the VMM.
    Jail,
    /// cgroup of the VMM and its helpers.
    Cgroup,
    /// A process that serves the VMM (user network, jailer); ends with it.
    Helper,
    /// The VMM process.
    Vmm,
}

impl Role {
    /// Every role in build order.
    pub const ALL: [Role; 13] = [
        Role::BaseLoop,
        Role::CowFile,
        Role::CowLoop,
        Role::DmSnapshot,
        Role::OverlayDisk,
        Role::WorkDisk,
        Role::Tap,
        Role::BridgePort,
        Role::NftView,
        Role::Jail,
        Role::Cgroup,
        Role::Helper,
        Role::Vmm,
    ];

    /// The name used in labels, in kebab case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::BaseLoop => "base-loop",
            Role::CowFile => "cow-file",
            Role::CowLoop => "cow-loop",
            Role::DmSnapshot => "dm-snapshot",
            Role::OverlayDisk => "overlay-disk",
            Role::WorkDisk => "work-disk",
            Role::Tap => "tap",
            Role::BridgePort => "bridge-port",
            Role::NftView => "nft-view",
            Role::Jail => "jail",
            Role::Cgroup => "cgroup",
            Role::Helper => "helper",
            Role::Vmm => "vmm",
        }
    }

    /// True for the files that hold a user's data: made only in phase *creating*, removed only by a
    /// tombstone (R-STATE-10).
    pub const fn is_data(self) -> bool {
        matches!(self, Role::CowFile | Role::OverlayDisk | Role::WorkDisk)
    }

    /// True for roles played by a process.
    pub const fn is_process(self) -> bool {
        matches!(self, Role::Helper | Role::Vmm)
    }

    /// File name of a data role inside the VM's directory.
    pub const fn file_name(self) -> Option<&'static str> {
        match self {
            Role::CowFile => Some("cow.img"),
            Role::OverlayDisk => Some("overlay.ext4"),
            Role::WorkDisk => Some("work.ext4"),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no role is called '{0}'")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        Role::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// A set of roles, iterated in build order.
pub type RoleSet = BTreeSet<Role>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_declaration_order_and_round_trips() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
            assert_eq!(role.is_data(), role.file_name().is_some());
        }
    }
}
