//! The state database of the simulation: rows in the [`World`](banger_host::sim::World), every
//! writing method one atomic, durable transaction and one counted effect.

use super::site;
use banger_converge::{Change, Ledger, LedgerError};
use banger_host::{
    Error, ErrorKind,
    sim::{Row, Rows, SimHost},
};
use banger_model::{Generation, Goal, Instance, Vm, VmId};
use banger_plan::{LeaseBook, Planted, planted::planted};

/// Rows of one instance, seen by one daemon.
#[derive(Debug)]
pub struct SimLedger<'a> {
    pub host: &'a SimHost,
    pub instance: Instance,
}

fn failed(error: Error) -> LedgerError {
    match error.kind {
        ErrorKind::Crashed => LedgerError::Crashed,
        _ => LedgerError::Failed(error.into()),
    }
}

fn expect(rows: &Rows, id: VmId, expected: Generation) -> Result<&Vm, LedgerError> {
    match rows.vms.get(&id).map(Row::vm) {
        None => Err(LedgerError::NotFound(id)),
        Some(vm) if vm.generation != expected => Err(LedgerError::Stale {
            id,
            expected,
            actual: vm.generation,
        }),
        Some(vm) => Ok(vm),
    }
}

/// Whether a row holds its leases.
fn holds(vm: &Vm) -> bool {
    let dying = vm.goal == Goal::Absent;
    let freed =
        planted(Planted::LeaseFreedBeforeTeardown) || planted(Planted::DyingVmAddressReused);
    !(dying && freed)
}

fn admit(rows: &Rows, new: &Vm) -> Result<(), LedgerError> {
    for vm in rows.vms.values().map(Row::vm).filter(|vm| vm.id != new.id) {
        if vm.name == new.name {
            return Err(LedgerError::AlreadyExists(new.name.to_string()));
        }
        let same = vm.lease.ip == new.lease.ip
            || vm.lease.mac == new.lease.mac
            || vm.lease.cid == new.lease.cid;
        if same && holds(vm) {
            return Err(LedgerError::LeaseTaken);
        }
    }
    Ok(())
}

fn put(rows: &mut Rows, vm: &Vm) {
    rows.released.retain(|ip| *ip != vm.lease.ip);
    rows.vms.insert(vm.id, Row::new(vm.clone()));
}

impl SimLedger<'_> {
    fn transaction<T>(
        &self,
        target: &str,
        act: impl FnOnce(&mut Rows) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.host
            .transaction(self.instance, target, act)
            .map_err(failed)?
    }
}

impl Ledger for SimLedger<'_> {
    fn vm(&self, id: VmId) -> Result<Option<Vm>, LedgerError> {
        let rows = self.host.rows(self.instance).map_err(failed)?;
        Ok(rows.vms.get(&id).map(|row| row.vm().clone()))
    }

    fn vms(&self) -> Result<Vec<Vm>, LedgerError> {
        let rows = self.host.rows(self.instance).map_err(failed)?;
        Ok(rows.vms.values().map(|row| row.vm().clone()).collect())
    }

    fn leases(&self) -> Result<LeaseBook, LedgerError> {
        let rows = self.host.rows(self.instance).map_err(failed)?;
        let held = || rows.vms.values().map(Row::vm).filter(|vm| holds(vm));
        Ok(LeaseBook {
            // Scarce, so that an address freed too early is soon given out again.
            addresses: held()
                .map(|vm| vm.lease.ip)
                .chain(site::reserved(self.instance))
                .collect(),
            cids: held().map(|vm| vm.lease.cid).collect(),
            released: rows.released.clone(),
        })
    }

    fn insert(&self, vm: &Vm) -> Result<(), LedgerError> {
        self.transaction("new row", |rows| {
            if rows.vms.contains_key(&vm.id) {
                return Err(LedgerError::AlreadyExists(vm.id.to_string()));
            }
            admit(rows, vm)?;
            put(rows, vm);
            Ok(())
        })
    }

    fn update(&self, id: VmId, expected: Generation, change: &Change) -> Result<(), LedgerError> {
        self.transaction("row", |rows| {
            let vm = change.apply(expect(rows, id, expected)?);
            if rows
                .vms
                .values()
                .any(|row| row.vm().id != id && row.vm().name == vm.name)
            {
                return Err(LedgerError::AlreadyExists(vm.name.to_string()));
            }
            rows.vms.insert(id, Row::new(vm));
            Ok(())
        })
    }

    fn remove(&self, id: VmId, expected: Generation) -> Result<(), LedgerError> {
        self.transaction("removed row", |rows| {
            let ip = expect(rows, id, expected)?.lease.ip;
            rows.vms.remove(&id);
            rows.released.push(ip);
            Ok(())
        })
    }

    fn adopt(&self, vm: &Vm) -> Result<bool, LedgerError> {
        self.transaction("adopted row", |rows| {
            if rows
                .vms
                .get(&vm.id)
                .is_some_and(|row| row.vm().generation >= vm.generation)
            {
                return Ok(false);
            }
            admit(rows, vm)?;
            put(rows, vm);
            Ok(true)
        })
    }
}
