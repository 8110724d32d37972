//! Progress of long work on stderr: one plain line per stage, and how far a long one is.

use crate::pace::{Pace, of};
use crate::terminal;
use banger_model::Origin;
use banger_wire::api::{ClientError, Event, EventStream, Part, SpecValue, VmView};
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// A stage that takes this long is worth a line where there is no terminal; then after twice as long, and so on.
const LONG: Duration = Duration::from_secs(10);
/// Columns of a terminal that does not say.
const COLUMNS: usize = 80;

/// Prints events as they come, each line once.
pub struct Progress {
    last: String,
    /// Whether stderr is a terminal: a stage that moves then moves on its line.
    terminal: bool,
    /// Whether there is such a line.
    open: bool,
    /// Lines of parts below it; the cursor is in the last.
    below: usize,
    pace: Pace,
    /// When a stage that moves is told of where there is no terminal, and how long after that again.
    due: Option<(Instant, Duration)>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            last: String::new(),
            terminal: io::stderr().is_terminal(),
            open: false,
            below: 0,
            pace: Pace::default(),
            due: None,
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
                parts,
            } => {
                let line = format!("{stage}: {detail}");
                match done {
                    Some(done) => self.moved(&line, *done, *total, parts),
                    None => self.line(&line),
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

    /// Tells how far a stage is: on its line of a terminal, elsewhere now and then.
    fn moved(&mut self, line: &str, done: u64, total: Option<u64>, parts: &[Part]) {
        let now = Instant::now();
        let amount = self.pace.at(now, done, total);
        if self.terminal {
            return self.rewrite(line, &amount, parts);
        }
        self.line(line);
        let (due, wait) = *self.due.get_or_insert((now + LONG, LONG));
        if now >= due {
            let _ = writeln!(io::stderr(), "{line}: {amount}");
            self.due = Some((now + wait * 2, wait * 2));
        }
    }

    /// Draws a stage's line and those of its parts over the ones that are there.
    fn rewrite(&mut self, line: &str, amount: &str, parts: &[Part]) {
        let columns = terminal::stderr_width().unwrap_or(COLUMNS);
        let up = if self.open {
            self.below
        } else {
            // The line that began the stage is the one above.
            usize::from(self.last == line)
        };
        let mut text = above(up);
        // What is there may be longer and have more lines: erase to the end of the screen (ECMA-48 ED).
        text += "\x1b[J";
        // Of a long line the amount is what moves.
        let room = columns.saturating_sub(amount.chars().count() + 2);
        text += &cut(&format!("{}: {amount}", cut(line, room)), columns);
        for part in parts {
            let part = format!("  {}: {}", part.name, of(part.done, part.total));
            text += &format!("\r\n{}", cut(&part, columns));
        }
        let _ = write!(io::stderr(), "{text}");
        (self.open, self.below) = (true, parts.len());
        line.clone_into(&mut self.last);
    }

    /// Leaves the line that moved as it is, without its parts.
    fn close(&mut self) {
        if self.open {
            let erased = if self.below > 0 {
                "\x1b[1B\r\x1b[J"
            } else {
                "\n"
            };
            let _ = write!(io::stderr(), "{}{erased}", above(self.below));
            (self.open, self.below) = (false, 0);
        }
    }

    fn line(&mut self, text: &str) {
        self.close();
        if self.last != text {
            let _ = writeln!(io::stderr(), "{text}");
            text.clone_into(&mut self.last);
        }
    }
}

/// To the beginning of the line so many above this one (ECMA-48 CUU; 0 of it would be one).
fn above(lines: usize) -> String {
    match lines {
        0 => "\r".to_owned(),
        n => format!("\x1b[{n}A\r"),
    }
}

/// A line that stays one on a terminal.
fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
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
        self.close();
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
