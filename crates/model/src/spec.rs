//! What the user asked a VM to be.

use crate::{ByteSize, Drivers, ImageConfig, Init, PublishedPort, Role, RootDriver};
use serde::{Deserialize, Serialize};

/// Where a value of the spec came from; printed by the `spec:` line and `doctor` (R-CLI-7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A flag of this request.
    Flag,
    /// The configuration file.
    Config,
    /// The image says so.
    Image,
    /// Derived from this host's CPUs and memory.
    Host,
    /// The product's own default.
    Builtin,
}

/// The shape of a VM. Every value is decided when the VM is created; nothing is looked up later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Image as the user named it.
    pub image: String,
    /// Id of the image: the digest it is pinned to (R-IMG-5).
    pub image_id: String,
    /// Length of the image's file: what a root disk that is a clone of it begins with.
    #[serde(default)]
    pub image_size: ByteSize,
    /// How the image says it is run; kept here because a VM may outlive its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_config: Option<ImageConfig>,
    /// Name of the kernel directory.
    pub kernel: String,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// Guest memory.
    pub memory: ByteSize,
    /// Room for changes to the system, whatever the root driver keeps them in.
    pub overlay_size: ByteSize,
    /// Size of the work disk at `/root`.
    pub disk_size: ByteSize,
    /// Whether the guest reaches beyond the host.
    pub nat: bool,
    /// Ports of the host that lead to the guest, decided for life: a free one that was asked for is one of these.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Deleted by the daemon when its command ends, client there or not (`--rm`, R-CLI-1).
    pub remove_on_exit: bool,
    /// Who is PID 1 in the guest (`--init`, R-GUEST-1).
    #[serde(default)]
    pub init: Init,
    /// Drivers, kept for life.
    pub drivers: Drivers,
    /// Channel token (hex of 16 bytes): what the agent's handshake scans for (design: agent
    /// channel). Secret enough that user data cannot hold it by accident.
    pub channel_token: String,
}

impl VmSpec {
    /// The size that the disk of this role is to have; `None` for roles that are no disk file.
    pub const fn disk_of(&self, role: Role) -> Option<ByteSize> {
        match role {
            Role::CowFile if matches!(self.drivers.root, RootDriver::Reflink) => {
                Some(root_disk(self.image_size, self.overlay_size))
            }
            Role::CowFile | Role::OverlayDisk => Some(self.overlay_size),
            Role::WorkDisk => Some(self.disk_size),
            _ => None,
        }
    }

    /// How much of the disk of this role is the image: nothing, but where the root is a clone of it. Whole MiB.
    pub const fn image_in(&self, role: Role) -> ByteSize {
        match (role, self.drivers.root) {
            (Role::CowFile, RootDriver::Reflink) => root_disk(self.image_size, ByteSize(0)),
            _ => ByteSize(0),
        }
    }
}

/// Length of a root disk that begins with an image of this length and has this room besides, in whole MiB.
pub const fn root_disk(image: ByteSize, room: ByteSize) -> ByteSize {
    let mib = ByteSize::mib(1).bytes();
    let image = image.bytes().div_ceil(mib).saturating_mul(mib);
    ByteSize(image.saturating_add(room.bytes()))
}
