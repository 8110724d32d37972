//! A small client of QEMU's control protocol over a Unix stream that is handed in.
//!
//! Format: QMP (docs/interop/qmp-spec.txt of QEMU): one JSON object a line; a greeting first; commands answered by
//! `return` or `error` with the same `id`; events in between.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

/// What is the matter with a QEMU that was talked to.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The bytes could not be moved.
    #[error("the connection to QEMU's control socket failed while waiting for {what}")]
    Io {
        /// What was waited for.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody there any more.
    #[error("QEMU closed its control socket while banger waited for {what}")]
    Closed {
        /// What was waited for.
        what: String,
    },
    /// No answer in time: stopped, hung, or busy with another client.
    #[error(
        "QEMU did not send {what} within {timeout:?}: it hangs, or another program holds its control socket"
    )]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        timeout: Duration,
    },
    /// Not the protocol.
    #[error("QEMU's control socket sent what is no QMP message: {text}")]
    NotQmp {
        /// The line, cut to 200 characters.
        text: String,
    },
    /// QEMU said no.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class of error.
        class: String,
        /// QEMU's words.
        desc: String,
    },
}

/// How a guest stands, as `query-status` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Executing.
    Running,
    /// Stopped by us.
    Paused,
    /// Shut down, QEMU about to exit.
    Shutdown,
    /// Anything else, in QEMU's word (qapi/run-state.json).
    Other(String),
}

/// What QEMU tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpEvent {
    /// The guest is down and QEMU exits. The reason is QEMU's word: `guest-shutdown` for a power-off, `guest-reset`
    /// for a reboot or a panic (with `-no-reboot`), `host-qmp-quit`, `host-signal`.
    Shutdown {
        /// Whether the guest did it.
        guest: bool,
        /// QEMU's word.
        reason: String,
    },
    /// The guest opened or closed the port with this id.
    PortChange {
        /// `id=` of the virtserialport.
        id: String,
        /// Whether it is open now.
        open: bool,
    },
    /// Anything else, by name.
    Other(String),
}

/// One connection to a control socket, ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    timeout: Duration,
    buffer: Vec<u8>,
    events: VecDeque<QmpEvent>,
    next_id: u64,
}

/// The hub's port that leads to the user network.
pub(super) const UPLINK: &str = "uplink";
/// The user network that leads beyond the guest.
pub(super) const OPEN: &str = "open";
/// The one that does not.
pub(super) const CLOSED: &str = "closed";

/// A message longer than this is not QEMU's.
const LINE_MAX: usize = 1 << 20;

impl Qmp {
    /// Reads the greeting and negotiates. `timeout` bounds this and every later command.
    ///
    /// # Errors
    /// See [`QmpError`]; a connect that succeeded may still wait here for ever without the timeout, because a monitor
    /// serves one client at a time.
    pub fn new(stream: UnixStream, timeout: Duration) -> Result<Qmp, QmpError> {
        let mut qmp = Qmp {
            stream,
            timeout,
            buffer: Vec::new(),
            events: VecDeque::new(),
            next_id: 1,
        };
        let deadline = Instant::now() + timeout;
        let greeting = qmp.line(deadline, "the greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(not_qmp(&greeting.to_string()));
        }
        qmp.command("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Runs a command; events that come in between are kept for [`Qmp::next_event`].
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.timeout;
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": name, "id": id });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let what = format!("the answer to {name}");
        let io = |source| QmpError::Io {
            what: what.clone(),
            source,
        };
        self.stream
            .set_write_timeout(Some(self.timeout))
            .map_err(io)?;
        self.stream
            .write_all(format!("{request}\n").as_bytes())
            .map_err(io)?;
        loop {
            let message = self.line(deadline, &what)?;
            if let Some(event) = event_of(&message) {
                self.events.push_back(event);
            } else if message.get("id").and_then(Value::as_u64) == Some(id) {
                return answer(name, message);
            }
            // An answer to an earlier command that timed out is of no use to anyone.
        }
    }

    /// How the guest stands.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn status(&mut self) -> Result<RunState, QmpError> {
        let answer = self.command("query-status", Value::Null)?;
        Ok(
            match answer
                .get("status")
                .and_then(Value::as_str)
                .unwrap_or_default()
            {
                "running" => RunState::Running,
                "paused" => RunState::Paused,
                "shutdown" => RunState::Shutdown,
                other => RunState::Other(other.to_owned()),
            },
        )
    }

