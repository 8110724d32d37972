//! Faults: every effect is counted and named, and one of them can be made to go wrong.

use super::world::World;
use crate::{Effect, ErrorKind};

/// What happens at the chosen effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Injection {
    /// The daemon dies; the effect did not happen.
    CrashBefore,
    /// The daemon dies in the middle: the effect's n-th prefix.
    CrashMid(u8),
    /// The daemon dies; the effect happened, nobody was told.
    CrashAfter,
    /// The effect is refused, once.
    Error(ErrorKind),
    /// The effect and every later one of its kind is refused until the daemon ends.
    ErrorForEver(ErrorKind),
    /// The effect happened and is reported as failed.
    ErrorAfter(ErrorKind),
}

/// Which effect, counted from the start of this [`SimHost`](super::SimHost), and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Effects before it.
    pub at: u64,
    /// What happens.
    pub injection: Injection,
}

/// The world around one effect, recorded so that its crashes need no second run.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Which effect.
    pub effect: Effect,
    /// Before it.
    pub before: World,
    /// Its prefixes.
    pub middle: Vec<World>,
    /// After it.
    pub after: World,
}

/// How the machine refuses an effect of this kind, the likeliest first; empty where it cannot fail.
pub const fn plausible_errors(effect: Effect) -> &'static [ErrorKind] {
    use ErrorKind as K;
    match effect {
        Effect::Mkdir | Effect::WriteFile | Effect::MakeDisk | Effect::GrowDisk => {
            &[K::NoSpace, K::Other, K::Denied]
        }
        Effect::SyncFile | Effect::SyncDir | Effect::Rename => &[K::Other, K::NoSpace],
        Effect::LoopAttach => &[K::NoDevice, K::Busy, K::Other],
        Effect::LoopDetach | Effect::DmRemove | Effect::CgroupRemove => &[K::Busy, K::Other],
        Effect::DmCreate => &[K::Exists, K::NoDevice, K::Other],
        Effect::DmLoad | Effect::DmResume => &[K::Other, K::Busy],
        Effect::TapCreate | Effect::BridgeCreate => &[K::Denied, K::Exists, K::Other],
        Effect::SetMaster => &[K::NoDevice, K::Other],
        // That the link is not there would be the truth, never an error.
        Effect::LinkDelete => &[K::Other, K::Denied],
        Effect::Spawn => &[K::NoSpace, K::NotFound, K::Other],
        Effect::AwaitExit => &[K::TimedOut, K::Other],
        Effect::Ledger => &[K::NoSpace, K::Busy, K::Other],
        _ => &[K::Other],
    }
}
