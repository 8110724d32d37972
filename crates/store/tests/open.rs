//! Opening: what is missing, half made, newer, older, foreign or damaged is told apart, and never
//! written to (R-STATE-9, R-STATE-10). The schema holds no process id (R-STATE-1).
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use banger_store::{Error, SCHEMA_VERSION, Store};
use common::{INSTANCE, vm};
use rusqlite::Connection;
use std::{fs, path::Path};

/// Names and contents of everything in a directory.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            (
                e.file_name().into_string().unwrap(),
                fs::read(e.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

fn filled(path: &Path) {
    let store = Store::create(path, INSTANCE).unwrap();
    for n in 0..50 {
        store.insert_vm(&vm(n)).unwrap();
    }
}

#[test]
fn a_missing_database_is_said_to_be_missing_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    assert!(matches!(Store::open(&path), Err(Error::Missing { .. })));
    assert!(matches!(
        Store::open_read_only(&path),
        Err(Error::Missing { .. })
    ));
    assert!(snapshot(dir.path()).is_empty());
}

#[test]
fn a_making_cut_short_counts_as_missing_and_is_finished_by_create() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    fs::write(&path, b"").unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Missing { .. })));
    assert!(matches!(
        Store::open_read_only(&path),
        Err(Error::Missing { .. })
    ));
    drop(Store::create(&path, INSTANCE).unwrap());
    // Schema there, instance not: the step before the last.
    Connection::open(&path)
        .unwrap()
        .execute("DELETE FROM meta", [])
        .unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Missing { .. })));
    assert!(matches!(
        Store::open_read_only(&path),
        Err(Error::Missing { .. })
    ));
    drop(Store::create(&path, INSTANCE).unwrap());
    assert_eq!(Store::open(&path).unwrap().instance(), INSTANCE);
}

#[test]
fn create_never_takes_the_place_of_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    assert!(matches!(
        Store::create(&path, INSTANCE),
        Err(Error::Exists { .. })
    ));
    assert_eq!(Store::open(&path).unwrap().list().unwrap().len(), 50);
}

#[test]
fn reading_leaves_no_trace_and_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("50%?#home"); // characters an URI would take for its own
    fs::create_dir(&home).unwrap();
    let path = home.join("state.db");
    filled(&path);
    let before = snapshot(&home);
    let store = Store::open_read_only(&path).unwrap();
    assert_eq!(store.list().unwrap().len(), 50);
    assert!(store.insert_vm(&vm(99)).is_err());
    assert!(store.touch(vm(1).id, u64::MAX).is_err());
    drop(store);
    assert_eq!(snapshot(&home), before);
}

#[test]
fn a_reader_sees_what_a_living_writer_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let writer = Store::create(&path, INSTANCE).unwrap();
    writer.insert_vm(&vm(1)).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(reader.list().unwrap().len(), 1);
    writer.insert_vm(&vm(2)).unwrap();
    assert_eq!(reader.list().unwrap().len(), 2);
}

#[test]
fn a_newer_database_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let before = snapshot(dir.path());
    for opened in [
        Store::open(&path),
        Store::open_read_only(&path),
        Store::create(&path, INSTANCE),
    ] {
        match opened {
            Err(Error::Newer { found, known, .. }) => {
                assert_eq!((found, known), (SCHEMA_VERSION + 1, SCHEMA_VERSION))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_foreign_database_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    let before = snapshot(dir.path());
    for opened in [
        Store::open(&path),
        Store::open_read_only(&path),
        Store::create(&path, INSTANCE),
    ] {
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn damage_is_found_at_opening_whatever_page_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 8 * 4096);
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..][..2048].fill(0x5a);
        fs::write(&path, &bytes).unwrap();
        assert!(
            matches!(Store::open(&path), Err(Error::Damaged { .. })),
            "page {page}"
        );
    }
    for cut in [1, 100, 600, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(
            matches!(Store::open(&path), Err(Error::Damaged { .. })),
            "cut at {cut}: {:?}",
            Store::open(&path)
        );
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Store::open(&path).unwrap().list().unwrap().len(), 50);
}

#[test]
fn a_row_that_holds_no_vm_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    let raw = Connection::open(&path).unwrap();
    raw.execute("UPDATE vms SET spec = '{}' WHERE name = 'vm-7'", [])
        .unwrap();
    let store = Store::open(&path).unwrap();
    assert!(matches!(store.list(), Err(Error::Damaged { .. })));
    assert!(matches!(store.get(vm(7).id), Err(Error::Damaged { .. })));
    assert!(store.get(vm(8).id).unwrap().is_some());
}

#[test]
fn a_vm_without_its_lease_cannot_be_made_by_removing_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "foreign_keys", true).unwrap();
    assert!(raw.execute("DELETE FROM vms", []).is_err());
}

#[test]
fn no_process_id_is_ever_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    let raw = Connection::open(&path).unwrap();
    let mut columns = raw
        .prepare("SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'")
        .unwrap();
    let columns: Vec<String> = columns
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(columns.len() > 20, "{columns:?}");
    // A word of a name, so that `pid` is found in `vmm_pid` and not in `rapid`.
    let is_pid = |name: &str| {
        name.split(['_', '.', '-'])
            .any(|w| matches!(w, "pid" | "pids" | "process" | "processes" | "handles"))
    };
    assert!(is_pid("vms.vmm_pid") && !is_pid("vms.rapid"));
    let mut names = columns;
    for column in ["reason", "spec", "runtime", "mirror"] {
        let keys = format!(
            "SELECT DISTINCT t.key FROM vms, json_tree(vms.{column}) t WHERE typeof(t.key) = 'text'"
        );
        let mut keys = raw.prepare(&keys).unwrap();
        names.extend(
            keys.query_map([], |r| r.get::<_, String>(0))
                .unwrap()
                .map(Result::unwrap),
        );
    }
    assert!(
        names.iter().any(|n| n == "boot_id"),
        "the JSON was looked into: {names:?}"
    );
    let pids: Vec<_> = names.into_iter().filter(|n| is_pid(n)).collect();
    assert!(pids.is_empty(), "{pids:?}");
}