    /// Ends QEMU at once.
    ///
    /// # Errors
    /// See [`QmpError`]; QEMU closing the socket before it answers is success.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        match self.command("quit", Value::Null) {
            Err(QmpError::Closed { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Presses the guest's power button.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn power_button(&mut self) -> Result<(), QmpError> {
        self.command("system_powerdown", Value::Null).map(drop)
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn pause(&mut self) -> Result<(), QmpError> {
        self.command("stop", Value::Null).map(drop)
    }

    /// Lets the guest's processors go on.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn resume(&mut self) -> Result<(), QmpError> {
        self.command("cont", Value::Null).map(drop)
    }

    /// Whether the guest's network leads beyond it, as [`Qmp::set_nat`] or the arguments made it; `None` if a change was
    /// cut off in the middle.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub fn nat(&mut self) -> Result<Option<bool>, QmpError> {
        let asked = json!({ "command-line": "info network" });
        let answer = self.command("human-monitor-command", asked)?;
        let text = answer.as_str().unwrap_or_default();
        // A line of it: ` \ uplink: index=0,type=hubport,…`.
        let there = |id: &str| {
            let mut words = text.split_whitespace();
            words.any(|word| word.strip_suffix(':') == Some(id))
        };
        Ok(match (there(UPLINK), there(OPEN), there(CLOSED)) {
            (true, true, false) => Some(true),
            (true, false, true) => Some(false),
            _ => None,
        })
    }

    /// Plugs the guest into a user network that leads beyond it, or into one that does not. Its address stays; its
    /// connections to what was there before break.
    ///
    /// # Errors
    /// See [`QmpError`]; it may be tried again.
    pub fn set_nat(&mut self, nat: bool) -> Result<(), QmpError> {
        if self.nat()? == Some(nat) {
            return Ok(());
        }
        // What is not there need not go: an earlier change may have been cut off anywhere.
        for id in [UPLINK, OPEN, CLOSED] {
            match self.command("netdev_del", json!({ "id": id })) {
                Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => {}
                other => drop(other?),
            }
        }
        let id = if nat { OPEN } else { CLOSED };
        let user = json!({ "type": "user", "id": id, "ipv6": false, "restrict": !nat });
        self.command("netdev_add", user)?;
        let port = json!({ "type": "hubport", "id": UPLINK, "hubid": 0, "netdev": id });
        self.command("netdev_add", port).map(drop)
    }

