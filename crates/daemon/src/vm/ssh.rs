//! banger's own `known_hosts` (R-GUEST-5). The pins are a view: the file is rendered whole from the VMs that are there, so a
//! VM that is gone, or has another name, takes its pin along.

use super::{Result, VmService, ledger_error};
use crate::core::Core;
use crate::ssh_keys::{host_key, make_directory};
use banger_converge::Ledger;
use banger_host::{Files, state_file};
use banger_model::Vm;
use banger_wire::api::{ApiError, Code, SshView};
use ssh_key::{LineEnding, PrivateKey};
use std::path::{Path, PathBuf};

impl VmService {
    /// `vm.ssh`.
    ///
    /// # Errors
    /// No such VM, it does not run, or its pin cannot be written.
    pub async fn ssh(&self, reference: &str) -> Result<SshView> {
        let (vm, _) = self.session_again(reference).await?;
        let _one_at_a_time = self.pins.lock().await;
        self.core
            .blocking(move |core| {
                let key = host_key(&vm).map_err(|e| unmade(&e))?;
                let text = key.to_openssh(LineEnding::LF).map_err(|e| unmade(&e))?;
                let view = SshView {
                    id: vm.id,
                    host_key: text.to_string(),
                    public_key: public(&key)?,
                    known_hosts: known_hosts(&core.site.state_dir),
                    name: vm.name,
                };
                pin(core, true)?;
                Ok(view)
            })
            .await?
    }

    /// Drops the pins of VMs that are gone.
    pub(super) async fn unpin(&self) {
        let _one_at_a_time = self.pins.lock().await;
        match self.core.blocking(|core| pin(core, false)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => tracing::warn!(%error, "known_hosts is out of date"),
        }
    }
}

/// banger's own `known_hosts`.
fn known_hosts(state_dir: &Path) -> PathBuf {
    state_dir.join("ssh/known_hosts")
}

/// The public half of a VM's key.
fn public(key: &PrivateKey) -> Result<String> {
    key.public_key().to_openssh().map_err(|e| unmade(&e))
}

/// Writes `known_hosts` anew if it is not as it should be; whether one is made where there is none, `first` says.
fn pin(core: &Core, first: bool) -> Result<()> {
    let failed = |e: banger_host::Error| ApiError::of(Code::OperationFailed, &e);
    let path = known_hosts(&core.site.state_dir);
    let there = core.host.read(&path).map_err(failed)?;
    if there.is_none() && !first {
        return Ok(());
    }
    let mut lines =
        String::from("# banger's own; written anew with every VM that is reached by ssh.\n");
    for vm in core.ledger.vms().map_err(|e| ledger_error(&e))? {
        let key = host_key(&vm).map_err(|e| unmade(&e))?;
        lines.push_str(&line(&vm, &public(&key)?));
    }
    if there.as_deref() == Some(lines.as_bytes()) {
        return Ok(());
    }
    make_directory(&core.host, &core.site.state_dir).map_err(failed)?;
    state_file::replace(&*core.host, &path, lines.as_bytes()).map_err(failed)
}

/// A VM is known by its name, its id and its address.
fn line(vm: &Vm, public: &str) -> String {
    format!("{}.vm,{}.vm,{} {public}\n", vm.name, vm.id, vm.lease.ip)
}

fn unmade(error: &ssh_key::Error) -> ApiError {
    ApiError::new(Code::OperationFailed, "an SSH host key cannot be made").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_pinned_by_name_id_and_address() {
        let vm: Vm =
            serde_json::from_str(include_str!("../../../converge/tests/row.json")).unwrap();
        let line = line(&vm, &public(&host_key(&vm).unwrap()).unwrap());
        let start = "dev.vm,010101010101.vm,172.16.0.2 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA";
        assert!(line.starts_with(start), "{line}");
    }
}
