//! What an image says of how it is run.

use banger_model::ImageConfig;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How an image is to be run, as registries keep it.
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
