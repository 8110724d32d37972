//! VmService (R-SVC-1): life-cycle, create operations, disk templates, per-VM locks, agent sessions.
//!
//! Lock order: the per-VM lock ([`set::Entry::lock`]) → the create lock → leaf locks. Nothing of a guest is waited for
//! under any of them.

mod clock;
mod create;
mod disk;
mod down;
mod drive;
mod end;
mod idle;
mod inspect;
mod life;
mod lifecycle;
mod logs;
mod lost;
mod name;
mod nat;
pub(crate) mod preflight;
mod prune;
mod publish;
mod ready;
mod reshape;
pub(crate) mod run_as;
pub(crate) mod scope;
mod set;
pub(crate) mod shape;
mod ssh;
mod sweep;
mod used;
mod watch;

pub use down::Down;
pub use ready::first_command;

use crate::core::Core;
use crate::ops::Registry;
use crate::services::Peers;
use banger_config::Config;
use banger_converge::{Failure, Ledger, LedgerError, request::RequestError};
use banger_model::{Phase, ReasonKind, Role, Vm, VmId};
use banger_wire::api::{
    self, AgentView, ApiError, Code, LogText, ReferenceError, VmDetail, VmState, VmView,
};
use banger_wire::guest::GuestClient;
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

type Result<T> = std::result::Result<T, ApiError>;

/// How long a command waits for the agent of a VM that runs: after a restart of the daemon its session is made anew.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `vm.show` waits for the agent's own words.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command that runs waits for its VM to be let go on.
const HELD_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Lines of a log when none are asked for.
const TAIL: usize = 200;

/// The VMs.
#[derive(Debug)]
pub struct VmService {
    core: Arc<Core>,
    peers: Peers,
    registry: Arc<Registry>,
    config: Config,
    host_size: shape::HostSize,
    set: set::VmSet,
    uses: used::Uses,
    /// Whom a VMM's scope is asked of, once looked up.
    manager: OnceLock<Option<scope::Manager>>,
    /// Covers only reserving name, leases and row, and the goal of a start; recovery, so that neither falls into it.
    create_lock: tokio::sync::Mutex<()>,
    /// Covers `known_hosts`.
    pins: tokio::sync::Mutex<()>,
    /// VMs whose convergence did not finish, for the background loop.
    unfinished: Mutex<std::collections::BTreeMap<VmId, lifecycle::Retry>>,
    /// Told when the set above grows.
    pub(crate) work: tokio::sync::Notify,
}

impl VmService {
    /// The service; touches nothing yet.
    pub fn new(core: Arc<Core>, peers: Peers, registry: Arc<Registry>, config: Config) -> Self {
        VmService {
            core,
            peers,
            registry,
            config,
            host_size: shape::HostSize::of_this_machine(),
            set: set::VmSet::default(),
            uses: used::Uses::default(),
            manager: OnceLock::new(),
            create_lock: tokio::sync::Mutex::default(),
            pins: tokio::sync::Mutex::default(),
            unfinished: Mutex::default(),
            work: tokio::sync::Notify::new(),
        }
    }

    /// Every row.
    ///
    /// # Errors
    /// There is no database, or it failed.
    pub async fn rows(&self) -> Result<Vec<Vm>> {
        self.core
            .blocking(|core| core.ledger.vms())
            .await?
            .map_err(|e| ledger_error(&e))
    }

    /// A row, if it is there.
    ///
    /// # Errors
    /// There is no database, or it failed.
    pub async fn row(&self, id: VmId) -> Result<Option<Vm>> {
        self.core
            .blocking(move |core| core.ledger.vm(id))
            .await?
            .map_err(|e| ledger_error(&e))
    }

