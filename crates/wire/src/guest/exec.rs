//! What is said about a command and about the guest's state.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hex;

/// Path of the exec method.
pub const EXEC_PATH: &str = "/v1/exec";
/// Path of the method that attaches to a command once more.
pub const ATTACH_PATH: &str = "/v1/exec/attach";
/// Path of the method that answers when a command has been collected; the command's id follows.
pub const COLLECTED_PATH: &str = "/v1/exec/collected/";
/// Status of a refusal because the guest knows no such command.
pub const UNKNOWN: u16 = 404;
/// First version of the protocol whose agents know a command by its id, and start one detached.
pub const PROTOCOL_WITH_IDS: u16 = 2;
/// What a command keeps of its output until that has been got, and takes of its input before the command does, in
/// bytes: the sender of input that keeps to it never waits behind a command that does not read.
pub const WINDOW: u64 = 256 * 1024;
/// How long a command is kept for whoever comes back to it while there is a host to come through.
pub const ORPHAN_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
/// Path of the health method.
pub const HEALTH_PATH: &str = "/v1/health";
/// Path of the method that answers when the boot is over.
pub const READY_PATH: &str = "/v1/ready";
/// Status of a refusal because the guest cannot run commands, now or ever.
pub const NOT_READY: u16 = 503;
/// Path of the power-off method.
pub const POWER_OFF_PATH: &str = "/v1/poweroff";
/// Path of the sync method.
pub const SYNC_PATH: &str = "/v1/sync";

/// The `PATH` of a command whose environment names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command is known by in its guest, so that who started it can come back to it after the session was lost.
/// Chosen by the client: asking twice with one id starts one command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(pub [u8; 16]);

impl ExecId {
    /// The command that a VM was made for by `vm.run`. There is one at most.
    pub const MAIN: ExecId = ExecId([0; 16]);

    /// A fresh id from the system's random source.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecId({self})")
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for ExecId {
    type Err = BadExecId;

    fn from_str(text: &str) -> Result<Self, BadExecId> {
        hex::decode16(text).map(Self).ok_or(BadExecId)
    }
}

/// A text that is no [`ExecId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a command is 32 hexadecimal digits")]
pub struct BadExecId;

impl Serialize for ExecId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Asks for a command that runs, or ran, once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The command.
    pub id: ExecId,
    /// Bytes of its output, standard output and error together, that have arrived; it goes on from there.
    pub output: u64,
}

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; the program is looked up in the command's `PATH` if it has no slash.
    pub argv: Vec<String>,
    /// The environment; `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL` (and `TERM` with a tty) are added if absent.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; the user's home if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User name or number as in the image's `/etc/passwd`, perhaps with `:group`; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal of this size; three pipes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySize>,
    /// What it is known by. Without an id it belongs to its stream and gets SIGHUP when that ends, and its output
    /// counts as got when it has been sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecId>,
    /// Nobody attends to it: it gets no input, its output goes nowhere, and the status in the answer says whether
    /// it was started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
    /// The working directory is made if it is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make_cwd: bool,
    /// Number of the signal that asks it to end before the guest powers off; it gets time of its own for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<u8>,
}

impl ExecRequest {
    /// A command with pipes, as root, with the default environment.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// Why a request cannot become a process, whatever is in the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadExec {
    /// No program is named.
    #[error("the command is empty; name a program")]
    Empty,
    /// A string of an `execve` ends at its first zero byte.
    #[error("{0} has a zero byte")]
    ZeroByte(&'static str),
    /// A variable's name is empty or has a `=` (environ(7)).
    #[error("'{0}' is not the name of a variable")]
    VariableName(String),
    /// A terminal has a person at it, and a detached command has nobody.
    #[error("a detached command has no terminal")]
    DetachedTerminal,
    /// There is no directory it could be relative to.
    #[error("the working directory '{0}' is not absolute")]
    RelativeDirectory(String),
}

impl BadExec {
    /// The way out.
    pub const fn hint(&self) -> &'static str {
        match self {
            BadExec::Empty => "banger vm run -- PROGRAM ARGUMENT…",
            BadExec::ZeroByte(_) => "pass such bytes to the command's standard input",
            BadExec::VariableName(_) => "-e NAME=VALUE",
            BadExec::DetachedTerminal => "leave out -t",
            BadExec::RelativeDirectory(_) => "write the whole path, from '/' on",
        }
    }
}

