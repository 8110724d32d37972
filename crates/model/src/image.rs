//! How an image is run.

use serde::{Deserialize, Serialize};

/// How an image is to be run, as its builder said it (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageConfig {
    /// Program that every command is an argument of.
    pub entrypoint: Vec<String>,
    /// Command, or arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Directory it begins in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User, by name or number, perhaps with `:group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Signal that asks it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Ports it listens on, `80/tcp`.
    pub exposed_ports: Vec<String>,
}
