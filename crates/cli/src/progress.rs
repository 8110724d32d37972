//! Progress of long work on stderr: one plain line per stage.

use banger_model::Origin;
use banger_wire::api::{ClientError, Event, EventStream, SpecValue, VmView};
use std::io::{self, IsTerminal, Write};

/// Prints events as they come, each line once.
pub struct Progress {
    last: String,
    /// Whether stderr is a terminal: a stage that moves then moves on its line.
    terminal: bool,
    /// Whether the cursor stands behind such a line.
    open: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            last: String::new(),
            terminal: io::stderr().is_terminal(),
            open: false,
        }
    }
}

impl Progress {
    /// Tells of an event what a person wants to know while waiting.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Spec { values } => self.line(&spec_line(values)),
            Event::Progress {
                stage,
                detail,
                done,
                total,
            } => {
                let line = format!("{stage}: {detail}");
                match done {
                    Some(done) if self.terminal => self.rewrite(&line, &amount(*done, *total)),
                    _ => self.line(&line),
                }
            }
            Event::Warning { message, hint } => {
                self.line(&format!("warning: {message}"));
                if let Some(hint) = hint {
                    self.line(&format!("hint: {hint}"));
                }
            }
            Event::Accepted { .. }
            | Event::Image { .. }
            | Event::Kernel { .. }
            | Event::Done { .. }
            | Event::Failed { .. } => {}
        }
    }

    /// Says on the same line of a terminal how far a stage has got.
    fn rewrite(&mut self, line: &str, amount: &str) {
        // The line that began the stage is the one above (ECMA-48 CUU).
        let above = if !self.open && self.last == line {
            "\x1b[A"
        } else {
            ""
        };
        // Erase to the end of the line (EL): what was there may have been longer.
        let _ = write!(io::stderr(), "{above}\r{line} {amount}\x1b[K");
        self.open = true;
        line.clone_into(&mut self.last);
    }

    fn line(&mut self, text: &str) {
        if self.open {
            let _ = writeln!(io::stderr());
            self.open = false;
        }
        if self.last != text {
            let _ = writeln!(io::stderr(), "{text}");
            text.clone_into(&mut self.last);
        }
    }
}

/// Shows progress until a VM is as it is to be; `None` if the daemon ends without saying so.
///
/// # Errors
/// What the daemon says, or the connection broke.
pub async fn until_done(mut events: EventStream) -> Result<Option<VmView>, ClientError> {
    let mut progress = Progress::default();
    while let Some(event) = events.next().await? {
        match event {
            Event::Done { vm: Some(vm) } => return Ok(Some(*vm)),
            other => progress.event(&other),
        }
    }
    Ok(None)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.open {
            let _ = writeln!(io::stderr());
        }
    }
}

/// `12 of 340 MiB`, or without what is not known.
fn amount(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} of {} MiB", done >> 20, total >> 20),
        None => format!("{} MiB", done >> 20),
    }
}

/// `spec: name dev, vcpus 1 (host), …`: every value with its origin unless a flag said so.
fn spec_line(values: &[SpecValue]) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|SpecValue { key, value, origin }| match origin {
            Origin::Flag => format!("{key} {value}"),
            Origin::Config => format!("{key} {value} (config)"),
            Origin::Image => format!("{key} {value} (image)"),
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
