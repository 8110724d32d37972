//! The disks of a VM that is down, for who reads files from them. Nothing of it is locked: a request that brings the VM up,
//! or deletes it, goes first and tells its readers, and what they have read so far counts for nothing.

use super::idle::InUse;
use super::set::Entry;
use super::{Result, VmService};
use crate::core::Core;
use crate::ops::{Cancel, Why};
use banger_disks::{Disks, RootDisks, View};
use banger_model::{Goal, Phase, Role, RootDriver, Vm};
use banger_vmm::boot::kernel::Kernel;
use banger_wire::api::{ApiError, Code};
use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

/// Readers of one VM at the same time, and so threads.
const MOST_READERS: usize = 32;

/// A VM that is down, as long as nobody disturbs it.
#[derive(Debug)]
pub struct Down {
    /// Its row.
    pub vm: Vm,
    /// Fired before anything is done to its disks. What was read is of one moment if, after the last byte, it has not.
    pub disturbed: Cancel,
    entry: Arc<Entry>,
    _in_use: InUse,
}

impl Drop for Down {
    fn drop(&mut self) {
        let mut readers = self.entry.readers.lock();
        let readers = readers.as_mut().unwrap_or_else(|e| e.get_mut());
        readers.retain(|reader| !reader.is(&self.disturbed));
    }
}

impl Entry {
    /// Tells who reads the VM's disks that they are about to change. Call when the goal is written.
    pub fn disturb(&self) {
        let readers = self.readers.lock();
        for reader in readers.unwrap_or_else(PoisonError::into_inner).iter() {
            reader.fire(Why::Superseded);
        }
    }
}

impl VmService {
    /// The VM a reference means, if it is down and is to stay so; `None` if it is to be asked itself.
    ///
    /// # Errors
    /// No such VM, or very many read its disks.
    pub async fn down_now(self: &Arc<Self>, reference: &str) -> Result<Option<Down>> {
        let mut vm = self.find(reference).await?;
        let entry = self.set.entry(vm.id);
        if vm.phase == Phase::Running && entry.guest().is_none() {
            vm = self.find_settled(reference).await?;
        }
        if vm.phase != Phase::Stopped {
            return Ok(None);
        }
        let disturbed = Cancel::default();
        {
            let mut readers = entry.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() >= MOST_READERS {
                let message = format!("the disks of VM '{}' are read by {MOST_READERS}", vm.name);
                return Err(ApiError::new(Code::Unavailable, message)
                    .hint("wait until one of these copies has ended"));
            }
            readers.push(disturbed.clone());
        }
        let mut down = Down {
            disturbed,
            entry,
            _in_use: self.in_use(vm.id),
            vm,
        };
        // After the registration: a start leaves this phase as it writes its goal, so one that came before is seen here,
        // and one that comes later tells us. (What ended by itself keeps the goal that it had.)
        let row = self.row(down.vm.id).await?;
        match row.filter(|row| row.phase == Phase::Stopped && row.goal != Goal::Absent) {
            Some(row) => {
                down.vm = row;
                Ok(Some(down))
            }
            None => Ok(None),
        }
    }

    /// Its disks as its guest sees them.
    ///
    /// # Errors
    /// A disk cannot be read here.
    pub async fn view_of(&self, down: Down) -> Result<(View<File>, Down)> {
        let looked = self.core.blocking(move |core| (down.view(core), down));
        let (view, down) = looked.await?;
        Ok((view?, down))
    }
}

impl Down {
    fn view(&self, core: &Core) -> Result<View<File>> {
        View::open(self.disks(core)?).map_err(|error| self.unread(&error))
    }

    fn unread(&self, error: &(dyn std::error::Error + 'static)) -> ApiError {
        let message = format!(
            "the files of VM '{}' cannot be read while it is down",
            self.vm.name
        );
        ApiError::new(Code::OperationFailed, message)
            .caused_by(error)
            .hint(format!("banger vm start {}", self.vm.name))
    }

    fn disks(&self, core: &Core) -> Result<Disks<File>> {
        let dir = core.site.vm_dir(self.vm.id);
        let open = |path: PathBuf| File::open(path).map_err(|error| self.unread(&error));
        let disk = |role: Role| open(dir.join(role.file_name().unwrap_or_default()));
        let root = match self.vm.spec.drivers.root {
            RootDriver::Overlay => {
                // It says the way out itself: a start fails by it, too.
                let checked = core.recipes.check_base(&self.vm);
                checked.map_err(|error| ApiError::of(Code::Precondition, &error))?;
                RootDisks::Overlay {
                    base: open(core.recipes.rootfs(&self.vm.spec.image_id))?,
                    changes: disk(Role::OverlayDisk)?,
                }
            }
            RootDriver::Reflink => RootDisks::One(disk(Role::CowFile)?),
            RootDriver::DmSnapshot => {
                let message = format!(
                    "the root of VM '{}' is a device-mapper snapshot, which is read only while it runs",
                    self.vm.name
                );
                return Err(ApiError::new(Code::Precondition, message)
                    .hint(format!("banger vm start {}", self.vm.name)));
            }
        };
        // Without its kernel the VM has all but the kernel's modules.
        let kernel = Kernel::load(
            &*core.host,
            &core.recipes.kernels_dir(),
            &self.vm.spec.kernel,
        );
        let modules = kernel.ok().flatten().and_then(|kernel| {
            let disk = File::open(kernel.modules_disk()?).ok()?;
            Some((kernel.manifest.release, disk))
        });
        Ok(Disks {
            root,
            work: Some(disk(Role::WorkDisk)?),
            modules,
        })
    }
}
