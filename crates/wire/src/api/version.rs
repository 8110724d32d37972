//! The version tuple that `banger version`, `daemon status` and the API share (R-PROG-1).

use super::API_VERSION;
use serde::{Deserialize, Serialize};

/// What a program was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Release, semantic versioning.
    pub version: String,
    /// Version of the API.
    pub api: u32,
    /// Unix time in seconds of the sources it was built from; 0 where the build did not say (set
    /// `BANGER_BUILD` when building). Of two builds of a release the greater is the newer one.
    pub build: u64,
}

impl Version {
    /// The version of this build.
    pub fn current() -> Self {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: API_VERSION,
            build: option_env!("BANGER_BUILD")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
        }
    }
}
