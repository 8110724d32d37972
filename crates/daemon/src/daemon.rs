//! The daemon as a whole: a thin composition root.

use crate::catalogue::Catalogue;
use crate::core::Core;
use crate::feed::Feed;
use crate::kernels::Kernels;
use crate::metrics::Requests;
use crate::ops::{self, Cancel, Operation, Registry, Why};
use crate::services::{Peers, wire_services};
use crate::vm::VmService;
use banger_config::Config;
use banger_model::OpId;
use banger_wire::api::{
    ApiError, Code, DaemonView, OperationView, Paths, RecoverView, ShutdownView, Version,
};
use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

/// One running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Every long method.
    pub registry: Arc<Registry>,
    /// What was answered.
    pub requests: Requests,
    paths: Paths,
    core: Arc<Core>,
    vms: Arc<VmService>,
    catalogue: Arc<Catalogue>,
    kernels: Arc<Kernels>,
    started: Instant,
    started_at: u64,
    streams: AtomicU32,
    end: Cancel,
}

/// Counts an attached stream for as long as it lives.
#[derive(Debug)]
pub struct Attached(Arc<Daemon>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Daemon {
    /// Composes a daemon; services that `peers` holds already are kept.
    ///
    /// # Errors
    /// A bug: a service that was wired is not there.
    pub fn compose(
        paths: Paths,
        config: &Config,
        core: Arc<Core>,
        peers: &Peers,
    ) -> Result<Daemon, ApiError> {
        let registry = Arc::new(Registry::new(core.ledger.feed().clone()));
        wire_services(peers, &core, &registry, config);
        let catalogue = peers.catalogue()?;
        Ok(Daemon {
            kernels: Arc::new(Kernels::new(Arc::clone(&core), Arc::clone(&catalogue))),
            registry,
            requests: Requests::default(),
            paths,
            core,
            vms: peers.vms()?,
            catalogue,
            started: Instant::now(),
            started_at: ops::now(),
            streams: AtomicU32::new(0),
            end: Cancel::default(),
        })
    }

    /// The VMs.
    pub fn vms(&self) -> Arc<VmService> {
        Arc::clone(&self.vms)
    }

    /// The images.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    /// The kernels.
    pub fn kernels(&self) -> Arc<Kernels> {
        Arc::clone(&self.kernels)
    }

    /// Runs work that may block on a thread for such.
    ///
    /// # Errors
    /// The work panicked: a bug.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.core.blocking(move |_| work()).await
    }

    /// Runs work that may take as long as a client, a network or a build pleases.
    ///
    /// # Errors
    /// As [`Core::lasting`].
    pub async fn lasting<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.core.lasting(move |_| work()).await
    }

    /// Counts a stream as attached until the guard is dropped.
    pub fn attach(self: &Arc<Self>) -> Attached {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Attached(Arc::clone(self))
    }

    /// Asks the daemon to end.
    pub fn finish(&self) {
        self.end.fire(Why::Shutdown);
    }

    /// Waits until the daemon is asked to end.
    pub async fn ending(&self) {
        self.end.fired().await;
    }

    /// `shutdown`.
    pub fn shutdown(&self) -> ShutdownView {
        self.finish();
        ShutdownView {
            pid: std::process::id(),
            operations: count(self.registry.running()),
        }
    }

    /// What every service stands on.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Unix time in seconds at which it started.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Attached streams.
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// What happens.
    pub fn feed(&self) -> &Feed {
        self.core.ledger.feed()
    }

    /// The operation of this id.
    ///
    /// # Errors
    /// There is none, or it ended long ago.
    pub fn operation(&self, id: OpId) -> Result<Arc<Operation>, ApiError> {
        self.registry.get(id).ok_or_else(|| {
            ApiError::new(
                Code::NotFound,
                format!(
                    "no operation has the id {id}; those that ended are forgotten after a while"
                ),
            )
            .hint("banger operation list")
        })
    }

    /// `operation.cancel`.
    ///
    /// # Errors
    /// No such operation.
    pub fn cancel(&self, id: OpId) -> Result<OperationView, ApiError> {
        let operation = self.operation(id)?;
        operation.cancel.fire(Why::Asked);
        Ok(operation.view())
    }

    /// `daemon.status`.
    ///
    /// # Errors
    /// A bug of ours.
    pub async fn status(&self) -> Result<DaemonView, ApiError> {
        let read_only = self.core.ledger.absent();
        let (vms, lost) = if read_only.is_some() {
            (0, Vec::new())
        } else {
            let rows = self.vms.rows().await?;
            let lost = self
                .core
                .blocking(|core| banger_converge::lost(&core.env()))
                .await?
                .unwrap_or_default();
            (rows.len(), lost.into_iter().map(|l| l.id).collect())
        };
        Ok(DaemonView {
            pid: std::process::id(),
            socket: self.paths.socket(),
            version: Version::current(),
            state_dir: self.paths.state_dir.clone(),
            runtime_dir: self.paths.runtime_dir.clone(),
            log: self.paths.daemon_log(),
            instance: self.core.site.instance.to_string(),
            uptime: self.started.elapsed().as_secs(),
            started_at: self.started_at,
            streams: self.streams(),
            operations: count(self.registry.running()),
            vms: count(vms),
            read_only,
            lost,
        })
    }

    /// `recover`: a database from the VMs' own descriptions (R-STATE-8), then what every start does.
    ///
    /// # Errors
    /// Some VM is coming up, no new database could be made, or the directories could not be read.
    pub async fn recover(&self) -> Result<RecoverView, ApiError> {
        let _quiet = self.vms.nothing_comes_up().await?;
        let view = self.core.blocking(crate::recovery::rebuild).await??;
        crate::recovery::at_start(&self.core, &self.vms).await?;
        Ok(view)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
