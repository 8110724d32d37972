//! Progress of long work on stderr: one plain line per stage.

use banger_model::Origin;
use banger_wire::api::{Event, SpecValue};
use std::{
    cell::Cell,
    convert::Infallible,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Prints events as they come, each line once.
#[derive(Default)]
pub struct Progress {
    last: String,
}

impl Progress {
    /// Tells of an event what a person wants to know while waiting.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Spec { values } => self.line(&spec_line(values)),
            Event::Progress { stage, detail, .. } => self.line(&format!("{stage}: {detail}")),
            Event::Warning { message, hint } => {
                self.line(&format!("warning: {message}"));
                if let Some(hint) = hint {
                    self.line(&format!("hint: {hint}"));
                }
            }
            Event::Accepted { .. } | Event::Done { .. } | Event::Failed { .. } => {}
        }
    }

    fn line(&mut self, text: &str) {
        if self.last != text {
            let _ = writeln!(io::stderr(), "{text}");
            text.clone_into(&mut self.last);
        }
    }
}

/// How often a terminal is told how far a copy is.
const REFRESH: Duration = Duration::from_millis(250);
/// After this time a copy is worth a line where there is no terminal; then after twice as long, and so on.
const LONG: Duration = Duration::from_secs(10);

/// Bytes of a copy and how fast they go: on one line of a terminal, elsewhere in a few lines if it takes long.
#[derive(Default)]
pub struct Meter {
    bytes: Cell<u64>,
    /// The terminal has a line of ours.
    shown: Cell<bool>,
}

impl Meter {
    /// So many more were copied.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Shows them for as long as it is polled.
    pub async fn show(&self) -> Infallible {
        let terminal = io::stderr().is_terminal();
        let began = Instant::now();
        let mut wait = if terminal { REFRESH } else { LONG };
        loop {
            tokio::time::sleep(wait).await;
            let text = copied(self.bytes.get(), began.elapsed());
            if terminal {
                let _ = write!(io::stderr(), "\r{text}\x1b[K");
                self.shown.set(true);
            } else {
                let _ = writeln!(io::stderr(), "{text}");
                wait *= 2;
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown.get() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// `copy: 12.5 MiB, 50.0 MiB/s`
fn copied(bytes: u64, took: Duration) -> String {
    let mib = bytes as f64 / (1024.0 * 1024.0);
    let rate = mib / took.as_secs_f64().max(0.001);
    format!("copy: {mib:.1} MiB, {rate:.1} MiB/s")
}

/// `spec: name dev, vcpus 1 (host), …`: every value with its origin unless a flag said so.
fn spec_line(values: &[SpecValue]) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|SpecValue { key, value, origin }| match origin {
            Origin::Flag => format!("{key} {value}"),
            Origin::Config => format!("{key} {value} (config)"),
            Origin::Host => format!("{key} {value} (host)"),
            Origin::Builtin => format!("{key} {value} (default)"),
        })
        .collect();
    format!("spec: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_tells_bytes_and_rate() {
        let text = copied(25 << 19, Duration::from_millis(250));
        assert_eq!(text, "copy: 12.5 MiB, 50.0 MiB/s");
    }

    #[test]
    fn the_spec_line_names_origins() {
        let value = |key: &str, value: &str, origin| SpecValue {
            key: key.into(),
            value: value.into(),
            origin,
        };
        let line = spec_line(&[
            value("vcpus", "1", Origin::Host),
            value("memory", "512 MiB", Origin::Flag),
        ]);
        assert_eq!(line, "spec: vcpus 1 (host), memory 512 MiB");
    }
}