    /// The VM a reference means.
    ///
    /// # Errors
    /// None, or several, are meant.
    pub async fn find(&self, reference: &str) -> Result<Vm> {
        let text = reference.to_owned();
        self.core
            .blocking(move |core| {
                let store = core.ledger.store().map_err(|e| ledger_error(&e))?;
                let failed = |e: banger_store::Error| ApiError::of(Code::OperationFailed, &e);
                // The usual cases read one row: an exact name or an exact id.
                if let Ok(name) = text.parse()
                    && let Some(vm) = store.by_name(&name).map_err(failed)?
                {
                    return Ok(vm);
                }
                if let Ok(id) = text.parse()
                    && let Some(vm) = store.get(id).map_err(failed)?
                {
                    return Ok(vm);
                }
                let rows = store.list().map_err(failed)?;
                api::resolve(&text, &rows, |vm| (vm.id, &vm.name))
                    .cloned()
                    .map_err(|e| reference_error(&e))
            })
            .await?
    }

    /// `vm.list`.
    ///
    /// # Errors
    /// There is no database, or it failed.
    pub async fn list(self: &Arc<Self>, request: &api::VmList) -> Result<Vec<VmView>> {
        let (service, running) = (Arc::clone(self), request.running);
        self.core
            .blocking(move |core| {
                let rows = core.ledger.vms().map_err(|e| ledger_error(&e))?;
                let views = rows.iter().map(|vm| service.look(vm));
                let up = |view: &VmView| {
                    matches!(
                        view.state,
                        VmState::Running | VmState::Paused | VmState::Starting | VmState::Stopping
                    )
                };
                Ok(views.filter(|view| !running || up(view)).collect())
            })
            .await?
    }

    /// A VM as a listing shows it.
    ///
    /// # Errors
    /// It is gone.
    pub async fn view(self: &Arc<Self>, id: VmId) -> Result<VmView> {
        let service = Arc::clone(self);
        self.core
            .blocking(move |core| match core.ledger.vm(id) {
                Ok(Some(vm)) => Ok(service.look(&vm)),
                Ok(None) => Err(not_found(&id.to_string())),
                Err(error) => Err(ledger_error(&error)),
            })
            .await?
    }

    /// `vm.show`.
    ///
    /// # Errors
    /// No such VM.
    pub async fn show(self: &Arc<Self>, reference: &str) -> Result<VmDetail> {
        let vm = self.find(reference).await?;
        let view = self.view(vm.id).await?;
        let agent = match self.set.entry(vm.id).guest() {
            Some(guest) => tokio::time::timeout(HEALTH_TIMEOUT, guest.health())
                .await
                .ok()
                .and_then(std::result::Result::ok),
            None => None,
        };
        Ok(VmDetail {
            handles: self.core.shared.handles.get(vm.id).filter(|_| {
                matches!(
                    view.state,
                    VmState::Running | VmState::Paused | VmState::Stopping
                )
            }),
            vm: view,
            image_id: vm.spec.image_id,
            image_config: vm.spec.image_config,
            lease: vm.lease,
            runtime: vm.runtime,
            last_error: vm.last_error,
            agent: agent.map(|health| AgentView {
                version: health.version,
                uptime_ms: health.uptime_ms,
                warnings: health.warnings,
            }),
        })
    }

    /// `vm.logs`.
    ///
    /// # Errors
    /// No such VM, or its log cannot be read.
    pub async fn logs(&self, request: &api::VmLogs) -> Result<LogText> {
        let vm = self.find(&request.vm).await?;
        let path = match request.log {
            api::LogKind::Console => self.core.site.console_log(vm.id),
            api::LogKind::Vmm => self.core.site.process_log(vm.id, Role::Vmm),
        };
        let lines = request.tail.unwrap_or(TAIL);
        self.core
            .blocking(move |_| match logs::tail(&path, lines) {
                Ok((text, truncated)) => Ok(LogText {
                    path,
                    text,
                    truncated,
                }),
                Err(error) => {
                    let what = format!("the log {} cannot be read", path.display());
                    Err(ApiError::new(Code::OperationFailed, what).caused_by(&error))
                }
            })
            .await?
    }

