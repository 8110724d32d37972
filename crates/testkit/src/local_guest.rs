//! The real agent without a VM: in namespaces of its own, on a socket pair, with the rights of whoever runs the tests.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use crate::binaries;
use banger_wire::guest::connect::shake;
use banger_wire::guest::{GuestClient, Token, hex};
use std::{
    fs,
    os::fd::OwnedFd,
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long the agent may take to answer; its programs come from a disk that others use.
const LIMIT: Duration = Duration::from_secs(20);

/// Who is in the guest.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nuser:x:1000:\n";

/// Makes the guest's own places and becomes the agent, whose program may lie in one of those that are covered.
const ENTER: &str = "set -e
mount -t tmpfs tmpfs /run
: >/run/banger-agent
mount --bind \"$1\" /run/banger-agent
mount --bind \"$2/passwd\" /etc/passwd
mount --bind \"$2/group\" /etc/group
root=$2/root tmp=$2/tmp
exec 3<\"$tmp\"
mount --bind \"$root\" /root
mount --bind /proc/self/fd/3 /tmp
exec 3<&-
cd /
exec /run/banger-agent local \"$3\"";

/// A guest that is a process: `/root`, `/tmp`, `/run` and the users are its own, everything else is the machine's.
/// Ended with the value.
#[derive(Debug)]
pub struct LocalGuest {
    process: Child,
    token: Token,
    /// Keeps the channel open between sessions, as a VMM does.
    stream: StdStream,
    places: tempfile::TempDir,
}

impl LocalGuest {
    /// Starts the agent of the built programs.
    ///
    /// # Errors
    /// Why there can be no namespaces here: the test is to be skipped.
    ///
    /// # Panics
    /// If it cannot be started though there can.
    pub fn start() -> Result<Self, String> {
        Self::of_agent(&binaries().join("banger-agent"))
    }

    /// Starts this agent.
    ///
    /// # Errors
    /// Why there can be no namespaces here: the test is to be skipped.
    ///
    /// # Panics
    /// If it cannot be started though there can.
    pub fn of_agent(agent: &Path) -> Result<Self, String> {
        namespaces()?;
        let places = tempfile::tempdir().expect("a directory for the guest");
        for directory in ["root", "tmp"] {
            fs::create_dir(places.path().join(directory)).expect("a directory of the guest");
        }
        fs::write(places.path().join("passwd"), USERS).expect("the guest's users");
        fs::write(places.path().join("group"), GROUPS).expect("the guest's groups");
        let (ours, theirs) = StdStream::pair().expect("a channel");
        ours.set_nonblocking(true).expect("a channel");
        let token = Token::random().expect("a token");
        // All of these execute the next, so that the process stays the same.
        let process = in_own_mounts(ENTER)
            .args([agent, places.path()])
            .arg(hex::encode(&token.0))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("the agent");
        Ok(Self {
            process,
            token,
            stream: ours,
            places,
        })
    }

    /// A session with the agent; it ends the one before.
    ///
    /// # Panics
    /// If the agent does not answer.
    pub async fn client(&self) -> GuestClient {
        let connected = shake(self.channel(), &self.token, LIMIT).await;
        let connected = connected.expect("an answer to the hello");
        GuestClient::start(connected).await.expect("a session")
    }

    /// The host's end of the channel, for a test that speaks itself.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn channel(&self) -> UnixStream {
        let stream = self.stream.try_clone().expect("a channel");
        UnixStream::from_std(stream).expect("a channel")
    }

    /// What begins every hello.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The guest's `/root`, seen from outside.
    pub fn home(&self) -> PathBuf {
        self.places.path().join("root")
    }

    /// The agent's process.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// How many descriptors the agent has open.
    ///
    /// # Panics
    /// If it has ended.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process.id()));
        open.expect("the agent's descriptors").count()
    }

    /// The agent's memory of its own (`RssAnon` of proc(5)) in KiB.
    ///
    /// # Panics
    /// If it has ended.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the agent's status");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let number = line.expect("RssAnon").trim().trim_end_matches(" kB");
        number.parse().expect("a number of KiB")
    }

    /// The agent's children, alive or not collected.
    ///
    /// # Panics
    /// If it has ended.
    pub fn children(&self) -> String {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children.expect("the agent's children")
    }
}

impl Drop for LocalGuest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether there can be namespaces here.
fn namespaces() -> Result<(), String> {
    let tried = unshare().arg("true").stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "no namespaces here: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("no program unshare: {error}")),
    }
}

/// A shell script in mounts of its own, to which arguments are to be added; it has a PATH and no other variables.
pub fn in_own_mounts(script: &str) -> Command {
    let mut command = unshare();
    command.args(["sh", "-c", script, "sh"]);
    command
}

/// A mount namespace; for an ordinary user in a user namespace in which it is root, and the only user.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount").env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}
