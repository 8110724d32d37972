//! Connections into a guest, and ports of the host that lead to one.

use crate::guest::{ForwardTarget, PathBytes};
use banger_model::PublishedPort;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `vm.forward`: connects to a socket in a running VM; refused if nobody listens there. Upgrades: frames of type 0 from
/// the client, of type 1 to it, and of type 4 from either side when it has sent its last byte. The daemon says 12
/// when both have; a stream that ends before that was cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmForward {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// A TCP port; not with `socket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whose port, as the guest sees it; its own loopback, 127.0.0.1 or else ::1, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The absolute path of a Unix socket in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBytes>,
}

/// A published port as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublishedView {
    /// Where it leads.
    #[serde(flatten)]
    pub port: PublishedPort,
    /// The daemon listens there: the VM runs.
    pub listening: bool,
    /// Why it does not though the VM runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl VmForward {
    /// Where it leads.
    ///
    /// # Errors
    /// One sentence.
    pub fn target(&self) -> Result<ForwardTarget, &'static str> {
        match (self.port, &self.socket) {
            (Some(0), None) => Err("there is no port 0"),
            (Some(port), None) => Ok(ForwardTarget::new(self.host, port)),
            (None, Some(_)) if self.host.is_some() => Err("a Unix socket has no host"),
            (None, Some(path)) if !path.0.starts_with(b"/") || path.0.contains(&0) => {
                Err("the path of a socket begins with '/' and has no zero byte")
            }
            (None, Some(path)) => Ok(ForwardTarget::Unix(path.0.clone())),
            (None, None) | (Some(_), Some(_)) => Err("a connection leads to a port or to a socket"),
        }
    }
}
