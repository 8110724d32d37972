//! The label every object on the host carries: `banger1/<instance>/<vm id or pool>/<role>`. It is
//! the journal: a restarted daemon finds what it owns by looking for it, and only it proves
//! ownership (R-HOST-6).

use crate::{Instance, Role, VmId};
use std::{fmt, str::FromStr};

/// Format version of labels; the first path component.
pub const LABEL_PREFIX: &str = "banger1";

/// Whose an object is: one VM's, or the instance's shared pool (bridge, spare taps).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Belongs to this VM.
    Vm(VmId),
    /// Shared by the VMs of the instance.
    Pool,
}

/// An owner and role within an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The state directory the object belongs to.
    pub instance: Instance,
    /// Whose it is within the instance.
    pub owner: Owner,
    /// What it is for.
    pub role: Role,
}

impl Label {
    /// The longest label in bytes: it must fit `lo_file_name` (63 bytes and a NUL, linux/loop.h),
    /// `DM_UUID_LEN` (129) and `IFALIASZ` (256).
    pub const MAX_LEN: usize = 63;

    /// Label of a VM's object.
    pub const fn vm(instance: Instance, vm: VmId, role: Role) -> Self {
        Label {
            instance,
            owner: Owner::Vm(vm),
            role,
        }
    }

    /// The VM the object belongs to, if it is a VM's.
    pub const fn vm_id(&self) -> Option<VmId> {
        match self.owner {
            Owner::Vm(id) => Some(id),
            Owner::Pool => None,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LABEL_PREFIX}/{}/", self.instance)?;
        match self.owner {
            Owner::Vm(id) => write!(f, "{id}")?,
            Owner::Pool => f.write_str("pool")?,
        }
        write!(f, "/{}", self.role)
    }
}

/// A text that is not one of our labels (a foreign object).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a banger label")]
pub struct LabelError(String);

impl FromStr for Label {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let bad = || LabelError(text.to_owned());
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or_else(bad);
        if part()? != LABEL_PREFIX {
            return Err(bad());
        }
        let instance = part()?.parse().map_err(|_| bad())?;
        let owner = match part()? {
            "pool" => Owner::Pool,
            id => Owner::Vm(id.parse().map_err(|_| bad())?),
        };
        let role = part()?.parse().map_err(|_| bad())?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Label {
            instance,
            owner,
            role,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_round_trip_and_fit_every_kernel_field() {
        let instance = Instance::from_bytes([0xaa; 4]);
        for role in Role::ALL {
            for owner in [Owner::Pool, Owner::Vm(VmId::from_bytes([7; 6]))] {
                let label = Label {
                    instance,
                    owner,
                    role,
                };
                let text = label.to_string();
                assert!(text.len() <= Label::MAX_LEN, "{text}");
                assert_eq!(text.parse(), Ok(label));
            }
        }
    }

    #[test]
    fn foreign_texts_are_refused() {
        for bad in [
            "",
            "banger1",
            "banger2/aaaaaaaa/pool/tap",
            "banger1/aaaaaaaa/pool/tap/x",
            "banger1/aaaaaaaa/pool",
            "banger1/AAAAAAAA/pool/tap",
            "banger1/aaaaaaaa/vm/tap",
            "banger1/aaaaaaaa/pool/root",
        ] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
