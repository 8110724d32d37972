//! The requests.

use crate::{Error, Result, open, row};
use banger_model::{Generation, Instance, Lease, Vm, VmId, VmName};
use rusqlite::{Connection, OptionalExtension, Params, TransactionBehavior};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The state database. One connection behind a mutex: a transaction is the unit of work, and the
/// daemon has one writer.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    path: PathBuf,
    instance: Instance,
}

/// What [`Store::recover_insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// There was no row.
    Inserted,
    /// The row was older and was replaced.
    Replaced,
    /// The row is as new or newer and stays.
    Kept,
}

/// What is leased, and what was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leases {
    /// Of every row, tombstones included: a dying VM still holds its own.
    pub held: Vec<Lease>,
    /// Addresses given back and not leased since, longest free first (R-NET-1).
    pub released: Vec<Ipv4Addr>,
}

impl Store {
    /// Makes the database of a new state directory. The caller has made sure that it is new: that no
    /// VM's directory is there (R-STATE-10). A making that was interrupted is finished.
    ///
    /// # Errors
    /// `Exists`, `Newer`, `Damaged`, or the disk failed.
    pub fn create(path: impl Into<PathBuf>, instance: Instance) -> Result<Store> {
        let path = path.into();
        let connection = open::create(&path, instance)?;
        Ok(Store {
            connection: Mutex::new(connection),
            path,
            instance,
        })
    }

    /// Opens a database, and brings it up to date.
    ///
    /// # Errors
    /// `Missing`, `Newer`, `Damaged`, or the disk failed.
    pub fn open(path: impl Into<PathBuf>) -> Result<Store> {
        let path = path.into();
        let connection = open::writable(&path)?;
        Store::of(connection, path)
    }

    /// Opens a database for reading: creates nothing, migrates nothing. Writing through it fails.
    ///
    /// # Errors
    /// `Missing`, `Newer`, `Older`, `Damaged`, or the disk failed.
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Store> {
        let path = path.into();
        let connection = open::read_only(&path)?;
        Store::of(connection, path)
    }

    fn of(connection: Connection, path: PathBuf) -> Result<Store> {
        let Some(instance) = open::instance(&connection, &path)? else {
            return Err(Error::Missing { path });
        };
        Ok(Store {
            connection: Mutex::new(connection),
            path,
            instance,
        })
    }

    /// The instance, made once with the database.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a VM: row, name and leases in one transaction.
    ///
    /// # Errors
    /// `AlreadyExists` with what is taken; nothing is then changed.
    pub fn insert_vm(&self, vm: &Vm) -> Result<()> {
        self.transaction(|t| row::insert(t, &self.path, vm))
    }

    /// The VM of this id.
    ///
    /// # Errors
    /// The database failed or is damaged.
    pub fn get(&self, id: VmId) -> Result<Option<Vm>> {
        self.select_one("WHERE v.id = ?1", [id.to_string()])
    }

    /// The VM of this name.
    ///
    /// # Errors
    /// The database failed or is damaged.
    pub fn by_name(&self, name: &VmName) -> Result<Option<Vm>> {
        self.select_one("WHERE v.name = ?1", [name.as_str()])
    }

    /// Every VM, by name.
    ///
    /// # Errors
    /// The database failed or is damaged.
    pub fn list(&self) -> Result<Vec<Vm>> {
        select(&self.lock(), &self.path, "ORDER BY v.name", [])
    }

    /// Replaces a VM's row if it still has the generation that the caller acted for. Id, owner, time
    /// of creation and leases stay for life; a new generation is the caller's to set.
    ///
    /// # Errors
    /// `Stale`, `NotFound`, `Immutable`, `AlreadyExists` (a new name that is taken).
    pub fn update(&self, expected: Generation, vm: &Vm) -> Result<()> {
        self.modify(vm.id, expected, |_| vm.clone()).map(drop)
    }

