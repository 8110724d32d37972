//! What an image says of how it is run, and of how it was built.

use banger_model::{ImageConfig, ImageStep};
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
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// A step of an image's history. Builders write `null` for what they do not know.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    created: Option<String>,
    created_by: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

impl From<Step> for ImageStep {
    fn from(told: Step) -> Self {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        ImageStep {
            created: text(told.created),
            created_by: text(told.created_by),
            author: text(told.author),
            comment: text(told.comment),
            empty_layer: told.empty_layer.unwrap_or_default(),
        }
    }
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
