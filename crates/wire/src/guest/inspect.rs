//! What a guest looks like from inside: its sockets and what it uses.
//!
//! Everything that grows while a guest runs is a count since its boot; who looks twice knows what happened in between.

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::client::{ClientError, GuestClient};

/// Path of the method that lists listening sockets.
pub const PORTS_PATH: &str = "/v1/ports";
/// Path of the method that says what the guest uses.
pub const STATS_PATH: &str = "/v1/stats";
/// Path of the method that looks at the settings of the image's sshd.
pub const SSHD_PATH: &str = "/v1/sshd";

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A socket that waits for others: a listening TCP socket, or a UDP socket without a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListeningSocket {
    /// Protocol.
    pub protocol: Protocol,
    /// Address it is bound to; `*` is a process's pair of `0.0.0.0` and `::`.
    pub address: String,
    /// Port.
    pub port: u16,
    /// User that made it.
    pub uid: u32,
    /// A process that holds it: of several the one with the lowest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Name of that process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// The answer of the ports method: ordered by port, then protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The sockets.
    pub sockets: Vec<ListeningSocket>,
    /// There are more sockets, processes or descriptors than are looked at: something may be missing.
    #[serde(default)]
    pub truncated: bool,
}

/// The answer of the stats method. Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GuestStats {
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// Processors at work.
    pub cpus: u32,
    /// Time the processors worked since the boot, all together, in milliseconds.
    pub cpu_busy_ms: u64,
    /// Time they worked or idled since the boot, all together, in milliseconds.
    pub cpu_total_ms: u64,
    /// Load over 1, 5 and 15 minutes, in hundredths.
    pub load_hundredths: [u32; 3],
    /// Processes, the kernel's own included.
    pub processes: u32,
    /// Memory the kernel has to give.
    pub memory_total: u64,
    /// Memory that could be had without swapping.
    pub memory_available: u64,
    /// Swap space.
    pub swap_total: u64,
    /// Swap space in use.
    pub swap_used: u64,
    /// File systems.
    pub disks: Vec<DiskUse>,
    /// Network interfaces but for the loopback.
    pub network: Vec<NetworkUse>,
}

/// How full a file system is, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskUse {
    /// Where it is mounted.
    pub path: String,
    /// Its size.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// Free for anyone.
    pub available: u64,
}

/// What went through an interface since the boot, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetworkUse {
    /// Its name in the guest.
    pub name: String,
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
}

impl GuestClient {
    /// Lists the sockets that wait for others, with their processes.
    ///
    /// # Errors
    /// The session ended, or the agent refused.
    pub async fn ports(&self) -> Result<Ports, ClientError> {
        self.call(Method::GET, PORTS_PATH).await
    }

    /// What is wrong with the settings of the image's sshd, a sentence each; nothing where it has none.
    ///
    /// # Errors
    /// The session ended, or the agent refused.
    pub async fn sshd(&self) -> Result<Vec<String>, ClientError> {
        self.call(Method::GET, SSHD_PATH).await
    }

    /// Asks what the guest uses.
    ///
    /// # Errors
    /// The session ended, or the agent refused.
    pub async fn stats(&self) -> Result<GuestStats, ClientError> {
        self.call(Method::GET, STATS_PATH).await
    }
}
