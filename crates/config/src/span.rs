//! Lengths of time as users type them.

use serde::{Deserialize, Deserializer};
use std::{fmt, str::FromStr, time::Duration};

/// Whole seconds. Text form: `90s`, `5m`, `2h`, `7d`; a plain number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// Why a text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no length of time up to 10 years; write 90, 90s, 5m, 2h or 7d")]
pub struct SpanError(String);

/// Ten years: beyond it a sum with a time of day could overflow, and nobody waits.
const LONGEST: u64 = 10 * 365 * 86400;

impl Span {
    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Span(n)
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// No time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refused = || SpanError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let scale = match unit.trim() {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(refused()),
        };
        let number: u64 = number.parse().map_err(|_| refused())?;
        let seconds = number.checked_mul(scale).filter(|s| *s <= LONGEST);
        seconds.map(Span).ok_or_else(refused)
    }
}

impl fmt::Display for Span {
    /// In the largest unit that holds it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86400, "d"), (3600, "h"), (60, "m")];
        let fits = |(scale, _): &(u64, &str)| self.0 > 0 && self.0.is_multiple_of(*scale);
        match units.into_iter().find(fits) {
            Some((scale, unit)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}s", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        let text = match Written::deserialize(input)? {
            Written::Number(n) => n.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for (typed, seconds, shown) in [
            ("0", 0, "0s"),
            ("90", 90, "90s"),
            ("90s", 90, "90s"),
            ("60 s", 60, "1m"),
            ("5m", 300, "5m"),
            ("48h", 172_800, "2d"),
            ("3650d", LONGEST, "3650d"),
        ] {
            let span: Span = typed.parse().unwrap();
            assert_eq!((span, span.to_string().as_str()), (Span(seconds), shown));
            assert_eq!(shown.parse(), Ok(span));
        }
        for bad in [
            "",
            "s",
            "-1",
            "1.5h",
            "5 minutes",
            "3651d",
            "99999999999999999999",
            "1h30m",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
