//! Lengths of time with units, as users type them.

use std::{fmt, str::FromStr, time::Duration};

/// Whole seconds, up to ten years. Text form: `90s`, `5m`, `2h`, `7d`, `2w`; a plain number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// Why a text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no length of time up to 10 years; write 90, 90s, 5m, 12h, 7d or 2w")]
pub struct SpanError(String);

/// Units and their seconds, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("w", 604_800),
    ("d", 86_400),
    ("h", 3600),
    ("m", 60),
    ("s", 1),
];

/// Ten years: beyond it a sum with a time of day could overflow, and nobody waits.
const LONGEST: u64 = 10 * 365 * 86_400;

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
        let named = |(name, _): &&(&str, u64)| *name == unit.trim();
        let scale = match unit.trim() {
            "" => 1,
            _ => UNITS.iter().find(named).ok_or_else(refused)?.1,
        };
        let number: u64 = number.parse().map_err(|_| refused())?;
        let seconds = number.checked_mul(scale).filter(|s| *s <= LONGEST);
        seconds.map(Span).ok_or_else(refused)
    }
}

impl fmt::Display for Span {
    /// In the largest unit that holds it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*scale);
        match UNITS.iter().find(fits) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "0s"),
        }
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
            ("7d", 604_800, "1w"),
            ("2w", 1_209_600, "2w"),
            ("3650d", LONGEST, "3650d"),
        ] {
            let span: Span = typed.parse().unwrap();
            assert_eq!(
                (span, span.to_string().as_str()),
                (Span(seconds), shown),
                "{typed}"
            );
            assert_eq!(shown.parse(), Ok(span));
        }
        for bad in [
            "",
            "s",
            "-1",
            "-1s",
            "1.5h",
            "1y",
            "5 minutes",
            "3651d",
            "99999999999999999999",
            "9999999999999999w",
            "1h30m",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
