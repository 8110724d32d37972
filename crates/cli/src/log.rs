//! The daemon's log, a JSON object per line, for a person. Lines that are none, the last words of a daemon that could
//! not start, are kept as they are.

use serde_json::{Map, Value, json};

/// A line of the log.
pub struct Line(Map<String, Value>);

impl Line {
    /// A line as it stands in the file.
    pub fn of(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Line(fields),
            _ => Line(Map::from_iter([("message".to_owned(), json!(text))])),
        }
    }

    /// The operation it belongs to.
    fn operation(&self) -> Option<&str> {
        self.0.get("span")?.get("op")?.as_str()
    }

    /// Whether it belongs to an operation whose id begins so.
    pub fn is_of(&self, beginning: &str) -> bool {
        self.operation().is_some_and(|op| op.starts_with(beginning))
    }

    /// As JSON on a line.
    pub fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// For a person: time, level, what, and what is known beside it.
    pub fn text(&self) -> String {
        let word = |key: &str| self.0.get(key).and_then(Value::as_str);
        let mut parts: Vec<String> = Vec::new();
        parts.extend(word("timestamp").map(str::to_owned));
        parts.extend(word("level").map(|level| format!("{level:>5}")));
        parts.extend(word("message").map(str::to_owned));
        let told = ["timestamp", "level", "message", "target", "span"];
        for (key, value) in self.0.iter().filter(|(key, _)| !told.contains(&&***key)) {
            parts.push(match value {
                Value::String(text) => format!("{key}={text}"),
                other => format!("{key}={other}"),
            });
        }
        let method = self.0.get("span").and_then(|s| s.get("method")?.as_str());
        parts.extend(method.map(|method| format!("method={method}")));
        parts.extend(self.operation().map(|op| format!("op={op}")));
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-01-02T03:04:05.000006Z","level":"WARN","message":"failed","error":"no disk","vm":7,"target":"bangerd::ops","span":{"method":"vm.create","op":"00ab12cd34ef","name":"operation"}}"#;

    #[test]
    fn a_line_is_told_to_a_person() {
        let line = Line::of(LINE);
        assert_eq!(
            line.text(),
            "2026-01-02T03:04:05.000006Z  WARN failed error=no disk vm=7 method=vm.create op=00ab12cd34ef"
        );
        assert!(line.is_of("00ab") && line.is_of("00ab12cd34ef") && !line.is_of("0ab"));
    }

    #[test]
    fn what_is_no_json_is_kept() {
        let line = Line::of("error: bangerd cannot start");
        assert_eq!(line.text(), "error: bangerd cannot start");
        assert_eq!(line.json(), r#"{"message":"error: bangerd cannot start"}"#);
        assert!(!line.is_of("e"));
        assert_eq!(Line::of("7").text(), "7");
    }
}
