//! The version tuple that `banger version`, `daemon status` and the API share (R-PROG-1).

use super::API_VERSION;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a program was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// Release, semantic versioning.
    pub version: String,
    /// Version of the API.
    pub api: u32,
    /// Unix time in seconds of the sources it was built from; 0 where the build did not say (set
    /// `BANGER_BUILD` when building). Of two builds of a release the greater is the newer one.
    pub build: u64,
}

/// What `banger version --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Versions {
    /// The command line.
    pub client: Version,
    /// The daemon; null if none runs.
    pub daemon: Option<Version>,
}

/// What `banger daemon status --json` prints where no daemon runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotRunning {
    /// Always false.
    pub running: bool,
    /// Where it would listen.
    pub socket: PathBuf,
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
