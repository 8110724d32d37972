//! `vm.set`: another shape for a VM that is down.

use super::shape::{self, Sized};
use super::{VmService, preflight, request_error};
use crate::ops::Operation;
use banger_converge::{
    request,
    set::{self, NewShape},
};
use banger_wire::api::{ApiError, VmSet, VmView};
use std::sync::Arc;

impl VmService {
    /// `vm.set`: another shape of a VM that is down, and another network of any; the shape first, so that all of it is
    /// refused if the VM is not down.
    ///
    /// # Errors
    /// As [`VmService::reshape`] and [`VmService::set_nat`].
    pub async fn set(self: &Arc<Self>, op: &Operation, wanted: &VmSet) -> Result<VmView, ApiError> {
        let shape = wanted.vcpus.is_some() || wanted.memory.is_some();
        let disks = wanted.overlay_size.is_some() || wanted.disk_size.is_some();
        match wanted.nat {
            None => self.reshape(op, wanted).await,
            Some(nat) => {
                if shape || disks {
                    self.reshape(op, wanted).await?;
                }
                self.set_nat(op, &wanted.vm, nat).await
            }
        }
    }

    /// Row and `vm.json` only; what a disk lacks is added when the VM starts.
    ///
    /// # Errors
    /// The VM is not down, nothing could be made of the values (all that is wrong at once), a disk would shrink, or the
    /// host has less memory.
    async fn reshape(self: &Arc<Self>, op: &Operation, wanted: &VmSet) -> Result<VmView, ApiError> {
        self.core.writable()?;
        let vm = self.find_settled(&wanted.vm).await?;
        op.about(&vm);
        set::allowed(&vm).map_err(|e| request_error(&e))?;
        let shape = NewShape {
            vcpus: wanted.vcpus,
            memory: wanted.memory,
            overlay_size: wanted.overlay_size,
            disk_size: wanted.disk_size,
        };
        let spec = shape.of(&vm.spec);
        let sized = Sized {
            vcpus: spec.vcpus,
            memory: spec.memory,
            overlay_size: spec.overlay_size,
            disk_size: spec.disk_size,
            nat: spec.nat,
            told: Vec::new(),
        };
        ApiError::all(shape::obstacles(&sized))?;
        let (id, host) = (vm.id, self.host_size);
        let more = wanted.memory.filter(|_| !wanted.force);
        let entry = self.set.entry(id);
        // Not between two steps of whoever works on it.
        let _still = entry.lock.lock().await;
        let accepted = {
            let _no_recovery = self.create_lock.lock().await;
            self.core
                .blocking(move |core| {
                    if let Some(memory) = more {
                        preflight::unpromised(core, memory, host)?;
                    }
                    let set: Result<request::Accepted, request::RequestError> =
                        set::set(&core.env(), id, &shape);
                    set.map_err(|e| request_error(&e))
                })
                .await??
        };
        tracing::info!(op = %op.id, vm = %accepted.id, changed = accepted.new, "set");
        self.view(id).await
    }
}
