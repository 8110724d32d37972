//! A writer killed with SIGKILL at any moment: what it acknowledged is there, whole, and nothing
//! half done is.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use banger_model::{Generation, Phase, Vm};
use banger_store::Store;
use common::{INSTANCE, vm};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: u32 = 12;
const CHILD: &str = "STORE_CRASH_TEST_DATABASE";

/// The child: inserts, updates, removes, and says so after each commit, until it is killed.
#[test]
#[ignore = "the part of the child of the test below"]
fn writer() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::open(path).unwrap();
    let start = store
        .list()
        .unwrap()
        .iter()
        .map(|v| v.created_at - 1_700_000_000)
        .max()
        .unwrap_or(0) as u32;
    let mut out = std::io::stdout();
    for n in start + 1.. {
        let new = vm(n);
        store.insert_vm(&new).unwrap();
        writeln!(out, "\ninserted {n}").unwrap();
        store
            .update(
                Generation::FIRST,
                &Vm {
                    phase: Phase::Stopped,
                    generation: Generation(2),
                    ..new
                },
            )
            .unwrap();
        writeln!(out, "\nupdated {n}").unwrap();
        if n > 20 && store.get(vm(n - 20).id).unwrap().is_some() {
            store.remove(vm(n - 20).id, Generation(2)).unwrap();
            writeln!(out, "\nremoved {}", n - 20).unwrap();
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    drop(Store::create(&path, INSTANCE).unwrap());
    let mut total = 0;
    for round in 0..ROUNDS {
        let said = kill_a_writer(&path, Duration::from_millis(40 + 17 * u64::from(round)));
        total += said.len();
        // Opening runs the quick check; the full one looks at every index as well.
        let store = Store::open(&path).unwrap();
        let raw = rusqlite::Connection::open(&path).unwrap();
        let check: String = raw
            .query_row("PRAGMA integrity_check", [], |r| r.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        let orphans: i64 = raw
            .query_row(
                "SELECT (SELECT count(*) FROM vms) - (SELECT count(*) FROM leases)",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(orphans, 0);
        let there = store.list().unwrap();
        for (verb, n) in said {
            let row = there.iter().find(|v| v.id == vm(n).id);
            // A later step may have been committed and not said any more: only the very last.
            match verb.as_str() {
                "removed" => assert!(row.is_none(), "{n} is back"),
                "inserted" | "updated" => {
                    if let Some(row) = row {
                        let updated =
                            row.generation == Generation(2) && row.phase == Phase::Stopped;
                        assert!(updated || verb == "inserted", "{n} is an older {row:?}");
                    } else {
                        let last =
                            there.iter().map(|v| v.created_at).max().unwrap_or(0) - 1_700_000_000;
                        assert!(u64::from(n) + 20 <= last, "{n} is lost");
                    }
                }
                other => panic!("{other}"),
            }
        }
        // A VM the writer was killed over before it updated it would never be updated: finish it.
        for row in there
            .into_iter()
            .filter(|v| v.generation == Generation::FIRST)
        {
            let done = Vm {
                phase: Phase::Stopped,
                generation: Generation(2),
                ..row
            };
            store.update(Generation::FIRST, &done).unwrap();
        }
    }
    assert!(total > 50, "the writers did next to nothing: {total}");
}

/// Runs the writer for a while, kills it, and returns what it said.
#[allow(
    clippy::disallowed_methods,
    reason = "the test's own child, to be killed; no program of the product"
)]
fn kill_a_writer(path: &Path, time: Duration) -> Vec<(String, u32)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "writer", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut said = Vec::new();
    let mut parse = |line: String| {
        if let Some((verb, n)) = line.split_once(' ')
            && let Ok(n) = n.parse()
            && ["inserted", "updated", "removed"].contains(&verb)
        {
            said.push((verb.to_owned(), n));
        }
    };
    // Count the time from the first commit on, not from the exec.
    let mut first = lines
        .by_ref()
        .skip_while(|line| !line.starts_with("inserted"));
    parse(
        first
            .next()
            .expect("the writer ended before its first commit"),
    );
    let end = Instant::now() + time;
    while Instant::now() < end {
        parse(first.next().unwrap());
    }
    child.kill().unwrap();
    first.for_each(parse);
    child.wait().unwrap();
    said
}
