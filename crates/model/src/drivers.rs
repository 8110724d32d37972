//! The drivers a VM was made with. Chosen once at create by a probe `doctor` can explain, then kept.

use crate::{Role, RoleSet};
use serde::{Deserialize, Serialize};

/// How the root disk is provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RootDriver {
    /// Shared read-only base and a sparse per-VM disk, joined by overlayfs in the guest. No root.
    Overlay,
    /// loop(base, ro) + loop(CoW file) joined by a dm snapshot. Root and device-mapper.
    DmSnapshot,
    /// A clone of the base file that shares its blocks (btrfs, xfs, bcachefs).
    Reflink,
}

/// How the guest reaches a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NetworkDriver {
    /// A user-mode stack; no root.
    User,
    /// A tap on the instance's bridge, NAT by nftables. Root.
    Bridge,
}

/// Which virtual machine monitor runs the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmmDriver {
    /// QEMU `microvm`: KVM where really usable, else pure emulation.
    Qemu,
    /// Firecracker, where hardware virtualisation is really usable.
    Firecracker,
}

/// The drivers of one VM and what else surrounds its VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drivers {
    /// VMM.
    pub vmm: VmmDriver,
    /// Root disk.
    pub root: RootDriver,
    /// Network.
    pub network: NetworkDriver,
    /// The VMM runs in a jail directory of its own.
    pub jail: bool,
    /// The VMM runs in a cgroup of its own.
    pub cgroup: bool,
    /// The VMM needs a helper process (passt for a user-mode network on a tap).
    pub helper: bool,
}

impl Drivers {
    /// QEMU, overlay, user network: works everywhere, without root.
    pub const EVERYWHERE: Drivers = Drivers {
        vmm: VmmDriver::Qemu,
        root: RootDriver::Overlay,
        network: NetworkDriver::User,
        jail: false,
        cgroup: false,
        helper: false,
    };

    /// The roles a VM with these drivers fills while it runs, data disks included.
    pub fn roles(&self) -> RoleSet {
        let mut roles = RoleSet::from([Role::WorkDisk, Role::Vmm]);
        match self.root {
            RootDriver::Overlay => roles.extend([Role::OverlayDisk]),
            RootDriver::Reflink => roles.extend([Role::CowFile]),
            RootDriver::DmSnapshot => {
                roles.extend([
                    Role::BaseLoop,
                    Role::CowFile,
                    Role::CowLoop,
                    Role::DmSnapshot,
                ]);
            }
        }
        if self.network == NetworkDriver::Bridge {
            roles.extend([Role::Tap, Role::BridgePort, Role::NftView]);
        }
        for (wanted, role) in [
            (self.jail, Role::Jail),
            (self.cgroup, Role::Cgroup),
            (self.helper, Role::Helper),
        ] {
            if wanted {
                roles.insert(role);
            }
        }
        roles
    }

    /// The roles that hold data: present from the end of *creating* to the tombstone.
    pub fn data_roles(&self) -> RoleSet {
        self.roles().into_iter().filter(|r| r.is_data()).collect()
    }
}
