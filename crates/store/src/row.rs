//! A [`Vm`] as a row, and back.

use crate::{Error, Result, Unique, open};
use banger_model::{Generation, Lease, Vm, VmId};
use rusqlite::{Connection, ErrorCode, Row, named_params};
use serde::{Deserialize, Serialize, de::IntoDeserializer};
use std::{net::Ipv4Addr, path::Path};

/// What [`read`] reads; every query of VMs begins with it.
pub(crate) const SELECT: &str = "SELECT v.id, v.name, v.owner_uid, v.goal, v.generation, v.phase, v.reason, v.spec, \
     v.runtime, v.mirror, v.last_error, v.created_at, v.last_used_at, l.ip, l.mac, l.cid \
     FROM vms v LEFT JOIN leases l ON l.vm_id = v.id";

type Cell<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Reads a row of [`SELECT`]. The inner error is a row that does not hold a VM: damage.
pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Cell<Vm>> {
    let text = |i: usize| row.get_ref(i).and_then(|v| v.as_str().map_err(Into::into));
    let maybe = |i: usize| {
        row.get_ref(i)
            .and_then(|v| v.as_str_or_null().map_err(Into::into))
    };
    let number = |i: usize| row.get::<_, i64>(i);
    let lease = (maybe(13)?, maybe(14)?, row.get::<_, Option<i64>>(15)?);
    Ok((|| {
        let (Some(ip), Some(mac), Some(cid)) = lease else {
            return Err("a VM without leases".into());
        };
        Ok(Vm {
            id: text(0)?.parse()?,
            name: text(1)?.parse()?,
            owner_uid: number(2)?.try_into()?,
            goal: word(text(3)?)?,
            generation: Generation(number(4)?.try_into()?),
            phase: word(text(5)?)?,
            reason: maybe(6)?.map(serde_json::from_str).transpose()?,
            spec: serde_json::from_str(text(7)?)?,
            lease: Lease {
                ip: ip.parse()?,
                mac: mac.parse()?,
                cid: cid.try_into()?,
            },
            runtime: serde_json::from_str(text(8)?)?,
            mirror: maybe(9)?.map(serde_json::from_str).transpose()?,
            last_error: maybe(10)?.map(str::to_owned),
            created_at: number(11)?.try_into()?,
            last_used_at: number(12)?.try_into()?,
        })
    })())
}

/// Inserts a VM and its leases.
pub(crate) fn insert(connection: &Connection, path: &Path, vm: &Vm) -> Result<()> {
    let sql = "INSERT INTO vms (id, name, owner_uid, goal, generation, phase, reason, spec, runtime, mirror, \
         last_error, created_at, last_used_at) VALUES (:id, :name, :owner_uid, :goal, :generation, :phase, \
         :reason, :spec, :runtime, :mirror, :last_error, :created_at, :last_used_at)";
    write(connection, sql, vm).map_err(|e| unique(path, vm, "insert a VM", e))?;
    let lease = || {
        connection
            .prepare_cached("INSERT INTO leases (vm_id, ip, mac, cid) VALUES (?1, ?2, ?3, ?4)")?
            .execute((
                vm.id.to_string(),
                vm.lease.ip.to_string(),
                vm.lease.mac.to_string(),
                vm.lease.cid,
            ))?;
        connection
            .prepare_cached("DELETE FROM released WHERE ip = ?1")?
            .execute([vm.lease.ip.to_string()])
    };
    lease().map_err(|e| unique(path, vm, "lease", e)).map(drop)
}

/// Overwrites everything of a row but its id and leases.
pub(crate) fn update(connection: &Connection, path: &Path, vm: &Vm) -> Result<()> {
    let sql = "UPDATE vms SET name = :name, owner_uid = :owner_uid, goal = :goal, generation = :generation, \
         phase = :phase, reason = :reason, spec = :spec, runtime = :runtime, mirror = :mirror, \
         last_error = :last_error, created_at = :created_at, last_used_at = :last_used_at WHERE id = :id";
    write(connection, sql, vm).map_err(|e| unique(path, vm, "update a VM", e))
}

