//! `vm.prune`: stopped VMs, logs of creates that failed, and caches that nothing will read again.

use super::idle::anybody;
use super::{Result, VmService, ledger_error, lifecycle::Forward, request_error, unfinished};
use crate::core::Core;
use crate::failed::{self, Kept};
use crate::kernels;
use crate::ops::{Operation, now};
use banger_converge::{request::RequestError, settled};
use banger_host::{ErrorKind, Files, linux::own_bytes};
use banger_image::template;
use banger_model::Vm;
use banger_vmm::boot::cache::Unused;
use banger_wire::api::{ApiError, Code, Pruned, PrunedFile, PrunedVm, VmPrune, VmState};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

impl VmService {
    /// `vm.prune`. What fails is told, and keeps nothing else from going.
    ///
    /// # Errors
    /// The daemon is read-only, or cannot see what there is.
    pub async fn prune(self: &Arc<Self>, op: &Operation, request: &VmPrune) -> Result<Pruned> {
        self.core.writable()?;
        op.stage("prune", "looking for what nobody uses");
        let (service, wanted) = (Arc::clone(self), request.clone());
        let mut found = self
            .core
            .blocking(move |core| service.prunable(core, &wanted))
            .await??;
        if !request.dry_run {
            self.clear_away(op, &mut found).await?;
        }
        let vms = found.vms.iter().map(|vm| vm.bytes);
        let files = found.failed_logs.iter().chain(&found.cache);
        found.bytes = vms.chain(files.map(|file| file.bytes)).sum();
        found.dry_run = request.dry_run;
        Ok(found)
    }

    /// What would go. Blocks.
    fn prunable(&self, core: &Core, wanted: &VmPrune) -> Result<Pruned> {
        let since = wanted.older_than.map(|age| now().saturating_sub(age));
        let mut found = Pruned::default();
        for vm in core.ledger_vms()? {
            let view = self.look(&vm);
            let meant = wanted.vms.as_ref().is_none_or(|ids| ids.contains(&vm.id));
            let old = since.is_none_or(|since| view.last_used_at <= since);
            if meant && old && view.state == VmState::Stopped {
                found.vms.push(PrunedVm {
                    bytes: allocated(&core.site.vm_dir(vm.id)),
                    id: vm.id,
                    name: vm.name,
                    reason: view.reason,
                    disk_size: vm.spec.disk_size,
                    last_used_at: view.last_used_at,
                });
            }
        }
        found.failed_logs = old_logs(core, since)?.into_iter().map(file_of).collect();
        found.cache = stale_caches(core)?;
        Ok(found)
    }

    async fn clear_away(self: &Arc<Self>, op: &Operation, found: &mut Pruned) -> Result<()> {
        let mut deletes = Vec::new();
        for vm in std::mem::take(&mut found.vms) {
            let service = Arc::clone(self);
            deletes.push(tokio::spawn(async move {
                let gone = service.delete_stopped(&vm).await;
                (vm, gone)
            }));
        }
        for delete in deletes {
            match delete.await {
                Ok((vm, Ok(true))) => found.vms.push(vm),
                // Somebody else was first, or wanted something else with it.
                Ok((_, Ok(false))) => {}
                Ok((_, Err(error))) => found.failures.push(error),
                Err(error) => found
                    .failures
                    .push(ApiError::of(Code::OperationFailed, &error)),
            }
        }
        op.stage("prune", "removing logs and caches");
        let (logs, cache) = (
            std::mem::take(&mut found.failed_logs),
            std::mem::take(&mut found.cache),
        );
        let removed = self
            .core
            .blocking(move |core| remove_files(core, logs, cache));
        let (logs, cache, failures) = removed.await?;
        found.failed_logs = logs;
        found.cache = cache;
        found.failures.extend(failures);
        Ok(())
    }