    /// Like [`Store::update`], with the new row made of the one that is there, in one transaction.
    /// Returns the new row.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn modify(
        &self,
        id: VmId,
        expected: Generation,
        change: impl FnOnce(&Vm) -> Vm,
    ) -> Result<Vm> {
        self.transaction(|t| {
            let there = select(t, &self.path, "WHERE v.id = ?1", [id.to_string()])?;
            let there = there.first().ok_or(Error::NotFound(id))?;
            if there.generation != expected {
                return Err(Error::Stale {
                    id,
                    expected,
                    found: there.generation,
                });
            }
            let vm = change(there);
            let what = match () {
                () if there.id != vm.id => "id",
                () if there.lease != vm.lease => "leases",
                () if there.created_at != vm.created_at => "time of creation",
                () if there.owner_uid != vm.owner_uid => "owner",
                () => return row::update(t, &self.path, &vm).map(|()| vm),
            };
            Err(Error::Immutable { id, what })
        })
    }

    /// Notes that a VM was used at this Unix time (R-SVC-7); never goes back. No new generation.
    ///
    /// # Errors
    /// `NotFound`, or the database failed.
    pub fn touch(&self, id: VmId, used_at: u64) -> Result<()> {
        let used_at = i64::try_from(used_at).unwrap_or(i64::MAX);
        let changed = self
            .lock()
            .execute(
                "UPDATE vms SET last_used_at = max(last_used_at, ?2) WHERE id = ?1",
                (id.to_string(), used_at),
            )
            .map_err(|e| open::classify(&self.path, "note a use", e))?;
        if changed == 0 {
            Err(Error::NotFound(id))
        } else {
            Ok(())
        }
    }

    /// Removes a VM: row and leases in one transaction. The last step of a delete, after the data.
    ///
    /// # Errors
    /// `NotFound`; `Stale` if the row does not have this generation.
    pub fn remove(&self, id: VmId, expected: Generation) -> Result<()> {
        self.transaction(|t| match generation(t, &self.path, id)? {
            None => Err(Error::NotFound(id)),
            Some(found) if found != expected => Err(Error::Stale {
                id,
                expected,
                found,
            }),
            Some(_) => row::remove(t, &self.path, id),
        })
    }

    /// Adds or replaces a VM from its directory's self-description (`banger recover`): the higher
    /// generation wins (R-STATE-8).
    ///
    /// # Errors
    /// `AlreadyExists` when another VM has its name or a lease; nothing is then changed.
    pub fn recover_insert(&self, vm: &Vm) -> Result<Recovered> {
        self.transaction(|t| match generation(t, &self.path, vm.id)? {
            None => row::insert(t, &self.path, vm).map(|()| Recovered::Inserted),
            Some(found) if found >= vm.generation => Ok(Recovered::Kept),
            Some(_) => {
                row::remove(t, &self.path, vm.id)?;
                row::insert(t, &self.path, vm).map(|()| Recovered::Replaced)
            }
        })
    }

    /// What is leased, and what was, at one moment.
    ///
    /// # Errors
    /// The database failed or is damaged.
    pub fn leases(&self) -> Result<Leases> {
        self.reading(|t| {
            let failed = |e| open::classify(&self.path, "read the leases", e);
            let held = row::leases(t).map_err(failed)?;
            let released = row::released(t).map_err(failed)?;
            let damaged = |source| Error::Damaged {
                path: self.path.clone(),
                source,
            };
            Ok(Leases {
                held: held.map_err(damaged)?,
                released: released.map_err(damaged)?,
            })
        })
    }

    fn select_one(&self, clause: &str, params: impl Params) -> Result<Option<Vm>> {
        Ok(select(&self.lock(), &self.path, clause, params)?.pop())
    }

    /// Runs in a transaction that is a writer from its first moment: a read-then-write never meets
    /// another writer in between.
    fn transaction<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.within(TransactionBehavior::Immediate, work)
    }

    /// Runs in a transaction that sees one moment.
    fn reading<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.within(TransactionBehavior::Deferred, work)
    }

    fn within<T>(
        &self,
        behaviour: TransactionBehavior,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let failed = |doing| move |source| open::classify(&self.path, doing, source);
        let transaction = connection
            .transaction_with_behavior(behaviour)
            .map_err(failed("begin a transaction"))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(failed("commit"))?;
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic within a transaction rolled it back; the connection is sound.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn select(
    connection: &Connection,
    path: &Path,
    clause: &str,
    params: impl Params,
) -> Result<Vec<Vm>> {
    let query = || {
        let mut statement = connection.prepare_cached(&format!("{} {clause}", row::SELECT))?;
        statement
            .query_map(params, row::read)?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = query().map_err(|e| open::classify(path, "read VMs", e))?;
    let vms: Result<Vec<Vm>, _> = rows.into_iter().collect();
    vms.map_err(|source| Error::Damaged {
        path: path.to_owned(),
        source,
    })
}

fn generation(connection: &Connection, path: &Path, id: VmId) -> Result<Option<Generation>> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT generation FROM vms WHERE id = ?1")
        .and_then(|mut s| s.query_row([id.to_string()], |row| row.get(0)).optional())
        .map_err(|e| open::classify(path, "read a VM's generation", e))?;
    Ok(found.map(|n| Generation(n.unsigned_abs())))
}
