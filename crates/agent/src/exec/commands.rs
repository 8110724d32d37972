//! The commands that have an id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_wire::guest::ExecId;
use banger_wire::guest::exec::ORPHAN_LIMIT;

use super::command::Command;
use crate::guest::Guest;

/// Commands at the same time, those that ended and were not collected included.
const MAX_COMMANDS: usize = 1024;

/// Every command that can be attached to.
#[derive(Debug, Default)]
pub struct Commands(Mutex<HashMap<ExecId, Arc<Command>>>);

/// What became of the wish for a command of an id.
pub enum Claim {
    /// It is new, and to be started.
    New(Arc<Command>),
    /// It is there.
    Known(Arc<Command>),
    /// There are too many.
    Full,
}

impl Commands {
    /// The command of this id, made if there is none.
    pub fn claim(&self, id: ExecId) -> Claim {
        let mut commands = self.lock();
        if let Some(command) = commands.get(&id) {
            return Claim::Known(Arc::clone(command));
        }
        if commands.len() >= MAX_COMMANDS {
            return Claim::Full;
        }
        let command = Arc::new(Command::unstarted(true));
        commands.insert(id, Arc::clone(&command));
        Claim::New(command)
    }

    /// The command of this id.
    pub fn get(&self, id: ExecId) -> Option<Arc<Command>> {
        self.lock().get(&id).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<Command>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a command when its host has left it, or when nobody has come back for it.
pub fn keep(guest: &Arc<Guest>, id: ExecId, command: Arc<Command>) {
    let guest = Arc::clone(guest);
    tokio::spawn(async move {
        tokio::select! {
            () = command.left() => {}
            () = command.orphaned(&guest, ORPHAN_LIMIT) => command.leave(),
        }
        guest.commands.lock().remove(&id);
    });
}