    /// Deletes a VM that was seen stopped, unless it was started since; whether we did.
    async fn delete_stopped(self: &Arc<Self>, vm: &PrunedVm) -> Result<bool> {
        let id = vm.id;
        let settled = self.find_settled(&id.to_string()).await;
        match settled {
            Err(error) if error.code == Code::NotFound => return Ok(false),
            found => drop(found?),
        }
        let entry = self.set.entry(id);
        let of = Arc::clone(&entry);
        let written = self
            .core
            .blocking(move |core| {
                let free = || !anybody(&of.users);
                settled::delete_stopped(&core.env(), id, &free)
            })
            .await?;
        match written {
            // Who came to read its disks at this very moment.
            Ok(_) => entry.disturb(),
            Err(RequestError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(request_error(&error)),
        }
        match self.settle(id, false, &super::drive::unasked()).await {
            Forward::Gone => Ok(true),
            Forward::At | Forward::Superseded => Ok(false),
            Forward::Unfinished(failures) => Err(unfinished(
                format!("VM '{}' is not gone yet", vm.name),
                &failures,
            )),
            Forward::Bug(error) => Err(error),
        }
    }
}

/// What is there to be removed, of it what was, and what went wrong. Blocks.
fn remove_files(
    core: &Core,
    logs: Vec<PrunedFile>,
    cache: Vec<PrunedFile>,
) -> (Vec<PrunedFile>, Vec<PrunedFile>, Vec<ApiError>) {
    let mut failures = Vec::new();
    let mut sort = |file: &PrunedFile, done: std::result::Result<(), banger_host::Error>| match done
    {
        Ok(()) => true,
        Err(error) if error.kind == ErrorKind::NotFound => true,
        Err(error) => {
            let what = format!("{} stays", file.path.display());
            failures.push(ApiError::new(Code::OperationFailed, what).caused_by(&error));
            false
        }
    };
    let mut gone_logs = logs;
    gone_logs.retain(|log| sort(log, failed::remove(core, &log.path)));
    let mut gone_cache = cache;
    gone_cache.retain(|file| sort(file, core.host.unlink(&file.path)));
    (gone_logs, gone_cache, failures)
}

/// Logs of creates that failed, those kept before `since` only. Blocks.
fn old_logs(core: &Core, since: Option<u64>) -> Result<Vec<Kept>> {
    let mut logs =
        failed::all(core).map_err(|error| unseen("the logs of failed creates", &error))?;
    let limit = since.map(|since| SystemTime::UNIX_EPOCH + Duration::from_secs(since));
    logs.retain(|kept| limit.is_none_or(|limit| kept.at <= limit));
    logs.sort();
    Ok(logs)
}

fn file_of(kept: Kept) -> PrunedFile {
    PrunedFile {
        path: kept.dir,
        bytes: kept.bytes,
    }
}

/// Templates that neither this daemon nor a later one will read. Blocks.
fn stale_caches(core: &Core) -> Result<Vec<PrunedFile>> {
    let dir = core.recipes.templates_dir();
    let names = core.host.list(&dir);
    let names = names.map_err(|error| unseen("the disk templates", &error))?;
    let of_no_kernel = kernels::unused_caches(core, Unused::Everything);
    let stale = |name: &String| template::is_stale(name) || of_no_kernel.contains(name);
    let mut files: Vec<_> = names
        .into_iter()
        .filter(stale)
        .map(|name| dir.join(name))
        .map(|path| PrunedFile {
            bytes: own_bytes(&path).unwrap_or(0),
            path,
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn unseen(what: &str, error: &banger_host::Error) -> ApiError {
    ApiError::new(Code::OperationFailed, format!("{what} cannot be listed")).caused_by(error)
}

/// Bytes of disk that nobody but a VM's directory has, a root disk's without what it shares; what cannot be read counts
/// nothing.
fn allocated(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| own_bytes(&file.path()).ok()).sum()
}

impl Core {
    fn ledger_vms(&self) -> Result<Vec<Vm>> {
        use banger_converge::Ledger;
        self.ledger.vms().map_err(|e| ledger_error(&e))
    }
}
