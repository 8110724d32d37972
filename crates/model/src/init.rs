//! Who is PID 1 in a guest.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text names no init.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Neither a word nor a path.
    #[error("an init is 'agent', 'image' or an absolute path in the guest, not '{0}'")]
    Unknown(String),
    /// No program can have this name.
    #[error("a path has no zero byte")]
    ZeroByte,
}

/// Who is PID 1 in a guest, as text: `agent`, `image`, or the path of a program in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^(agent|image|/.*[^/])$")))]
#[serde(try_from = "String", into = "String")]
pub enum Init {
    /// banger's agent: nothing but the user's commands runs beside it.
    #[default]
    Agent,
    /// The image's own, where an init usually is; the agent serves beside it.
    Image,
    /// This program of the image.
    Path(String),
}

impl FromStr for Init {
    type Err = InitError;
    fn from_str(text: &str) -> Result<Self, InitError> {
        match text {
            "agent" => Ok(Init::Agent),
            "image" => Ok(Init::Image),
            _ if text.contains('\0') => Err(InitError::ZeroByte),
            _ if text.starts_with('/') && !text.ends_with('/') => Ok(Init::Path(text.to_owned())),
            _ => Err(InitError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Init::Agent => "agent",
            Init::Image => "image",
            Init::Path(path) => path,
        })
    }
}

impl TryFrom<String> for Init {
    type Error = InitError;
    fn try_from(text: String) -> Result<Self, InitError> {
        text.parse()
    }
}

impl From<Init> for String {
    fn from(init: Init) -> Self {
        init.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_absolute_paths_are_inits() {
        for text in ["agent", "image", "/sbin/init"] {
            let init: Init = text.parse().unwrap();
            assert_eq!(init.to_string(), text);
            let json = serde_json::to_string(&init).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Init>(&json).unwrap(), init);
        }
        for text in ["", "systemd", "sbin/init", "/", "/sbin/", "/a\0b"] {
            assert!(text.parse::<Init>().is_err(), "{text:?}");
        }
    }
}