/// Removes a VM and gives its leases back.
pub(crate) fn remove(connection: &Connection, path: &Path, id: VmId) -> Result<()> {
    let id = id.to_string();
    let run = || {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO released (ip) SELECT ip FROM leases WHERE vm_id = ?1",
            )?
            .execute([&id])?;
        connection
            .prepare_cached("DELETE FROM leases WHERE vm_id = ?1")?
            .execute([&id])?;
        connection
            .prepare_cached("DELETE FROM vms WHERE id = ?1")?
            .execute([&id])
    };
    run()
        .map_err(|e| open::classify(path, "remove a VM", e))
        .map(drop)
}

/// The leases of every VM.
pub(crate) fn leases(connection: &Connection) -> rusqlite::Result<Cell<Vec<Lease>>> {
    let mut statement =
        connection.prepare_cached("SELECT ip, mac, cid FROM leases ORDER BY vm_id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    let parse = |(ip, mac, cid): (String, String, i64)| {
        Ok(Lease {
            ip: ip.parse()?,
            mac: mac.parse()?,
            cid: cid.try_into()?,
        })
    };
    Ok(rows.into_iter().map(parse).collect())
}

/// Addresses given back, longest free first.
pub(crate) fn released(connection: &Connection) -> rusqlite::Result<Cell<Vec<Ipv4Addr>>> {
    let mut statement = connection.prepare_cached("SELECT ip FROM released ORDER BY position")?;
    let rows: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows
        .iter()
        .map(|ip| ip.parse().map_err(Into::into))
        .collect())
}

fn write(connection: &Connection, sql: &str, vm: &Vm) -> rusqlite::Result<()> {
    connection
        .prepare_cached(sql)?
        .execute(named_params! {
            ":id": vm.id.to_string(),
            ":name": vm.name.as_str(),
            ":owner_uid": vm.owner_uid,
            ":goal": name_of(&vm.goal)?,
            ":generation": integer(vm.generation.0)?,
            ":phase": name_of(&vm.phase)?,
            ":reason": vm.reason.as_ref().map(json).transpose()?,
            ":spec": json(&vm.spec)?,
            ":runtime": json(&vm.runtime)?,
            ":mirror": vm.mirror.as_ref().map(json).transpose()?,
            ":last_error": vm.last_error,
            ":created_at": integer(vm.created_at)?,
            ":last_used_at": integer(vm.last_used_at)?,
        })
        .map(drop)
}

/// Says which value is taken already, from SQLite's `UNIQUE constraint failed: table.column`.
fn unique(path: &Path, vm: &Vm, doing: &'static str, error: rusqlite::Error) -> Error {
    let taken = |what: Unique, value: String| Error::AlreadyExists { what, value };
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        let text = error.to_string();
        let names = |column: &str| text.contains("UNIQUE") && text.ends_with(column);
        if names("vms.id") || names("leases.vm_id") {
            return taken(Unique::Id, vm.id.to_string());
        } else if names("vms.name") {
            return taken(Unique::Name, vm.name.to_string());
        } else if names("leases.ip") {
            return taken(Unique::Ip, vm.lease.ip.to_string());
        } else if names("leases.mac") {
            return taken(Unique::Mac, vm.lease.mac.to_string());
        } else if names("leases.cid") {
            return taken(Unique::Cid, vm.lease.cid.to_string());
        }
    }
    open::classify(path, doing, error)
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

/// The name a unit variant is serialised as.
fn name_of(value: &impl Serialize) -> rusqlite::Result<String> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

/// The unit variant of that name.
fn word<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, serde::de::value::Error> {
    T::deserialize(text.into_deserializer())
}

/// SQLite's integers have 63 bits.
fn integer(n: u64) -> rusqlite::Result<i64> {
    i64::try_from(n).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}
