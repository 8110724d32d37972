//! The state database as the executor needs it: one method, one transaction.

use banger_model::{Generation, Goal, Phase, Reason, RecoveryMirror, Vm, VmId, VmName, VmSpec};
use banger_plan::LeaseBook;

/// Rows of VMs. Every method is one transaction, durable when it returns.
pub trait Ledger {
    /// The row, if there is one.
    fn vm(&self, id: VmId) -> Result<Option<Vm>, LedgerError>;
    /// All rows.
    fn vms(&self) -> Result<Vec<Vm>, LedgerError>;
    /// What is leased and what was.
    fn leases(&self) -> Result<LeaseBook, LedgerError>;
    /// A new row with its leases.
    fn insert(&self, vm: &Vm) -> Result<(), LedgerError>;
    /// [Applies](Change::apply) a change, if the row's generation is still `expected`.
    fn update(&self, id: VmId, expected: Generation, change: &Change) -> Result<(), LedgerError>;
    /// Removes the row and frees its leases, if the row's generation is still `expected`.
    fn remove(&self, id: VmId, expected: Generation) -> Result<(), LedgerError>;
    /// Inserts a row found on disk, or replaces one of an older generation; true if it did.
    fn adopt(&self, vm: &Vm) -> Result<bool, LedgerError>;
}

/// How a transaction failed. None of it was written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another request came first.
    #[error("VM {id} was given another goal meanwhile (generation {}, expected {})", .actual.0, .expected.0)]
    Stale {
        /// Which VM.
        id: VmId,
        /// What the caller knew.
        expected: Generation,
        /// What the row has.
        actual: Generation,
    },
    /// The name or the id is taken.
    #[error("a VM called '{0}' exists already")]
    AlreadyExists(String),
    /// An address, a MAC or a context id is taken.
    #[error("a lease of the new VM is held by another one")]
    LeaseTaken,
    /// No such row.
    #[error("VM {0} is not in the database")]
    NotFound(VmId),
    /// This process is dead (simulation only).
    #[error("the process died in a transaction")]
    Crashed,
    /// The database refused.
    #[error("the state database failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a transaction changes in a row; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A new goal, and with it the next generation.
    pub goal: Option<Goal>,
    /// A new shape.
    pub spec: Option<VmSpec>,
    /// Phase and why.
    pub phase: Option<(Phase, Option<Reason>)>,
    /// Recovery mirror; `Some(None)` clears it.
    pub mirror: Option<Option<RecoveryMirror>>,
    /// Last failure; `Some(None)` clears it.
    pub last_error: Option<Option<String>>,
    /// A new name, and with it the next generation: the newer of row and `vm.json` has it.
    pub name: Option<VmName>,
}

impl Change {
    /// The row after the change.
    pub fn apply(&self, vm: &Vm) -> Vm {
        let mut vm = vm.clone();
        if self.goal.is_some() || self.name.is_some() {
            vm.generation = vm.generation.next();
        }
        if let Some(goal) = self.goal {
            vm.goal = goal;
        }
        if let Some(name) = &self.name {
            vm.runtime.dns_name = name.dns();
            vm.name = name.clone();
        }
        if let Some(spec) = &self.spec {
            vm.spec.clone_from(spec);
        }
        if let Some((phase, reason)) = &self.phase {
            vm.phase = *phase;
            vm.reason.clone_from(reason);
        }
        if let Some(mirror) = &self.mirror {
            vm.mirror.clone_from(mirror);
        }
        if let Some(last_error) = &self.last_error {
            vm.last_error.clone_from(last_error);
        }
        vm
    }
}
