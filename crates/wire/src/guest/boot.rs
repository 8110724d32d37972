//! What the agent is told before there is a channel: two files in the initramfs.
//!
//! The facts travel as a second, tiny cpio appended to the initramfs, so that no image is patched to boot and
//! the big first cpio (kernel modules and agent) is shared by all VMs of a kernel.

use std::net::Ipv4Addr;

use banger_model::Init;
use serde::{Deserialize, Serialize};

use super::handshake::Token;

/// The per-VM facts, JSON at [`super::BOOT_FACTS_PATH`].
///
/// Disks are named by the `serial=` of their virtio-blk device (at most 20 bytes, as the guest reads it from
/// `/sys/block/vd*/serial`), never by their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// The guest's host name.
    pub hostname: String,
    /// The secret that starts every hello on this VM's channel.
    pub token: Token,
    /// Name of the virtio-serial port.
    #[serde(default = "default_port")]
    pub port: String,
    /// Where the root file system comes from.
    pub root: Root,
    /// Serial of the work disk (ext4, mounted at `/root`), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// Serial of the disk with the kernel's modules (ext4, read-only, mounted at `/lib/modules/<release>`), if there is
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
    /// The first network interface.
    #[serde(default)]
    pub network: Network,
    /// How this VMM is told to end.
    #[serde(default)]
    pub power_off: PowerOff,
    /// Who is PID 1 once the root is there.
    #[serde(default)]
    pub init: Init,
    /// What an sshd of the image is to be known by and whom it is to let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshFacts>,
}

/// Keys for an sshd of the image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshFacts {
    /// The VM's private ed25519 host key in OpenSSH's form.
    pub host_key: String,
    /// The public one: type, key and comment on one line.
    pub host_public_key: String,
    /// The public key of whom to let in as root, on one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_key: Option<String>,
}

/// Without the private key.
impl std::fmt::Debug for SshFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshFacts")
            .field("host_public_key", &self.host_public_key)
            .field("authorized_key", &self.authorized_key)
            .finish_non_exhaustive()
    }
}

fn default_port() -> String {
    super::PORT_NAME.to_owned()
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Root {
    /// A shared read-only base (ext4) under a per-VM disk (ext4), joined by overlayfs in the guest.
    Overlay {
        /// Serial of the base disk; attached read-only.
        base: String,
        /// Serial of the per-VM disk that takes all changes.
        overlay: String,
    },
    /// One writable ext4 disk (dm-snapshot, reflink).
    Disk {
        /// Serial of the root disk.
        serial: String,
    },
}

/// What the agent does with the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Network {
    /// Only the loopback interface is brought up.
    #[default]
    None,
    /// One interface gets a fixed IPv4 address.
    Static(StaticNetwork),
}

/// A fixed IPv4 configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticNetwork {
    /// MAC address (`52:54:00:…`, lower case) of the interface; the first card if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits, 0 to 32.
    pub prefix: u8,
    /// Default route, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers for `/etc/resolv.conf`; the file is left alone if the list is empty.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
}

impl StaticNetwork {
    /// What QEMU's user-mode network (`-netdev user`) gives its first guest by default.
    pub fn qemu_user() -> Self {
        Self {
            mac: None,
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3)],
        }
    }
}

/// The call that makes this VMM exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerOff {
    /// `RB_POWER_OFF`: QEMU exits.
    #[default]
    PowerOff,
    /// `RB_AUTOBOOT` with `reboot=k`: Firecracker exits; it never does on `RB_POWER_OFF`.
    Reboot,
}

/// The kernel modules to load, as paths inside the initramfs, each list in dependency order.
///
/// Text form, at [`super::MODULES_PATH`]: one line per module, `first PATH` or `second PATH`; empty lines and
/// lines starting with `#` mean nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleList {
    /// Loaded before the port is opened: virtio_mmio, virtio_blk, virtio_console.
    pub first: Vec<String>,
    /// Loaded after the port is open: overlay, virtio_net and the rest.
    pub second: Vec<String>,
}

/// A line of the module list that is neither `first PATH` nor `second PATH`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the module list is neither `first PATH` nor `second PATH`: {text:?}")]
pub struct ModuleListError {
    /// Line number, counted from 1.
    pub line: usize,
    /// The line as it stands.
    pub text: String,
}

impl ModuleList {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, ModuleListError> {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(' ') {
                Some(("first", path)) => list.first.push(path.trim().to_owned()),
                Some(("second", path)) => list.second.push(path.trim().to_owned()),
                _ => {
                    return Err(ModuleListError {
                        line: index + 1,
                        text: line.to_owned(),
                    });
                }
            }
        }
        Ok(list)
    }

    /// Writes the text form.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (stage, paths) in [("first", &self.first), ("second", &self.second)] {
            for path in paths {
                text.push_str(stage);
                text.push(' ');
                text.push_str(path);
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_this_json() {
        let facts = BootFacts {
            hostname: "dev".into(),
            token: Token([0xab; 16]),
            port: default_port(),
            root: Root::Overlay {
                base: "base".into(),
                overlay: "overlay".into(),
            },
            work: Some("work".into()),
            modules: Some("modules".into()),
            network: Network::Static(StaticNetwork::qemu_user()),
            power_off: PowerOff::PowerOff,
            init: Init::Image,
            ssh: Some(SshFacts {
                host_key: "private\n".into(),
                host_public_key: "public".into(),
                authorized_key: Some("user".into()),
            }),
        };
        let json = r#"{"hostname":"dev","token":"abababababababababababababababab","port":"banger.agent","root":{"kind":"overlay","base":"base","overlay":"overlay"},"work":"work","modules":"modules","network":{"kind":"static","address":"10.0.2.15","prefix":24,"gateway":"10.0.2.2","dns":["10.0.2.3"]},"power_off":"power_off","init":"image","ssh":{"host_key":"private\n","host_public_key":"public","authorized_key":"user"}}"#;
        assert_eq!(serde_json::to_string(&facts).unwrap(), json);
        assert_eq!(serde_json::from_str::<BootFacts>(json).unwrap(), facts);
    }

    #[test]
    fn short_facts_get_defaults() {
        let json = format!(
            r#"{{"hostname":"a","token":"{}","root":{{"kind":"disk","serial":"root"}}}}"#,
            "01".repeat(16)
        );
        let facts: BootFacts = serde_json::from_str(&json).unwrap();
        assert_eq!(facts.network, Network::None);
        assert_eq!(facts.work, None);
        assert_eq!(facts.ssh, None);
        assert_eq!(facts.port, "banger.agent");
        assert_eq!(facts.power_off, PowerOff::PowerOff);
    }

    #[test]
    fn token_must_be_32_digits() {
        let json = r#"{"hostname":"a","token":"abc","root":{"kind":"disk","serial":"root"}}"#;
        let error = serde_json::from_str::<BootFacts>(json)
            .unwrap_err()
            .to_string();
        assert!(error.contains("32 hexadecimal digits"), "{error}");
    }

    #[test]
    fn module_list_round_trip() {
        let list = ModuleList {
            first: vec![
                "/modules/virtio_mmio.ko".into(),
                "/modules/virtio_blk.ko".into(),
            ],
            second: vec!["/modules/overlay.ko".into()],
        };
        assert_eq!(ModuleList::parse(&list.render()), Ok(list));
        let wrong = ModuleList::parse("# ok\n\nfirst /a\nthird /b\n").unwrap_err();
        assert_eq!(wrong.line, 4);
    }
}
