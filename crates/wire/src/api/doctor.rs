//! What `doctor` found: printed by `bangerd --doctor`, told by the command line. No method: it needs no daemon (R-OPS-1).

use serde::{Deserialize, Serialize};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As it should be.
    Pass,
    /// Works, and could be better.
    Warn,
    /// VMs cannot be had before this is mended.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DoctorRow {
    /// What it belongs to: `machine`, `programs`, `state`, `vmm`, `drivers`, `images`, `defaults`.
    pub area: String,
    /// What was looked at.
    pub what: String,
    /// How it stands.
    pub status: Standing,
    /// What was seen.
    pub seen: String,
    /// The way out, always there unless it passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl DoctorRow {
    /// As it should be.
    pub fn pass(area: &str, what: &str, seen: impl Into<String>) -> Self {
        DoctorRow {
            area: area.to_owned(),
            what: what.to_owned(),
            status: Standing::Pass,
            seen: seen.into(),
            hint: None,
        }
    }

    /// Works, and could be better.
    pub fn warn(area: &str, what: &str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        DoctorRow {
            status: Standing::Warn,
            hint: Some(hint.into()),
            ..Self::pass(area, what, seen)
        }
    }

    /// VMs cannot be had.
    pub fn fail(area: &str, what: &str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        DoctorRow {
            status: Standing::Fail,
            ..Self::warn(area, what, seen, hint)
        }
    }
}
