//! What the user's own `ssh` needs to reach a VM.

use super::request::vm_request;
use banger_model::{VmId, VmName};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

vm_request!(
    /// `vm.ssh`: who a running VM is for an SSH client. Its host key is in banger's own `known_hosts` before this is answered.
    VmSsh
);

/// Answer of `vm.ssh`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SshView {
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// The VM's private host key in OpenSSH's form.
    pub host_key: String,
    /// The public one, as in a `known_hosts` file.
    pub public_key: String,
    /// banger's own `known_hosts`.
    pub known_hosts: PathBuf,
}

/// Without the key.
impl std::fmt::Debug for SshView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshView")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
