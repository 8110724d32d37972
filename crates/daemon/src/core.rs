//! What every service stands on: the machine, the database, the drivers, the place.

use crate::ledger::StoreLedger;
use crate::recipes::DriverRecipes;
use banger_converge::{Env, Shared, Site};
use banger_host::crash::CrashAt;
use banger_host::linux::LinuxHost;
use banger_wire::api::{ApiError, Code};
use std::sync::Arc;

/// The machine; in test builds it dies at the effect the environment names.
pub type DaemonHost = CrashAt<LinuxHost>;

/// The daemon's convergence environment.
pub type DaemonEnv<'a> = Env<'a, DaemonHost, StoreLedger, DriverRecipes>;

/// The machine, the database, the drivers, the place.
#[derive(Debug)]
pub struct Core {
    /// The machine.
    pub host: Arc<DaemonHost>,
    /// The database.
    pub ledger: StoreLedger,
    /// The drivers.
    pub recipes: DriverRecipes,
    /// The instance.
    pub site: Site,
    /// In memory, shared by all convergences.
    pub shared: Shared,
}

impl Core {
    /// What a convergence works with.
    pub fn env(&self) -> DaemonEnv<'_> {
        Env {
            host: &*self.host,
            ledger: &self.ledger,
            recipes: &self.recipes,
            site: &self.site,
            shared: &self.shared,
        }
    }

    /// Runs blocking work with the core on a thread that may block.
    ///
    /// # Errors
    /// The work panicked: a bug.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let core = Arc::clone(self);
        // What is logged there belongs to the operation that waits here.
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| work(&core)))
            .await
            .map_err(|error| bug().caused_by(&error))
    }

    /// Runs work with the core that may take as long as a network or a build pleases.
    ///
    /// # Errors
    /// As [`lasting`].
    pub async fn lasting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let core = Arc::clone(self);
        lasting(move || work(&core)).await
    }

    /// Refuses what would change anything while there is no database (R-STATE-10).
    ///
    /// # Errors
    /// The reason, and `banger recover`.
    pub fn writable(&self) -> Result<(), ApiError> {
        match self.ledger.absent() {
            None => Ok(()),
            Some(why) => Err(ApiError::new(
                Code::Unavailable,
                format!("the daemon is read-only: {why}"),
            )
            .hint("banger recover")),
        }
    }
}

/// Runs work that may take as long as a client, a network or a build pleases on a thread of its own: those of
/// [`Core::blocking`] are counted, and what is short waits for them.
///
/// # Errors
/// The work panicked: a bug; or the machine has no more threads.
async fn lasting<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let span = tracing::Span::current();
    let (done, made) = tokio::sync::oneshot::channel();
    let run = move || {
        let made = span.in_scope(work);
        // Nobody may be waiting any more.
        let _ = done.send(made);
    };
    std::thread::Builder::new()
        .name("lasting".to_owned())
        .spawn(run)
        .map_err(|error| {
            let message = "the machine has no thread for this";
            ApiError::new(Code::Unavailable, message)
                .caused_by(&error)
                .hint("ulimit -u; systemctl show --property=TasksMax user.slice")
        })?;
    made.await.map_err(|_| bug())
}

fn bug() -> ApiError {
    let message = "the daemon has a bug: a task ended unexpectedly";
    ApiError::new(Code::OperationFailed, message).hint("banger daemon logs")
}
