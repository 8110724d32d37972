//! `set`: another shape for a VM that is down (R-CLI-3). Only the spec changes; disks are grown when the VM starts, by
//! the same convergence as everything else, so that there is nothing to undo.

use crate::request::{self, Accepted, RequestError, decide};
use crate::{Change, Env, Ledger, settled};
use banger_host::Host;
use banger_model::{ByteSize, Goal, Phase, Role, Vm, VmId, VmSpec};

/// What is to be different; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewShape {
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Guest memory.
    pub memory: Option<ByteSize>,
    /// The overlay (or CoW) disk.
    pub overlay_size: Option<ByteSize>,
    /// The work disk.
    pub disk_size: Option<ByteSize>,
}

impl NewShape {
    /// The spec with the changes in it.
    pub fn of(&self, spec: &VmSpec) -> VmSpec {
        VmSpec {
            vcpus: self.vcpus.unwrap_or(spec.vcpus),
            memory: self.memory.unwrap_or(spec.memory),
            overlay_size: self.overlay_size.unwrap_or(spec.overlay_size),
            disk_size: self.disk_size.unwrap_or(spec.disk_size),
            ..spec.clone()
        }
    }
}

/// Gives a stopped VM another shape, durable when this returns: `vm.json`, then the row. It is a request like any
/// other, with a generation of its own.
///
/// # Errors
/// The VM is not down, a disk would shrink, or an effect failed.
pub fn set<H: Host, L: Ledger, R>(
    env: &Env<'_, H, L, R>,
    id: VmId,
    shape: &NewShape,
) -> Result<Accepted, RequestError> {
    decide(env, id, |vm| {
        allowed(vm)?;
        let spec = shape.of(&vm.spec);
        grows_only(env, vm, &spec)?;
        Ok((spec != vm.spec).then(|| Change {
            goal: Some(Goal::Stopped),
            spec: Some(spec),
            ..Change::default()
        }))
    })
}

/// Whether a VM takes another shape now.
///
/// # Errors
/// It is not down, with what to do.
pub fn allowed(vm: &Vm) -> Result<(), RequestError> {
    settled::at_rest(vm)?;
    match vm.phase {
        Phase::Error => Err(request::conflict(
            vm,
            "is in phase error",
            &request::way_out(vm),
        )),
        Phase::Running => Err(request::conflict(
            vm,
            "is running, and what it has now was given to it when it started",
            &format!(
                "banger vm stop {name}, then set, then banger vm start {name}",
                name = vm.name
            ),
        )),
        _ => Ok(()),
    }
}

/// A disk is as large as its file: what was asked for and never came to be, because the VM was not started since or the
/// host's file system cannot hold it, can be taken back.
fn grows_only<H: Host, L, R>(
    env: &Env<'_, H, L, R>,
    vm: &Vm,
    spec: &VmSpec,
) -> Result<(), RequestError> {
    for role in vm.spec.drivers.data_roles() {
        let (Some(said), Some(wanted)) = (vm.spec.disk_of(role), spec.disk_of(role)) else {
            continue;
        };
        let file = match env.site.disk(vm.id, role) {
            Some(path) => env.host.stat(&path)?,
            None => None,
        };
        let is = file.map_or(said, |file| said.min(ByteSize(file.len)));
        if wanted < is {
            // Told in the numbers that a user gives, which have nothing of the image in them.
            let image = spec.image_in(role).bytes();
            let asked = |disk: ByteSize| ByteSize(disk.bytes().saturating_sub(image));
            return Err(RequestError::Shrinks {
                what: match role {
                    Role::WorkDisk => "work disk",
                    _ => "overlay disk",
                },
                name: vm.name.clone(),
                is: asked(is),
                wanted: asked(wanted),
            });
        }
    }
    Ok(())
}