    /// A VM that runs and the session with its agent.
    ///
    /// # Errors
    /// No such VM, not running, held still, or its agent does not answer.
    pub async fn session(&self, reference: &str) -> Result<(Vm, GuestClient)> {
        let vm = self.find(reference).await?;
        let entry = self.set.entry(vm.id);
        // Nothing is to be asked of a guest that goes on before it knows the time (R-GUEST-9).
        if entry.is_paused() {
            return Err(held(&vm));
        }
        if let Some(guest) = entry.guest() {
            return Ok((vm, guest));
        }
        if let Some(refusal) = no_session(&vm) {
            return Err(refusal);
        }
        let mut link = entry.link.subscribe();
        let linked = link.wait_for(|l| l.as_ref().is_some_and(|g| !g.is_closed()));
        let guest = tokio::time::timeout(LINK_TIMEOUT, linked).await;
        match guest
            .ok()
            .and_then(std::result::Result::ok)
            .and_then(|g| g.clone())
        {
            Some(guest) => Ok((vm, guest)),
            None => Err(ApiError::new(
                Code::Unavailable,
                format!(
                    "the agent of VM '{}' has not answered for {} s",
                    vm.name,
                    LINK_TIMEOUT.as_secs()
                ),
            )
            .hint(format!("banger vm logs {}", vm.name))),
        }
    }

    /// Like [`VmService::session`], for who was with the VM before: one that is held still is waited for.
    ///
    /// # Errors
    /// No such VM, not running, held still for hours, or its agent does not answer.
    pub async fn session_again(&self, reference: &str) -> Result<(Vm, GuestClient)> {
        let vm = self.find(reference).await?;
        let mut paused = self.set.entry(vm.id).paused.subscribe();
        // Whether it goes on or has ended, and whether we waited long enough, is seen by who looks next.
        let _ = tokio::time::timeout(HELD_LIMIT, paused.wait_for(|paused| !*paused)).await;
        self.session(reference).await
    }

    /// Whether the machine shows that a VM may be alive (R-HOST-8); so does one that cannot be looked at. Blocks for a
    /// look.
    fn may_live(&self, vm: &Vm) -> bool {
        banger_converge::may_live(&self.core.env(), vm).unwrap_or(true)
    }

    /// A row as it is shown: the phase corrected by looking (R-STATE-11). Blocks for a look.
    fn look(&self, vm: &Vm) -> VmView {
        let mut reason = vm.reason.clone();
        let state = match vm.phase {
            Phase::Running if !self.may_live(vm) => {
                let said = self.said_at_the_end(vm, None);
                reason = Some(said.unwrap_or_else(|| banger_model::Reason {
                    kind: ReasonKind::VmmExited,
                    text: "its VMM ended by itself or was killed".to_owned(),
                }));
                VmState::Stopped
            }
            Phase::Running if self.set.entry(vm.id).is_paused() => {
                reason = Some(crate::feed::disk_full());
                VmState::Paused
            }
            phase => phase.into(),
        };
        VmView {
            id: vm.id,
            name: vm.name.clone(),
            state,
            reason,
            goal: vm.goal,
            image: vm.spec.image.clone(),
            kernel: vm.spec.kernel.clone(),
            vcpus: vm.spec.vcpus,
            memory: vm.spec.memory,
            overlay_size: vm.spec.overlay_size,
            disk_size: vm.spec.disk_size,
            nat: vm.spec.nat,
            ports: self.set.entry(vm.id).ports.view(&vm.spec.ports),
            remove_on_exit: vm.spec.remove_on_exit,
            init: vm.spec.init.clone(),
            drivers: vm.spec.drivers,
            created_at: vm.created_at,
            last_used_at: self.uses.last(vm.id, vm.last_used_at),
        }
    }
}

