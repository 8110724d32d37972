//! One run of a program: input in, output and status out, with a deadline.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The longest a single run may take; a machine without virtualisation under load boots in tens of
/// seconds at worst.
const DEADLINE: Duration = Duration::from_secs(180);

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// What was run, for messages.
    pub command: String,
    /// Exit status; 128 + n when ended by signal n.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Run {
    /// Standard output as text, without the last newline.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches('\n')
            .to_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts the exit status and gives the run back.
    ///
    /// # Panics
    /// With both outputs, if the status differs.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status,
            status,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.out(),
            self.err()
        );
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: {e}: {}", self.command, self.out()))
    }
}

/// A run under way.
pub struct Running {
    child: Child,
    command: String,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = pipe.read_to_end(&mut all);
        all
    })
}

impl Running {
    /// Starts a command with this input (written by a thread of its own, then closed).
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command, input: &[u8]) -> Self {
        let text = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{text}: {e}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let (stdout, stderr) = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => (drain(out), drain(err)),
            _ => unreachable!("both were piped"),
        };
        Running {
            child,
            command: text,
            stdout,
            stderr,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// After the deadline, with what was printed until then lost to the message.
    #[track_caller]
    pub fn finish(self) -> Run {
        self.finish_within(DEADLINE)
    }

    /// Waits for the end, for so long.
    ///
    /// # Panics
    /// After the deadline, with what was printed until then lost to the message.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Run {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                other => {
                    let _ = self.child.kill();
                    panic!("{} did not end within {limit:?}: {other:?}", self.command)
                }
            }
        };
        let status = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let collect = |pipe: JoinHandle<Vec<u8>>| pipe.join().unwrap_or_default();
        Run {
            command: self.command,
            status,
            stdout: collect(self.stdout),
            stderr: collect(self.stderr),
        }
    }
}
