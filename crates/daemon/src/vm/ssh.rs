//! Host keys of VMs, and banger's own `known_hosts` (R-GUEST-5).
//!
//! A VM's key lies in its directory and goes with it. The pins are a view: the file is rendered whole from the VMs that
//! have a key, so a VM that is gone, or has another name, takes its pin along.

use super::{Result, VmService, ledger_error};
use crate::core::Core;
use crate::ops;
use banger_converge::Ledger;
use banger_host::{Files, state_file};
use banger_model::Vm;
use banger_wire::api::{ApiError, Code, SshView};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use std::path::{Path, PathBuf};

impl VmService {
    /// `vm.ssh`.
    ///
    /// # Errors
    /// No such VM, it does not run, or its key cannot be read or made.
    pub async fn ssh(&self, reference: &str) -> Result<SshView> {
        let (vm, _) = self.session_again(reference).await?;
        let _one_at_a_time = self.pins.lock().await;
        self.core
            .blocking(move |core| {
                let key = host_key(core, &vm)?;
                let view = SshView {
                    id: vm.id,
                    host_key: key
                        .to_openssh(LineEnding::LF)
                        .map_err(|e| damaged(&vm, &e))?
                        .to_string(),
                    public_key: public(&key, &vm)?,
                    known_hosts: known_hosts(&core.site.state_dir),
                    name: vm.name,
                };
                pin(core)?;
                Ok(view)
            })
            .await?
    }

    /// Drops the pins of VMs that are gone.
    pub(super) async fn unpin(&self) {
        let _one_at_a_time = self.pins.lock().await;
        match self.core.blocking(pin).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => tracing::warn!(%error, "known_hosts is out of date"),
        }
    }
}

/// banger's own `known_hosts`.
fn known_hosts(state_dir: &Path) -> PathBuf {
    state_dir.join("ssh/known_hosts")
}

fn key_file(core: &Core, vm: &Vm) -> PathBuf {
    core.site.vm_dir(vm.id).join("ssh_host_ed25519_key")
}

/// The VM's key, made if there is none. One that is damaged is told, never replaced: clients have pinned it.
fn host_key(core: &Core, vm: &Vm) -> Result<PrivateKey> {
    let path = key_file(core, vm);
    let failed = |e: banger_host::Error| ApiError::of(Code::OperationFailed, &e);
    if let Some(text) = core.host.read(&path).map_err(failed)? {
        return PrivateKey::from_openssh(text).map_err(|e| damaged(vm, &e));
    }
    let pair = Ed25519Keypair::from_seed(&ops::random()?);
    let key = PrivateKey::new(pair.into(), format!("banger {}", vm.id));
    let key = key.map_err(|e| damaged(vm, &e))?;
    let text = key.to_openssh(LineEnding::LF);
    let text = text.map_err(|e| damaged(vm, &e))?;
    state_file::replace(&*core.host, &path, text.as_bytes()).map_err(failed)?;
    Ok(key)
}

fn public(key: &PrivateKey, vm: &Vm) -> Result<String> {
    let line = key.public_key().to_openssh();
    line.map_err(|e| damaged(vm, &e))
}

/// Writes `known_hosts` anew if it is not as it should be.
fn pin(core: &Core) -> Result<()> {
    let failed = |e: banger_host::Error| ApiError::of(Code::OperationFailed, &e);
    let path = known_hosts(&core.site.state_dir);
    let mut lines =
        String::from("# banger's own; written anew with every VM that is reached by ssh.\n");
    let mut any = false;
    for vm in core.ledger.vms().map_err(|e| ledger_error(&e))? {
        let text = match core.host.read(&key_file(core, &vm)) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            // Who asks for its VM is told; the others are reached all the same.
            Err(error) => {
                tracing::warn!(vm = %vm.id, %error, "its SSH host key cannot be read");
                continue;
            }
        };
        // Of a damaged one nothing is pinned: who asks for its VM is told.
        if let Ok(key) = PrivateKey::from_openssh(text) {
            any = true;
            lines.push_str(&line(&vm, &public(&key, &vm)?));
        }
    }
    let there = core.host.read(&path).map_err(failed)?;
    if there.as_deref() == Some(lines.as_bytes()) || (there.is_none() && !any) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if core.host.stat(directory).map_err(failed)?.is_none() {
        core.host.mkdir(directory).map_err(failed)?;
    }
    state_file::replace(&*core.host, &path, lines.as_bytes()).map_err(failed)
}

/// A VM is known by its name, its id and its address.
fn line(vm: &Vm, public: &str) -> String {
    format!("{}.vm,{}.vm,{} {public}\n", vm.name, vm.id, vm.lease.ip)
}

fn damaged(vm: &Vm, error: &ssh_key::Error) -> ApiError {
    ApiError::new(
        Code::OperationFailed,
        format!("the SSH host key of VM '{}' is damaged", vm.name),
    )
    .caused_by(error)
    .hint(format!(
        "remove ssh_host_ed25519_key in the directory that banger vm show {} names; a new one is made",
        vm.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_pinned_by_name_id_and_address() {
        let vm: Vm =
            serde_json::from_str(include_str!("../../../converge/tests/row.json")).unwrap();
        let pair = Ed25519Keypair::from_seed(&[7; 32]);
        let key = PrivateKey::new(pair.into(), "x").unwrap();
        let line = line(&vm, &public(&key, &vm).unwrap());
        let start = "dev.vm,010101010101.vm,172.16.0.2 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA";
        assert!(line.starts_with(start), "{line}");
    }
}