    /// The next event, waiting at most `timeout`; `None` if there was none.
    ///
    /// # Errors
    /// The connection failed or is closed (QEMU has exited).
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<QmpEvent>, QmpError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.line(deadline, "an event") {
                Ok(message) => self.events.extend(event_of(&message)),
                Err(QmpError::TimedOut { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn line(&mut self, deadline: Instant, what: &str) -> Result<Value, QmpError> {
        let started = Instant::now();
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|_| not_qmp(&String::from_utf8_lossy(&line)));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(not_qmp(&String::from_utf8_lossy(&self.buffer)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let timeout = deadline.saturating_duration_since(started);
                return Err(QmpError::TimedOut {
                    what: what.to_owned(),
                    timeout,
                });
            }
            self.fill(left, what)?;
        }
    }

    fn fill(&mut self, left: Duration, what: &str) -> Result<(), QmpError> {
        let io = |source| QmpError::Io {
            what: what.to_owned(),
            source,
        };
        self.stream.set_read_timeout(Some(left)).map_err(io)?;
        let mut chunk = [0u8; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(QmpError::Closed {
                what: what.to_owned(),
            }),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Err(QmpError::Closed {
                what: what.to_owned(),
            }),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(source) => Err(io(source)),
        }
    }
}

fn not_qmp(text: &str) -> QmpError {
    QmpError::NotQmp {
        text: text.chars().take(200).collect(),
    }
}

fn answer(command: &str, mut message: Value) -> Result<Value, QmpError> {
    if let Some(error) = message.get("error") {
        let text = |key| {
            error
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        return Err(QmpError::Refused {
            command: command.to_owned(),
            class: text("class"),
            desc: text("desc"),
        });
    }
    Ok(message
        .get_mut("return")
        .map(Value::take)
        .unwrap_or_default())
}

fn event_of(message: &Value) -> Option<QmpEvent> {
    let name = message.get("event")?.as_str()?;
    let data = |key: &str| message.get("data").and_then(|d| d.get(key));
    let text = |key| {
        data(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let flag = |key| data(key).and_then(Value::as_bool).unwrap_or_default();
    Some(match name {
        "SHUTDOWN" => QmpEvent::Shutdown {
            guest: flag("guest"),
            reason: text("reason"),
        },
        "VSERPORT_CHANGE" => QmpEvent::PortChange {
            id: text("id"),
            open: flag("open"),
        },
        other => QmpEvent::Other(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// A connection whose other end says `lines` at once. What real QEMU says is tested in tests/boot.rs.
    fn against(lines: &[&str], timeout_ms: u64) -> (Result<Qmp, QmpError>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for line in lines {
            theirs.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        }
        (Qmp::new(ours, Duration::from_millis(timeout_ms)), theirs)
    }

    #[test]
    fn events_between_answers_are_kept_in_order() {
        let (qmp, _theirs) = against(
            &[
                GREETING,
                r#"{"return": {}, "id": 1}"#,
                r#"{"event": "VSERPORT_CHANGE", "data": {"open": true, "id": "agent"}}"#,
                r#"{"return": {"status": "running"}, "id": 2}"#,
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 3}"#,
            ],
            1000,
        );
        let mut qmp = qmp.unwrap();
        assert_eq!(qmp.status().unwrap(), RunState::Running);
        let refused = qmp.pause().unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused stop: no (GenericError)");
        let mut events = || qmp.next_event(Duration::from_millis(1)).unwrap();
        assert_eq!(
            events(),
            Some(QmpEvent::PortChange {
                id: "agent".into(),
                open: true
            })
        );
        assert_eq!(
            events(),
            Some(QmpEvent::Shutdown {
                guest: true,
                reason: "guest-reset".into()
            })
        );
        assert_eq!(events(), None);
    }

    #[test]
    fn silence_is_a_timeout_and_a_closed_socket_is_closed() {
        let (silent, _theirs) = against(&[], 30);
        assert!(
            matches!(silent, Err(QmpError::TimedOut { .. })),
            "{silent:?}"
        );
        let (quit, theirs) = against(&[GREETING, r#"{"return": {}, "id": 1}"#], 1000);
        drop(theirs);
        let mut quit = quit.unwrap();
        assert!(matches!(
            quit.status(),
            Err(QmpError::Closed { .. } | QmpError::Io { .. })
        ));
        let (odd, _theirs) = against(&["HTTP/1.1 400"], 1000);
        assert!(matches!(odd, Err(QmpError::NotQmp { .. })));
    }

    #[test]
    fn a_late_answer_to_another_command_is_not_taken_for_ours() {
        let (qmp, _theirs) = against(
            &[
                GREETING,
                r#"{"return": {}, "id": 1}"#,
                r#"{"return": {"status": "paused"}, "id": 99}"#,
                r#"{"return": {"status": "running"}, "id": 2}"#,
            ],
            1000,
        );
        assert_eq!(qmp.unwrap().status().unwrap(), RunState::Running);
    }
}
