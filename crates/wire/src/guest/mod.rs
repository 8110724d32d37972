//! The guest channel: one byte stream between the daemon and the agent of one VM.
//!
//! From the bottom up: [`boot`] (what the agent is told before there is a channel), [`disks`] (what it keeps where), [`handshake`] (which
//! finds the start of a session in a stream that has no message boundary at a cut), [`h2`] (the windows both
//! ends set), [`exec`] and [`frame`] (what runs over one HTTP/2 stream), [`copy`] (files), [`forward`] (connections),
//! [`clock`] and [`inspect`] (calls of one message each way) and [`client`] (the host's end).
//! `docs/design/channel.md` has the protocol and the measurements it comes from.

mod body;
pub mod boot;
pub mod client;
pub mod clock;
pub mod connect;
pub mod copy;
pub mod disks;
pub mod exec;
pub mod forward;
pub mod frame;
pub mod h2;
pub mod handshake;
pub mod inspect;
pub mod last_word;

pub use banger_model::Init;
pub use banger_model::hex;
pub use boot::{BootFacts, Network, PowerOff, Root, SshFacts, StaticNetwork};
pub use client::{ClientError, ExecEvent, ExecInput, ExecOutput, ExecStream, GuestClient};
pub use clock::{ClockDone, ClockReading, ClockSet, Correction, Entropy};
pub use connect::{ConnectError, Connected, connect};
pub use copy::{CopyFrame, CopyIn, CopyOut, CopyOutcome, CopyRequest, CopyStream, PathBytes, Sum};
pub use exec::{
    AttachRequest, ExecFailure, ExecId, ExecRequest, ExitStatus, FailureKind, GuestState, Health,
    TtySize,
};
pub use forward::{ForwardEvent, ForwardInput, ForwardOutput, ForwardStream, ForwardTarget};
pub use handshake::{Ack, Hello, Nonce, Token};
pub use inspect::{DiskUse, GuestStats, ListeningSocket, NetworkUse, Ports, Protocol};

/// Where the per-VM facts lie in the initramfs; the content is a [`BootFacts`] as JSON.
pub const BOOT_FACTS_PATH: &str = "/banger/boot.json";

/// Where the module list lies in the initramfs; the content is a [`boot::ModuleList`] in its text form.
pub const MODULES_PATH: &str = "/banger/modules";

/// The virtio-serial port the agent listens on unless the facts name another.
pub const PORT_NAME: &str = "banger.agent";
