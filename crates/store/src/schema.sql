-- Version 1: the baseline. docs/on-disk.md describes it. STRICT: a column holds its type only.

PRAGMA application_id = 0x62616e67; -- "bang"; file(1) and we tell the file by it

-- Facts about the state directory itself. Keys: instance.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One VM. goal and generation: what was last asked for; phase and reason: how far it is.
-- reason, spec, runtime, mirror: JSON of the types of the same name in crates/model.
CREATE TABLE vms (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 12),
    name         TEXT    NOT NULL UNIQUE,
    owner_uid    INTEGER NOT NULL CHECK (owner_uid BETWEEN 0 AND 4294967295),
    goal         TEXT    NOT NULL CHECK (goal IN ('running', 'stopped', 'absent')),
    generation   INTEGER NOT NULL CHECK (generation >= 1),
    phase        TEXT    NOT NULL CHECK (phase IN ('creating', 'starting', 'running', 'stopping', 'stopped', 'deleting', 'error')),
    reason       TEXT    CHECK (json_valid(reason)),
    spec         TEXT    NOT NULL CHECK (json_valid(spec)),
    runtime      TEXT    NOT NULL CHECK (json_valid(runtime)),
    mirror       TEXT    CHECK (json_valid(mirror)),
    last_error   TEXT,
    created_at   INTEGER NOT NULL CHECK (created_at >= 0),   -- Unix seconds
    last_used_at INTEGER NOT NULL CHECK (last_used_at >= 0)  -- Unix seconds
) STRICT, WITHOUT ROWID;

-- What a VM holds from its row's first moment to its last. A lease without a VM cannot be.
CREATE TABLE leases (
    vm_id    TEXT    NOT NULL PRIMARY KEY REFERENCES vms (id),
    ip       TEXT    NOT NULL UNIQUE,
    mac      TEXT    NOT NULL UNIQUE,
    cid      INTEGER NOT NULL UNIQUE CHECK (cid BETWEEN 3 AND 4294967295)
) STRICT, WITHOUT ROWID;

-- Addresses given back, in that order: the one free the longest is leased next (R-NET-1), so that
-- an address is not at once somebody else's. One that is leased again leaves this table.
CREATE TABLE released (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    ip       TEXT    NOT NULL UNIQUE
) STRICT;
