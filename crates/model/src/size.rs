//! Sizes with units, as users type them.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A number of bytes. Text form: `512M`, `4G`, `4GiB`; a plain number is MiB (R-CLI-7).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not `<number><unit>`.
    #[error("'{0}' is not a size; write 512M, 4G or a number of MiB")]
    Form(String),
    /// Zero or negative.
    #[error("a size is greater than zero, not '{0}'")]
    NotPositive(String),
    /// Does not fit 63 bits of bytes.
    #[error("'{0}' is larger than any disk")]
    TooLarge(String),
}

impl ByteSize {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        ByteSize(n << 20)
    }

    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        ByteSize(n << 30)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        if trimmed.starts_with('-') && trimmed[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SizeError::NotPositive(text.to_owned()));
        }
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "m" | "mb" | "mib" => 20,
            "k" | "kb" | "kib" => 10,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(SizeError::Form(text.to_owned())),
        };
        if number.is_empty() {
            return Err(SizeError::Form(text.to_owned()));
        }
        let too_large = || SizeError::TooLarge(text.to_owned());
        let number: u64 = number.parse().map_err(|_| too_large())?;
        match number
            .checked_mul(1 << shift)
            .filter(|n| *n <= i64::MAX as u64)
        {
            Some(0) => Err(SizeError::NotPositive(text.to_owned())),
            Some(bytes) => Ok(ByteSize(bytes)),
            None => Err(too_large()),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            // Exact where that reads well: 1536 MiB, but not 24684084 KiB.
            if (1..10_000).contains(&(self.0 >> shift)) && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        match self.0 {
            n if n >= 1 << 30 => write!(f, "{:.1} GiB", n as f64 / (1u64 << 30) as f64),
            n if n >= 1 << 20 => write!(f, "{:.1} MiB", n as f64 / (1u64 << 20) as f64),
            n => write!(f, "{n} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_users_type_them() {
        for (text, mib) in [
            ("512M", 512),
            ("4G", 4096),
            ("4GiB", 4096),
            ("4 gib", 4096),
            ("300", 300),
            ("1T", 1 << 20),
            ("2048K", 2),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize::mib(mib)), "{text}");
        }
        for bad in [
            "",
            "G",
            "4X",
            "1.5G",
            "0",
            "0G",
            "-1",
            "-4G",
            "99999999999999999999",
            "9999999T",
            "4G4",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize::gib(8).to_string(), "8 GiB");
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536 MiB");
        assert_eq!(ByteSize(24_684_084 << 10).to_string(), "23.5 GiB");
    }
}