impl ExecRequest {
    /// Checks what can be checked without looking at a guest. The daemon asks before it makes a VM, the agent
    /// before it makes a process.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), BadExec> {
        if self.argv.is_empty() {
            return Err(BadExec::Empty);
        }
        if self.detach && self.tty.is_some() {
            return Err(BadExec::DetachedTerminal);
        }
        let zero = |text: &str| text.contains('\0');
        if let Some(name) = self.env.keys().find(|n| n.is_empty() || n.contains('=')) {
            return Err(BadExec::VariableName(name.clone()));
        }
        let cwd = self.cwd.as_deref().unwrap_or("/");
        for (what, bad) in [
            ("an argument", self.argv.iter().any(|a| zero(a))),
            (
                "a variable",
                self.env.iter().any(|(n, v)| zero(n) || zero(v)),
            ),
            ("the working directory", zero(cwd)),
            ("the user", self.user.as_deref().is_some_and(zero)),
        ] {
            if bad {
                return Err(BadExec::ZeroByte(what));
            }
        }
        if cwd.starts_with('/') {
            Ok(())
        } else {
            Err(BadExec::RelativeDirectory(cwd.to_owned()))
        }
    }
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a command ended; the payload of the last frame, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExitStatus {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: u8,
    },
    /// It was never started.
    Failed(ExecFailure),
}

impl ExitStatus {
    /// The exit status a shell would give: the code, 128+n for a signal, 126 or 127 for a failure.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited { code } => *code,
            Self::Signaled { signal } => 128_u8.saturating_add(*signal),
            Self::Failed(failure) => failure.reason.code(),
        }
    }
}

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExecFailure {
    /// What was wrong.
    pub reason: FailureKind,
    /// One sentence for a person.
    pub message: String,
}

/// What was wrong with a command that could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No such program (or its interpreter is missing).
    NotFound,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// The working directory cannot be entered.
    Cwd,
    /// The user is not in `/etc/passwd`.
    User,
    /// The guest could not make the process: memory, process limit, terminal.
    Resource,
}

impl FailureKind {
    /// The exit status that stands for this failure.
    pub fn code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable | Self::Cwd | Self::User => 126,
            Self::Resource => 125,
        }
    }
}

/// The answer of the health method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How far the boot is.
    #[serde(flatten)]
    pub state: GuestState,
    /// Random value of this boot, 32 hexadecimal digits; another one means that the guest rebooted.
    pub boot_nonce: String,
    /// The kernel's own name of this boot (`/proc/sys/kernel/random/boot_id`); empty if it tells none.
    #[serde(default)]
    pub boot_id: String,
    /// Version of the agent.
    pub version: String,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// Things that went wrong and did not stop the boot, such as the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How far the boot of the guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum GuestState {
    /// The root file system is not ready yet.
    Booting,
    /// Commands run.
    Ready,
    /// The root file system could not be made; commands are refused with this reason.
    Failed {
        /// One sentence for a person.
        reason: String,
    },
}

/// The body of an answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestError {
    /// One sentence for a person.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guest_could_run_is_refused_before_there_is_one() {
        let good = ExecRequest::new(["true"]);
        assert_eq!(good.check(), Ok(()));
        let with = |change: fn(&mut ExecRequest)| {
            let mut request = good.clone();
            change(&mut request);
            request.check()
        };
        assert_eq!(with(|r| r.argv.clear()), Err(BadExec::Empty));
        assert_eq!(
            with(|r| r.argv.push("a\0b".into())),
            Err(BadExec::ZeroByte("an argument"))
        );
        assert_eq!(
            with(|r| r.cwd = Some("work".into())),
            Err(BadExec::RelativeDirectory("work".into()))
        );
        for name in ["", "A=B"] {
            let mut request = good.clone();
            request.env.insert(name.into(), "x".into());
            assert_eq!(request.check(), Err(BadExec::VariableName(name.into())));
        }
    }

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(ExitStatus::Exited { code: 42 }.code(), 42);
        assert_eq!(ExitStatus::Signaled { signal: 9 }.code(), 137);
        let failed = |reason| {
            ExitStatus::Failed(ExecFailure {
                reason,
                message: String::new(),
            })
            .code()
        };
        assert_eq!(failed(FailureKind::NotFound), 127);
        assert_eq!(failed(FailureKind::NotExecutable), 126);
        assert_eq!(failed(FailureKind::Resource), 125);
    }

    #[test]
    fn health_json() {
        let health = Health {
            state: GuestState::Failed {
                reason: "no base".into(),
            },
            boot_nonce: "00".into(),
            boot_id: "1-2".into(),
            version: "0.1.0".into(),
            uptime_ms: 5,
            warnings: vec![],
        };
        let json = r#"{"state":"failed","reason":"no base","boot_nonce":"00","boot_id":"1-2","version":"0.1.0","uptime_ms":5}"#;
        assert_eq!(serde_json::to_string(&health).unwrap(), json);
        assert_eq!(serde_json::from_str::<Health>(json).unwrap(), health);
    }

    #[test]
    fn exit_json() {
        let json = serde_json::to_string(&ExitStatus::Failed(ExecFailure {
            reason: FailureKind::NotFound,
            message: "m".into(),
        }));
        assert_eq!(
            json.unwrap(),
            r#"{"kind":"failed","reason":"not_found","message":"m"}"#
        );
    }
}
