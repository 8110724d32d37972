//! Scripts: what users, guests and fate do, and when.

use super::site::Profile;
use banger_host::sim::Guest;
use banger_model::VmId;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create(&'static str, Profile),
    Start,
    Stop,
    Kill,
    Delete,
    Rename(&'static str),
    /// Work disk and overlay of so many GiB.
    Set(u8),
    /// Whether its guest reaches beyond the host.
    Nat(bool),
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A request for the n-th VM of an instance.
    Ask(usize, u8, Verb),
    /// A guest ends by itself.
    GuestEnds(usize, u8),
    /// The daemons are killed and started again.
    KillDaemons,
    /// The host loses power, and with it as much as it can of what was not synced.
    PowerLoss,
    /// `handles.json` is unreadable.
    CorruptHandles(usize, u8),
    /// `handles.json` is gone.
    LoseHandles(usize, u8),
    /// The row is gone.
    LoseRow(usize, u8),
    /// A data disk is gone.
    LoseDisk(usize, u8),
}

/// When it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When everything asked for before has been answered.
    Quiet,
    /// So many steps after the deed before it.
    After(u32),
}

/// A run of deeds on one machine.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: String,
    pub deeds: Vec<(When, Deed)>,
    pub guests: Vec<(VmId, Guest)>,
    /// A request of another thread, between two effects: just before this one.
    pub race: Option<(u64, Deed)>,
}

impl Script {
    pub fn new(name: &str, deeds: &[(When, Deed)]) -> Self {
        Script {
            name: name.to_owned(),
            deeds: deeds.to_vec(),
            guests: Vec::new(),
            race: None,
        }
    }

    pub fn with_guests(mut self, guests: &[(VmId, Guest)]) -> Self {
        self.guests = guests.to_vec();
        self
    }

    /// This script with a request that comes just before effect `at`.
    pub fn with_race(&self, at: u64, deed: Deed) -> Self {
        let mut script = self.clone();
        script.race = Some((at, deed));
        script.name = format!("{} / {deed:?} at {at}", self.name);
        script
    }
}
