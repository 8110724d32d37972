//! Identifiers: fixed-width lower-case hex where they end in kernel names, plain numbers elsewhere.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {digits} lower-case hex digits, not '{text}'")]
pub struct IdError {
    what: &'static str,
    digits: usize,
    text: String,
}

fn parse_hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let bad = || IdError {
        what,
        digits: 2 * N,
        text: text.to_owned(),
    };
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(bad());
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(extend("pattern" = format!("^[0-9a-f]{{{}}}$", 2 * $bytes))))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Number of hex digits in the text form.
            pub const DIGITS: usize = 2 * $bytes;

            /// The id made of these bytes (callers take them from a random source).
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn bytes(self) -> [u8; $bytes] {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(crate::hex::encode_into(&self.0, &mut [0; 2 * $bytes]))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex($what, text).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// Identity of a VM: 12 lower-case hex digits, for ever (R-HOST-6).
    VmId, 6, "a VM id"
);
hex_id!(
    /// Identity of a state directory: 8 lower-case hex digits, made once with it (R-HOST-6).
    Instance, 4, "an instance"
);
hex_id!(
    /// Identity of one accepted operation, named by every error and log line of it (R-OPS-2).
    OpId, 6, "an operation id"
);

/// The kernel's `/proc/sys/kernel/random/boot_id`: handles of another boot are void (R-STATE-7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BootId(pub String);

/// Counts the goals a VM was given; the executor acts only for the newest (R-SVC-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation a VM is created with.
    pub const FIRST: Generation = Generation(1);

    /// The generation of the next accepted goal.
    pub const fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_lower_case_hex() {
        let id: VmId = "00ab12cd34ef".parse().unwrap();
        assert_eq!(id.to_string(), "00ab12cd34ef");
        for bad in [
            "",
            "00ab12cd34e",
            "00ab12cd34eff",
            "00AB12cd34ef",
            "00ab12cd34eg",
            "00ab12cd34é",
        ] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00ab12cd34ef\"");
        assert!(serde_json::from_str::<VmId>("\"xyz\"").is_err());
    }
}
