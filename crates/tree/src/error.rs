//! What went wrong, and with which entry.

use std::fmt;
use std::io;

/// Why a tree cannot be packed or unpacked.
#[derive(Debug)]
pub struct Error {
    what: String,
    entry: Option<Vec<u8>>,
    why: Option<io::Error>,
}

impl Error {
    /// Something is wrong with an entry.
    pub fn entry(what: &str, entry: &[u8]) -> Self {
        Self {
            what: what.to_owned(),
            entry: Some(entry.to_owned()),
            why: None,
        }
    }

    /// Something is wrong with the stream as a whole.
    pub fn stream(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            entry: None,
            why: None,
        }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, why: impl Into<io::Error>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The cause's kind.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        self.why.as_ref().map(io::Error::kind)
    }

    /// Whether the other side of the stream went away, which it explains better than we could.
    pub fn is_lost_stream(&self) -> bool {
        self.entry.is_none()
            && matches!(
                self.kind(),
                Some(io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe)
            )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(entry) = &self.entry {
            write!(f, " '{}'", Shown(entry))?;
        }
        match &self.why {
            // The number after the system's sentence tells a person nothing.
            Some(why) => {
                let text = why.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                write!(f, ": {text}")
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// A name as it may be shown on a terminal: bytes that are no text, and control characters, are escaped.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    fmt::Write::write_char(f, character)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_entry_and_no_terminal_is_driven_by_it() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(
            Error::entry("cannot write", b"a/\xffb\x1b[2J\n")
                .because(full)
                .to_string(),
            "cannot write 'a/\\xffb\\u{1b}[2J\\n': No space left on device"
        );
    }
}
