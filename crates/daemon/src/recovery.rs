//! The state directory at the daemon's start: instance, database, and what a predecessor left (R-STATE-7,
//! R-STATE-10).

use crate::core::{Core, DaemonHost};
use crate::ledger::StoreLedger;
use crate::ops;
use crate::vm::VmService;
use banger_converge::{Rebuilt, Report, recover, recover_database};
use banger_host::{Files, state_file};
use banger_model::{Goal, Instance, Phase};
use banger_store::{Error as StoreError, Store};
use banger_wire::api::{ApiError, Code, RecoverFailure, RecoverView};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Path of the database.
pub fn database(state_dir: &Path) -> PathBuf {
    state_dir.join("state.db")
}

/// A state directory, opened.
#[derive(Debug)]
pub struct Opened {
    /// Its identity.
    pub instance: Instance,
    /// Its database, or why there is none.
    pub ledger: StoreLedger,
}

/// Opens the state directory: reads or makes its identity, opens the database or, in a new directory only, makes it.
/// A database that is missing though VMs exist, damaged or newer is told, never replaced.
///
/// # Errors
/// The identity cannot be read or written.
pub fn open_state(host: &DaemonHost, state_dir: &Path) -> Result<Opened, ApiError> {
    let path = database(state_dir);
    let opened = match Store::open(&path) {
        Err(StoreError::Missing { .. }) if !has_vms(host, state_dir)? => {
            let instance = instance(host, state_dir, None)?;
            Store::create(&path, instance)
        }
        other => other,
    };
    let instance = instance(host, state_dir, opened.as_ref().ok().map(Store::instance))?;
    if let Err(error) = &opened {
        tracing::error!(error = %ApiError::of(Code::Unavailable, error), "read-only: no database");
    }
    let told = opened.map_err(|error| ApiError::of(Code::Unavailable, &error).to_string());
    Ok(Opened {
        instance,
        ledger: StoreLedger::new(told, host.points().clone()),
    })
}

/// Whether there are directories of VMs.
///
/// # Errors
/// It cannot be seen.
pub fn has_vms(host: &DaemonHost, state_dir: &Path) -> Result<bool, ApiError> {
    let names = host
        .list(&state_dir.join("vms"))
        .map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
    Ok(names.iter().any(|name| !name.starts_with('.')))
}

fn instance_file(state_dir: &Path) -> PathBuf {
    state_dir.join("instance")
}

/// The identity that is written beside the database, if it can be read.
///
/// # Errors
/// The file is there and the system does not let us read it.
pub fn written_instance(host: &DaemonHost, state_dir: &Path) -> Result<Option<Instance>, ApiError> {
    let written = host.read(&instance_file(state_dir));
    let written = written.map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
    Ok(written
        .as_deref()
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.trim().parse().ok()))
}

/// The directory's identity: what the database says, else the file, else a new one, written down.
fn instance(
    host: &DaemonHost,
    state_dir: &Path,
    database: Option<Instance>,
) -> Result<Instance, ApiError> {
    let failed = |e: banger_host::Error| ApiError::of(Code::OperationFailed, &e);
    let path = instance_file(state_dir);
    let said = written_instance(host, state_dir)?;
    let instance = match database.or(said) {
        Some(instance) => instance,
        None => Instance::from_bytes(ops::random()?),
    };
    if said != Some(instance) {
        let text = format!("{instance}\n");
        state_file::replace(host, &path, text.as_bytes()).map_err(failed)?;
    }
    Ok(instance)
}

