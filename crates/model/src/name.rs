//! Validated names. The only makers of kernel names and of `.vm` names.

use crate::{Instance, VmId};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text cannot be a VM's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or longer than a DNS label.
    #[error("a name has 1 to 63 characters, '{0}' has {n}", n = .0.len())]
    Length(String),
    /// A character outside `[a-z0-9-]`.
    #[error("a name has only a-z, 0-9 and '-', not {1:?} as in '{0}'")]
    Character(String, char),
    /// A hyphen at an edge.
    #[error("a name neither begins nor ends with '-': '{0}'")]
    Edge(String),
    /// Could be read as an id.
    #[error("'{0}' has the form of a VM id (12 hex digits); choose another name")]
    LooksLikeId(String),
}

/// What stands behind a VM's name where it is a host's.
const DOMAIN: &str = ".vm";

/// A VM's name: a DNS label that is not of the form of an id (R-CLI-7). Never rewritten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")))]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl VmName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<name>.vm`; the only maker of `.vm` names (R-NET-2).
    pub fn dns(&self) -> String {
        format!("{}{DOMAIN}", self.0)
    }

    /// What was typed for a VM without the `.vm` that may stand behind a name.
    pub fn without_domain(typed: &str) -> &str {
        typed.strip_suffix(DOMAIN).unwrap_or(typed)
    }
}

impl FromStr for VmName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.to_owned();
        if let Some(c) = text
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
        {
            return Err(NameError::Character(text, c));
        }
        if text.is_empty() || text.len() > 63 {
            return Err(NameError::Length(text));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Edge(text));
        }
        if text.parse::<VmId>().is_ok() {
            return Err(NameError::LooksLikeId(text));
        }
        Ok(VmName(text))
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for VmName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

/// Name of a tap device: at most 15 bytes (`IFNAMSIZ` - 1, linux/if.h). `bgr` and the VM id: unique
/// within a kernel with overwhelming likelihood; the label in `ifalias` proves the owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TapName(String);

impl TapName {
    /// The tap of this VM.
    pub fn of_vm(vm: VmId) -> Self {
        TapName(format!("bgr{vm}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a device-mapper device: at most 127 bytes (`DM_NAME_LEN` - 1, linux/dm-ioctl.h).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DmName(String);

impl DmName {
    /// The root snapshot of this VM.
    pub fn of_vm(instance: Instance, vm: VmId) -> Self {
        DmName(format!("banger1-{instance}-{vm}-root"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for DmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_and_not_ids() {
        for good in ["a", "dev", "dev-2", "0", "00ab12cd34e", &"a".repeat(63)] {
            assert_eq!(good.parse::<VmName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Dev",
            "dev_2",
            "-dev",
            "dev-",
            "a.b",
            "dév",
            "00ab12cd34ef",
            &"a".repeat(64),
            "a b",
            "a/b",
        ] {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kernel_names_fit() {
        let id = VmId::from_bytes([0xff; 6]);
        assert_eq!(TapName::of_vm(id).as_str().len(), 15);
        assert!(
            DmName::of_vm(Instance::from_bytes([0xff; 4]), id)
                .as_str()
                .len()
                <= 127
        );
    }
}
