//! Lengths of time as they are typed: `30s`, `5m`, `1h`, `7d`, `2w`, or seconds.

use std::{fmt, str::FromStr, time::Duration};

/// A length of time with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no length of time; write 30s, 5m, 12h, 7d, 2w or a number of seconds")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let seconds = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        let whole = number.checked_mul(seconds).ok_or_else(error)?;
        Ok(Span(Duration::from_secs(whole)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        let units = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)];
        let fits = |(_, seconds): &&(&str, u64)| whole > 0 && whole.is_multiple_of(*seconds);
        match units.iter().find(fits) {
            Some((unit, seconds)) => write!(f, "{}{unit}", whole / seconds),
            None => write!(f, "{whole}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        for (text, seconds, shown) in [
            ("0", 0, "0s"),
            ("90", 90, "90s"),
            ("30s", 30, "30s"),
            ("120s", 120, "2m"),
            ("12h", 43_200, "12h"),
            ("7d", 604_800, "1w"),
            ("2w", 1_209_600, "2w"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds, "{text}");
            assert_eq!(span.to_string(), shown);
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1.5h",
            "1y",
            "7 d",
            "99999999999999999999",
            "9999999999999999w",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
