//! Decisions, pure and total: no I/O, no clock, no randomness.
//!
//! [`reconcile`] is the heart: what is to be done about one VM, from its row and from what was
//! seen of it. The rest answers one question each: which lease is next ([`lease`]), what the
//! resolver and the firewall show ([`zone`], [`ruleset`]), whether the whole is sound ([`check`]),
//! how an action reads as a sentence ([`explain`]).

pub mod action;
pub mod alive;
pub mod check;
pub mod explain;
pub mod hints;
pub mod idle;
pub mod lease;
pub mod observed;
pub mod planted;
pub mod pressure;
pub mod reconcile;
pub mod reference;
pub mod ruleset;
pub mod zone;

#[cfg(test)]
mod fixtures;

pub use action::Action;
pub use alive::vm_alive;
pub use check::{Acknowledged, Finding, Whole, check};
pub use explain::explain;
pub use idle::stale;
pub use lease::{LeaseBook, LeaseError, Pool, lease};
pub use observed::{
    AgentSeen, DirSeen, DiskSeen, DmStage, Grace, HandlesSeen, ObjectSeen, Observed, ProcessSeen,
    RuntimeDirSeen, SelfSeen,
};
pub use planted::Planted;
pub use pressure::{Pressure, pressure};
pub use reconcile::{reconcile, rollback_goal};
pub use reference::{ReferenceError, resolve};
pub use ruleset::{NatPair, nat_pairs, ruleset};
pub use zone::zone;