/// Makes a database anew if there is none, and rows for the directories that have none. Blocks.
///
/// # Errors
/// No new database could be made, or the directories could not be read.
pub fn rebuild(core: &Core) -> Result<RecoverView, ApiError> {
    let failed = |e: &(dyn std::error::Error + 'static)| ApiError::of(Code::OperationFailed, e);
    let mut view = RecoverView::default();
    if core.ledger.absent().is_some() {
        let path = database(&core.site.state_dir);
        view.kept_database = set_aside(&core.host, &path).map_err(|e| failed(&e))?;
        let store = Store::create(&path, core.site.instance).map_err(|e| failed(&e))?;
        core.ledger.put(store);
    }
    let Rebuilt {
        adopted,
        unreadable,
        failed: not_adopted,
    } = recover_database(&core.env()).map_err(|e| failed(&e))?;
    view.adopted = adopted;
    let failures = unreadable
        .into_iter()
        .map(|id| (id, "its vm.json is missing or damaged".to_owned()))
        .chain(
            not_adopted
                .into_iter()
                .map(|(id, error)| (id, ApiError::of(Code::OperationFailed, &error).to_string())),
        );
    view.failed = failures
        .map(|(id, message)| RecoverFailure {
            directory: core.site.vm_dir(id),
            message,
        })
        .collect();
    Ok(view)
}

/// Keeps a database that cannot be used under another name, its journal with it.
fn set_aside(host: &DaemonHost, path: &Path) -> Result<Option<PathBuf>, banger_host::Error> {
    let aside = path.with_extension(format!("db.unusable-{}", ops::now()));
    let mut kept = None;
    for suffix in ["", "-wal", "-shm"] {
        let add = |p: &Path| {
            let mut name = p.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        if host.stat(&add(path))?.is_some() {
            host.rename(&add(path), &add(&aside))?;
            kept = Some(aside.clone());
        }
    }
    host.sync_dir(path.parent().unwrap_or(Path::new("/")))?;
    Ok(kept)
}

/// What every start does: interrupted intents are rewritten, orphans swept, live VMs adopted; then each VM is brought
/// to its goal, in the background and each for itself (R-HOST-9). Without a database nothing is touched.
///
/// # Errors
/// The rows could not be read.
pub async fn at_start(core: &Arc<Core>, vms: &Arc<VmService>) -> Result<(), ApiError> {
    if core.ledger.absent().is_some() {
        return Ok(());
    }
    let report = core.blocking(|core| recover(&core.env())).await?;
    let report = report.map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
    log(&report);
    for vm in vms.rows().await? {
        let adopted = report.adopted.contains(&vm.id);
        let runs = vm.phase == Phase::Running && adopted;
        let for_a_command = vm.spec.remove_on_exit && vm.goal != Goal::Absent;
        if runs {
            // What cannot be bound is in the log, and in `vm show`.
            vms.bind_again(&vm);
            vms.adopt(vm.id);
        }
        match (for_a_command, runs) {
            (true, true) => vms.remove_when_collected(vm.id),
            (true, false) => {
                // Its command cannot run any more, or never did.
                tracing::info!(vm = %vm.id, name = %vm.name, "deleted: it was made for a command that is over");
                vms.remove_later(vm.id);
            }
            (false, false) if vm.phase != Phase::Stopped => vms.settle_later(vm.id),
            (false, _) => {}
        }
    }
    Ok(())
}

fn log(report: &Report) {
    let Report {
        rewritten,
        adopted,
        corrupt_handles,
        swept_dirs,
        swept_objects,
        lost,
        errors,
    } = report;
    tracing::info!(
        adopted = adopted.len(),
        rolled_back = rewritten.len(),
        swept_dirs = swept_dirs.len(),
        swept_objects = swept_objects.len(),
        lost = lost.len(),
        "recovered"
    );
    for id in rewritten {
        tracing::warn!(vm = %id, "was being made or started when the last daemon ended; undone");
    }
    for (id, why) in corrupt_handles {
        tracing::warn!(vm = %id, why, "its handles.json is damaged");
    }
    for lost in lost {
        tracing::warn!(vm = %lost.id, "has a directory and no row; banger recover adopts it");
    }
    for error in errors {
        let error = ApiError::of(Code::OperationFailed, error);
        tracing::error!(%error, "recovery");
    }
}
