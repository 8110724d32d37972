//! Keys of SSH: who a VM is, and who is let in by an sshd of its image (R-GUEST-4).

use crate::core::DaemonHost;
use crate::ops;
use banger_host::{Files, state_file};
use banger_model::Vm;
use banger_wire::api::{ApiError, Code};
use banger_wire::guest::SshFacts;
use sha2::{Digest, Sha256};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use std::path::{Path, PathBuf};

/// What else may be made of the same secret begins otherwise.
const PURPOSE: &[u8] = b"banger SSH host key 1\0";
/// Comment of the user's key, by which it is known in a guest.
const COMMENT: &str = "banger";

/// A VM's host key. It is made of the VM's id and the secret of its channel, so it is the same as long as the VM is
/// there, whatever becomes of its disks, and there is no file that could be damaged.
///
/// # Errors
/// A bug of ours.
pub fn host_key(vm: &Vm) -> Result<PrivateKey, ssh_key::Error> {
    let mut seed = Sha256::new_with_prefix(PURPOSE);
    seed.update(vm.id.to_string());
    seed.update([0]);
    seed.update(&vm.spec.channel_token);
    let pair = Ed25519Keypair::from_seed(&seed.finalize().into());
    PrivateKey::new(pair.into(), format!("banger {}", vm.id))
}

/// The key pair that is let in by the sshd of every VM: the private half, which the user's `ssh` reads.
pub fn identity(state_dir: &Path) -> PathBuf {
    state_dir.join("ssh/id_ed25519")
}

fn public(identity: &Path) -> PathBuf {
    identity.with_extension("pub")
}

/// Makes that pair if it is not there; the user may put another in its place.
///
/// # Errors
/// The files cannot be written, or the private half is none and the public one is missing.
pub fn make_identity(host: &DaemonHost, state_dir: &Path) -> Result<(), ApiError> {
    let path = identity(state_dir);
    let failed = |e: banger_host::Error| ApiError::of(Code::OperationFailed, &e);
    if host.stat(&public(&path)).map_err(failed)?.is_some() {
        return Ok(());
    }
    let bad = |e: ssh_key::Error| {
        let text = format!("the SSH key {} cannot be used", path.display());
        ApiError::new(Code::OperationFailed, text)
            .caused_by(&e)
            .hint("remove it; the daemon makes a new one when it starts")
    };
    let key = match host.read(&path).map_err(failed)? {
        Some(text) => PrivateKey::from_openssh(text).map_err(bad)?,
        None => {
            let pair = Ed25519Keypair::from_seed(&ops::random()?);
            let key = PrivateKey::new(pair.into(), COMMENT).map_err(bad)?;
            let text = key.to_openssh(LineEnding::LF).map_err(bad)?;
            make_directory(host, state_dir).map_err(failed)?;
            state_file::replace(host, &path, text.as_bytes()).map_err(failed)?;
            key
        }
    };
    let line = key.public_key().to_openssh().map_err(bad)? + "\n";
    state_file::replace(host, &public(&path), line.as_bytes()).map_err(failed)
}

/// Makes the directory of keys and pins if it is not there.
///
/// # Errors
/// It cannot be made.
pub fn make_directory(host: &DaemonHost, state_dir: &Path) -> Result<(), banger_host::Error> {
    let directory = state_dir.join("ssh");
    match host.stat(&directory)? {
        Some(_) => Ok(()),
        None => host.mkdir(&directory),
    }
}

/// What a guest is told. Without a key of the user nobody is let in, and all else is as ever.
///
/// # Errors
/// A bug of ours.
pub fn facts(host: &DaemonHost, state_dir: &Path, vm: &Vm) -> Result<SshFacts, ssh_key::Error> {
    let key = host_key(vm)?;
    let path = public(&identity(state_dir));
    let line = match host.read(&path) {
        Ok(line) => line,
        Err(error) => {
            tracing::warn!(%error, "no key is let in by the sshd of a VM");
            None
        }
    };
    Ok(SshFacts {
        host_key: key.to_openssh(LineEnding::LF)?.to_string(),
        host_public_key: key.public_key().to_openssh()? + "\n",
        authorized_key: line.as_deref().and_then(one_key),
    })
}

/// The key of a `.pub` file; `None` if it is not one line with one.
fn one_key(bytes: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(bytes).ok()?.trim();
    let is_one = !line.contains('\n') && line.split_whitespace().nth(1).is_some();
    is_one.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> Vm {
        serde_json::from_str(include_str!("../../converge/tests/row.json")).unwrap()
    }

    #[test]
    fn a_vm_has_one_key_and_no_other_vm_has_it() {
        let text = |vm: &Vm| host_key(vm).unwrap().to_openssh(LineEnding::LF).unwrap();
        let first = text(&vm());
        assert_eq!(first, text(&vm()), "to the byte: guests compare");
        let line = host_key(&vm()).unwrap().public_key().to_openssh().unwrap();
        // Known to clients: another derivation would be another identity of every VM.
        let pinned =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAyyezSSoSR2eIv9hj+G6oN8b1Qx17jNCEraMJPUCPd7";
        assert_eq!(line, format!("{pinned} banger 010101010101"));
        let mut other = vm();
        other.spec.channel_token = "0f".repeat(16);
        assert_ne!(first, text(&other), "another secret");
        let mut other = vm();
        other.id = "020202020202".parse().unwrap();
        assert_ne!(first, text(&other), "another id");
    }

    #[test]
    fn only_one_whole_key_is_let_in() {
        assert_eq!(
            one_key(b" ssh-rsa AAAA me\n").as_deref(),
            Some("ssh-rsa AAAA me")
        );
        for none in [&b""[..], b"\n", b"ssh-rsa", b"a b\nc d\n", b"a \xff"] {
            assert_eq!(one_key(none), None, "{none:?}");
        }
    }
}
