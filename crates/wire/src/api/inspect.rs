//! Looking at VMs: health, ports, stats. None of these counts as a use of the VM (R-SVC-7).

use super::{PublishedView, VmState, request::vm_request};
use crate::guest::{GuestStats, ListeningSocket};
use banger_model::{VmId, VmName};
use serde::{Deserialize, Serialize};

vm_request!(
    /// `vm.health`: asks the guest how it is. A VM that is not well is an answer, not a failure.
    VmHealth
);

vm_request!(
    /// `vm.ports`: the sockets in the guest that wait for others.
    VmPorts
);

/// Longest time between the two looks of a `vm.stats`, in milliseconds.
pub const MAX_STATS_INTERVAL_MS: u32 = 10_000;

/// `vm.stats`: what a running VM uses. Who asks again and again sets `interval_ms` to 0 and computes shares of time
/// from the counts of two answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmStats {
    /// Reference: name, id, or unique id prefix.
    pub vm: String,
    /// Over how many milliseconds shares of time are measured, at most 10 000; 0 looks once and gives those since the
    /// boot. 250 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
}

/// Answer of `vm.health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthView {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// The VM runs, its agent answers, and commands can run.
    pub healthy: bool,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// State shown.
    pub state: VmState,
    /// What the agent said, if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentHealth>,
    /// What went wrong in the guest without stopping it.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What the agent of a guest said, and what was measured meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentHealth {
    /// Its version.
    pub version: String,
    /// Version of the guest channel's protocol.
    pub protocol: u16,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// The guest kernel's name of this boot.
    pub boot_id: String,
    /// The agent's name of this boot.
    pub boot_nonce: String,
    /// Milliseconds from a question to its answer.
    pub round_trip_ms: f64,
    /// The guest's clock less the host's, in milliseconds; known to half of the round trip. An older agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
}

/// Answer of `vm.ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortsView {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// The sockets, by port, then protocol.
    pub ports: Vec<ListeningSocket>,
    /// Ports of the host that lead to the guest.
    #[serde(default)]
    pub published: Vec<PublishedView>,
    /// There are more than are looked at.
    #[serde(default)]
    pub truncated: bool,
}

/// Answer of `vm.stats`. Sizes are bytes; shares of time are percent of one processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatsView {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// Unix time of the look, in milliseconds.
    pub at_ms: u64,
    /// Over how many milliseconds of the guest shares of time were measured.
    pub interval_ms: u64,
    /// What the guest's processors were at work; with two processors up to 200.
    pub cpu_percent: f64,
    /// Memory in use: what is not available.
    pub memory_used: u64,
    /// Load over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// What the guest says.
    pub guest: GuestStats,
    /// What it costs the host, if its VMM can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<VmmUse>,
}

/// What a VMM uses of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmmUse {
    /// Its process.
    pub pid: u32,
    /// Memory of the host that it holds.
    pub memory: u64,
    /// Processor time since it started, in milliseconds.
    pub cpu_ms: u64,
    /// What it was at work; the guest's processors are part of it.
    pub cpu_percent: f64,
}
