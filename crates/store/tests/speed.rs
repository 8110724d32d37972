//! `banger ps` with a thousand rows is a read of a thousand rows.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use banger_store::Store;
use common::{INSTANCE, vm};
use std::time::{Duration, Instant};

#[test]
fn a_thousand_rows_are_listed_in_milliseconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::create(&path, INSTANCE).unwrap();
    for n in 0..1000 {
        store.insert_vm(&vm(n)).unwrap();
    }
    drop(store);
    let open = Instant::now();
    let store = Store::open(&path).unwrap();
    let open = open.elapsed();
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(store.list().unwrap().len(), 1000);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "open with check {open:?}, list fastest {:?}, median {:?}, file {} KiB",
        times[0],
        times[10],
        path.metadata().unwrap().len() / 1024
    );
    // The fastest, because other tests share the processors. The promise is for optimised code;
    // unoptimised, parsing JSON is several times slower.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 5 });
    assert!(times[0] < limit, "{:?}", times[0]);
}
