//! What an image brought along beside its files: the layers it was made of, its history, its labels.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an image's own configuration says of how it came to be (OCI image specification, "Image Configuration"). Nothing of it
/// changes how the image is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageOrigin {
    /// When it was built, as its configuration says it (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// sha256 of its configuration, in hex: what Docker calls the image's id.
    pub config: String,
    /// Its layers, oldest first.
    pub layers: Vec<ImageLayer>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it was built, oldest step first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ImageStep>,
}

/// A layer that an image was made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageLayer {
    /// sha256 of it as it came, in hex: what a registry calls it.
    pub sha256: String,
    /// sha256 of it unpacked, in hex (`diff_id`).
    pub diff_id: String,
    /// Bytes as it came.
    pub size: u64,
    /// Bytes unpacked.
    pub unpacked: u64,
}

/// A step of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ImageStep {
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Its builder's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageOrigin {
    /// Each step, oldest first, with the layer it made.
    pub fn steps(&self) -> Vec<(&ImageStep, Option<&ImageLayer>)> {
        let mut layers = self.layers.iter();
        let step = |step| (step, made_by(step, &mut layers));
        self.history.iter().map(step).collect()
    }
}

fn made_by<'a>(
    step: &ImageStep,
    layers: &mut impl Iterator<Item = &'a ImageLayer>,
) -> Option<&'a ImageLayer> {
    match step.empty_layer {
        true => None,
        false => layers.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_made_a_layer_have_theirs() {
        let step = |empty_layer| ImageStep {
            empty_layer,
            ..ImageStep::default()
        };
        let layer = |unpacked| ImageLayer {
            unpacked,
            ..ImageLayer::default()
        };
        let origin = ImageOrigin {
            layers: vec![layer(1), layer(2)],
            history: [false, true, false, false].map(step).to_vec(),
            ..ImageOrigin::default()
        };
        let sizes = origin.steps().into_iter();
        let sizes: Vec<_> = sizes.map(|(_, layer)| layer.map(|l| l.unpacked)).collect();
        assert_eq!(sizes, [Some(1), None, Some(2), None]);
    }
}
