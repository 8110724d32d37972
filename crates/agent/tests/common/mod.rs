//! The agent as a process of its own, on a socketpair.

#![allow(dead_code, reason = "each test program uses a part")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_wire::guest::connect::shake;
use banger_wire::guest::{ExecRequest, ExitStatus, GuestClient, Token, hex};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub const LIMIT: Duration = Duration::from_secs(20);

/// The agent as a process, ended with the test.
pub struct Agent {
    pub process: Child,
    pub token: Token,
    /// Keeps the channel open between sessions, as the VMM does.
    stream: StdStream,
}

impl Agent {
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

    pub fn stream(&self) -> UnixStream {
        UnixStream::from_std(self.stream.try_clone().unwrap()).unwrap()
    }

    pub async fn client(&self) -> GuestClient {
        let connected = shake(self.stream(), &self.token, LIMIT).await.unwrap();
        GuestClient::start(connected).await.unwrap()
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .unwrap()
            .count()
    }

    /// Resident memory of its own (`RssAnon` of proc(5)) in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn children(&self) -> String {
        let id = self.process.id();
        std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap()
    }
}

impl Drop for Agent {
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
