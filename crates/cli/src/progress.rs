//! Progress of long work on stderr: one plain line per stage.

use banger_model::Origin;
use banger_wire::api::{Event, SpecValue};
use std::io::{self, Write};

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
            Event::Accepted { .. }
            | Event::Image { .. }
            | Event::Done { .. }
            | Event::Failed { .. } => {}
        }
    }

    fn line(&mut self, text: &str) {
        if self.last != text {
            let _ = writeln!(io::stderr(), "{text}");
            text.clone_into(&mut self.last);
        }
    }
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