/// A failed transaction as an answer.
pub(crate) fn ledger_error(error: &LedgerError) -> ApiError {
    let code = match error {
        LedgerError::NotFound(_) => Code::NotFound,
        LedgerError::AlreadyExists(_) => Code::AlreadyExists,
        LedgerError::Stale { .. } | LedgerError::LeaseTaken => Code::Conflict,
        LedgerError::Failed(_) | LedgerError::Crashed => Code::Unavailable,
    };
    let told = ApiError::of(code, error);
    if code == Code::Unavailable {
        told.hint("banger recover")
    } else {
        told
    }
}

fn request_error(error: &RequestError) -> ApiError {
    let code = match error {
        RequestError::NotFound(_) => Code::NotFound,
        RequestError::AlreadyExists(_) => Code::AlreadyExists,
        RequestError::Conflict { .. } => Code::Conflict,
        RequestError::Shrinks { .. } => Code::BadRequest,
        RequestError::DiskFull { .. } => Code::Unavailable,
        RequestError::NoLease(_) => Code::Precondition,
        RequestError::Failed(_) | RequestError::LeftOver { .. } => Code::OperationFailed,
    };
    ApiError::of(code, error)
}

fn reference_error(error: &ReferenceError) -> ApiError {
    let code = match error {
        ReferenceError::NotFound(_) => Code::NotFound,
        ReferenceError::Ambiguous { .. } => Code::BadRequest,
    };
    ApiError::of(code, error).hint("banger vm list")
}

/// Why no command can run in a VM, as far as its phase tells, and what to do about it.
fn no_session(vm: &Vm) -> Option<ApiError> {
    let start = format!("banger vm start {}", vm.name);
    let wait = "wait until banger vm list says running".to_owned();
    let (is, hint) = match vm.phase {
        Phase::Running => return None,
        Phase::Creating => ("being created", wait),
        Phase::Starting => ("starting", wait),
        Phase::Stopping => ("stopping", format!("when it has stopped: {start}")),
        Phase::Stopped => ("not running", start),
        Phase::Deleting => ("being deleted", "banger vm list".to_owned()),
        Phase::Error => ("in phase error", format!("banger vm show {}", vm.name)),
    };
    let refusal = ApiError::new(Code::Precondition, format!("VM '{}' is {is}", vm.name));
    Some(refusal.hint(hint))
}

/// A VM that is held still answers nothing.
fn held(vm: &Vm) -> ApiError {
    let message = format!(
        "VM '{}' is held still because the host's disk is full",
        vm.name
    );
    ApiError::new(Code::Unavailable, message)
        .hint("free some space; it goes on by itself within seconds")
}

fn not_found(reference: &str) -> ApiError {
    reference_error(&ReferenceError::NotFound(reference.to_owned()))
}

/// Failures of a goal that stays and is tried again.
fn unfinished(message: String, failures: &[Failure]) -> ApiError {
    let error = ApiError::new(Code::OperationFailed, message);
    let error = failures.iter().fold(error, |e, f| e.caused_by(f));
    error.hint("it is tried again in the background; banger daemon logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(phase: Phase) -> Vm {
        let row = include_str!("../../../converge/tests/row.json");
        let vm: Vm = serde_json::from_str(row).unwrap();
        Vm { phase, ..vm }
    }

    /// A VM that comes up is not told to be started.
    #[test]
    fn a_refused_command_is_told_what_the_vm_does() {
        assert_eq!(no_session(&vm(Phase::Running)), None);
        let told = |phase| {
            let refusal = no_session(&vm(phase)).unwrap();
            assert_eq!(refusal.code, Code::Precondition);
            (refusal.message, refusal.hint.unwrap())
        };
        for phase in [Phase::Creating, Phase::Starting] {
            let (message, hint) = told(phase);
            assert!(!message.contains("not running"), "{message}");
            assert!(hint.starts_with("wait") && hint.contains("banger vm list"));
        }
        assert!(told(Phase::Stopped).1.starts_with("banger vm start"));
        assert!(told(Phase::Stopping).1.contains("when it has stopped"));
    }
}
