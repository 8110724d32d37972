//! What can go wrong on the way to a goal.

use crate::LedgerError;
use banger_host::ErrorKind;
use banger_model::Role;
use banger_plan::{Action, explain, explain::noun};
use std::{path::PathBuf, time::Duration};

/// A driver that cannot say how something is made.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RecipeError {
    /// What could not be decided, and the way out.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Why an action, or looking, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An effect on the machine.
    #[error(transparent)]
    Host(#[from] banger_host::Error),
    /// A transaction.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A driver.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The guest did not say hello in time, nor in any boot after it.
    /// Where its console is to be found is for who knows whether the VM is kept to say.
    #[error("the guest did not say hello within {} s, in {boots} boots", .within.as_secs())]
    NoHello {
        /// Time limit of one boot.
        within: Duration,
        /// Boots tried.
        boots: u32,
        /// The guest's console log.
        console: PathBuf,
    },
    /// The guest said hello and then that it cannot run commands, or nothing more in time.
    #[error("{0}")]
    GuestFailed(String),
    /// The VMM ended before the guest was ready.
    #[error("the VMM ended before the guest was ready ({why})")]
    VmmEnded {
        /// What is known about its end.
        why: String,
        /// Its log.
        log: PathBuf,
    },
    /// A device was not let go in time.
    #[error("the {} was in use for {} s", noun(*.role), .within.as_secs())]
    StillBusy {
        /// Which object.
        role: Role,
        /// How long it was tried.
        within: Duration,
        /// The last refusal; it names the holder where the kernel tells.
        #[source]
        source: banger_host::Error,
    },
    /// A process holds the log's lock and is not the one we mean.
    #[error("something holds the lock of {} and is not provably the {}; nothing is removed while it lives", .log.display(), noun(*.role))]
    Unproven {
        /// Whose log.
        role: Role,
        /// The log.
        log: PathBuf,
    },
    /// An action needs an object that was not seen.
    #[error("the {} is not there", noun(*.0))]
    Vanished(Role),
    /// The plan never became empty: a fault of ours.
    #[error("no end after {0} looks at the VM; please report this with the daemon's log")]
    Endless(u32),
    /// A directory without a readable `vm.json`: what belongs to it cannot be told.
    #[error("{} has no readable vm.json, so nothing of it is removed; look into it and remove it by hand", .dir.display())]
    NotDescribed {
        /// The directory.
        dir: PathBuf,
    },
    /// JSON that could not be written.
    #[error("encode {what}")]
    Encode {
        /// Which file.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// True if this process is dead (simulation only): nothing more must be tried.
    pub fn crashed(&self) -> bool {
        match self {
            Error::Host(error) => error.kind == ErrorKind::Crashed,
            Error::StillBusy { source, .. } => source.kind == ErrorKind::Crashed,
            Error::Ledger(error) => matches!(error, LedgerError::Crashed),
            _ => false,
        }
    }

    /// True if it was found out by waiting for the guest.
    pub const fn of_guest(&self) -> bool {
        matches!(
            self,
            Error::NoHello { .. } | Error::GuestFailed(_) | Error::VmmEnded { .. }
        )
    }

    /// True if another request came first.
    pub const fn superseded(&self) -> bool {
        matches!(
            self,
            Error::Ledger(LedgerError::Stale { .. } | LedgerError::NotFound(_))
        )
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", step(.action.as_ref()))]
pub struct Failure {
    /// The action; `None` if it was looking that failed.
    pub action: Option<Action>,
    /// Why.
    #[source]
    pub error: Error,
}

fn step(action: Option<&Action>) -> String {
    match action {
        Some(action) => format!("failed: {}", explain(action).trim_end_matches('.')),
        None => "failed: Look at the VM".to_owned(),
    }
}

/// An error and all its sources as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
