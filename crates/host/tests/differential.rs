//! The simulation against the kernel: random scripts of effects, said to both
//! (docs/design/simulation.md, "Held against the kernel").
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "differential/mod.rs"]
mod differential;

use common::in_namespace;
use differential::{devices::DeviceGroup, files::FileGroup, jails::JailGroup};
use differential::{links::LinkGroup, processes::ProcessGroup, run};
use std::path::Path;

/// Not a test: what the process group starts.
#[test]
fn helper() {
    let Some(socket) = std::env::var_os(differential::processes::PLAY) else {
        return;
    };
    let _listener = (!socket.is_empty())
        .then(|| std::os::unix::net::UnixListener::bind(Path::new(&socket)).unwrap());
    // An end of its own, should its test die.
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn files_answer_alike() {
    run("files", 60, 60, FileGroup::new);
}

#[test]
fn jails_answer_alike() {
    run("jails", 30, 40, JailGroup::new);
}

#[test]
fn processes_answer_alike() {
    run("processes", 12, 40, ProcessGroup::new);
}

#[test]
fn loops_answer_alike() {
    needs_root!("loops_answer_alike");
    run("loops", 20, 40, || DeviceGroup::new(false));
}

#[test]
fn links_and_tables_answer_alike() {
    needs_root!("links_and_tables_answer_alike");
    let nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    let with_nft = nft.iter().any(|path| Path::new(path).exists());
    if !with_nft {
        common::skip("links_and_tables_answer_alike: no nft (package nftables), so without tables");
    }
    in_namespace(|| run("links", 12, 60, || LinkGroup::new(with_nft)));
}
