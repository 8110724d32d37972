//! The agent of this build as a process of its own, and commands in it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_testkit::{LocalGuest, skip};
use banger_wire::guest::connect::shake;
use banger_wire::guest::{ExecRequest, ExitStatus, GuestClient, Token, hex};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub const LIMIT: Duration = Duration::from_secs(20);

/// The agent of this build; a test that gets none has been counted as skipped.
pub fn start() -> Option<LocalGuest> {
    let started = LocalGuest::of_agent(Path::new(env!("CARGO_BIN_EXE_banger-agent")));
    started.map_err(|why| skip(&why)).ok()
}

/// The agent of this build among the machine's own files and processes, which a [`LocalGuest`] does not see as they are.
/// Ended with the value.
pub struct Bare {
    process: Child,
    token: Token,
    stream: StdStream,
}

impl Bare {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test starts the program under test"
    )]
    pub fn start() -> Self {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let token = Token::random().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_banger-agent"))
            .args(["local", &hex::encode(&token.0)])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self {
            process,
            token,
            stream: ours,
        }
    }

    pub async fn client(&self) -> GuestClient {
        let stream = UnixStream::from_std(self.stream.try_clone().unwrap()).unwrap();
        let connected = shake(stream, &self.token, LIMIT).await.unwrap();
        GuestClient::start(connected).await.unwrap()
    }

    /// How many entries a directory of its `/proc` has.
    pub fn count(&self, what: &str) -> usize {
        let id = self.process.id();
        std::fs::read_dir(format!("/proc/{id}/{what}"))
            .unwrap()
            .count()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
