//! HostNetwork (R-SVC-1): the primitives around a VMM's process and its agent. It never reads VM records (R-SVC-2):
//! callers hand it what they know.

mod exit;
mod last_word;
mod stat;
mod usage;

pub use exit::{exited, is_there};
pub use last_word::last_word;
pub use usage::{Usage, own_usage, usage};

use crate::core::DaemonHost;
use banger_host::{ProcessIdentity, Processes, Proof};
use banger_model::ProcessHandle;
use banger_vmm::qemu::{Qmp, QmpError, RunState};
use banger_wire::guest::{self, ClientError, ConnectError, GuestClient, Token};
use std::{os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};

/// Longest wait for an answer of a VMM's control socket.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// The primitives around VMMs and agents.
#[derive(Debug)]
pub struct HostNetwork {
    host: Arc<DaemonHost>,
}

/// Why an agent cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No session could be begun.
    #[error("no session with the agent could be begun")]
    Connect(#[source] ConnectError),
    /// It ended at once.
    #[error("the session with the agent ended at once")]
    Start(#[source] ClientError),
}

/// Why a VMM cannot be controlled.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Its socket refuses.
    #[error("cannot connect to the VMM's control socket")]
    Connect(#[source] std::io::Error),
    /// It does not do as told.
    #[error("the VMM's control socket failed")]
    Qmp(#[source] QmpError),
}

impl HostNetwork {
    /// The service; touches nothing yet.
    pub fn new(host: Arc<DaemonHost>) -> Self {
        HostNetwork { host }
    }

    /// Begins a session with the agent behind a socket: waits for the VMM to listen and for the guest to boot.
    ///
    /// # Errors
    /// No answer within `within`, or the handshake failed.
    pub async fn link(
        &self,
        socket: &Path,
        token: &Token,
        within: Duration,
    ) -> Result<GuestClient, LinkError> {
        let connected = guest::connect(socket, token, within)
            .await
            .map_err(LinkError::Connect)?;
        GuestClient::start(connected)
            .await
            .map_err(LinkError::Start)
    }

    /// The process that is proven to be this one and alive (R-HOST-8). Blocks for a look.
    pub fn prove(&self, identity: &ProcessIdentity) -> Option<ProcessHandle> {
        match self.host.prove(identity) {
            Ok(Proof::Alive(process)) => Some(process),
            _ => None,
        }
    }

    /// Stops a guest's processors, or lets them go on. Blocks for at most a few seconds.
    ///
    /// # Errors
    /// The VMM does not answer or refuses.
    pub fn hold(&self, socket: &Path, still: bool) -> Result<(), ControlError> {
        let mut qmp = control(socket)?;
        let done = if still { qmp.pause() } else { qmp.resume() };
        done.map_err(ControlError::Qmp)
    }

    /// Plugs a guest into a network that leads beyond it, or into one that does not. Blocks for at most a few seconds.
    ///
    /// # Errors
    /// The VMM does not answer or refuses.
    pub fn set_nat(&self, socket: &Path, nat: bool) -> Result<(), ControlError> {
        control(socket)?.set_nat(nat).map_err(ControlError::Qmp)
    }

    /// Whether a guest's processors are stopped. Blocks for at most a few seconds.
    ///
    /// # Errors
    /// The VMM does not answer.
    pub fn held(&self, socket: &Path) -> Result<bool, ControlError> {
        let state = control(socket)?.status().map_err(ControlError::Qmp)?;
        // By us, or by itself for want of room on the disk.
        Ok(match state {
            RunState::Paused => true,
            RunState::Other(state) => state == "io-error",
            RunState::Running | RunState::Shutdown => false,
        })
    }
}

fn control(socket: &Path) -> Result<Qmp, ControlError> {
    let stream = UnixStream::connect(socket).map_err(ControlError::Connect)?;
    Qmp::new(stream, CONTROL_TIMEOUT).map_err(ControlError::Qmp)
}
