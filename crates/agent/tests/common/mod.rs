//! The agent of this build as a process of its own, and commands in it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::time::{Duration, Instant};

use banger_testkit::{LocalGuest, skip};
use banger_wire::guest::{ExecRequest, ExitStatus, GuestClient};
use tokio::time::timeout;

pub const LIMIT: Duration = Duration::from_secs(20);

/// The agent of this build; a test that gets none has been counted as skipped.
pub fn start() -> Option<LocalGuest> {
    let started = LocalGuest::of_agent(Path::new(env!("CARGO_BIN_EXE_banger-agent")));
    started.map_err(|why| skip(&why)).ok()
}

pub fn sh(script: &str) -> ExecRequest {
    ExecRequest::new(["/bin/sh", "-c", script])
}

pub async fn run(client: &GuestClient, request: &ExecRequest) -> (Vec<u8>, Vec<u8>, ExitStatus) {
    timeout(LIMIT, async {
        client
            .exec(request)
            .await
            .unwrap()
            .output
            .collect()
            .await
            .unwrap()
    })
    .await
    .expect("the command to end")
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
