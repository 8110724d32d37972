//! What an image says of how it is run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an image is to be run, where nothing else is asked for (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Program that every command is an argument of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Command, or arguments of the entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
}

/// The same as registries keep it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Told {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl From<Told> for ImageConfig {
    fn from(told: Told) -> Self {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        ImageConfig {
            entrypoint: told.entrypoint.unwrap_or_default(),
            cmd: told.cmd.unwrap_or_default(),
            env: told.env.unwrap_or_default(),
            workdir: text(told.working_dir),
            user: text(told.user),
            stop_signal: text(told.stop_signal),
            exposed_ports: told.exposed_ports.unwrap_or_default().into_keys().collect(),
        }
    }
}
