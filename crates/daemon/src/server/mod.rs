//! The API's server: connections, peer credentials, drain.

mod body;
mod call;
mod copy;
mod copy_down;
mod dispatch;
mod export;
mod forward;
pub mod frames;
mod guest_error;
mod peer;
mod relay;
mod stream;
mod upload;

use crate::daemon::Daemon;
use banger_wire::api::What;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long running operations may take to end by themselves at shutdown (R-CLI-6).
const DRAIN: Duration = Duration::from_secs(10);
/// How long they may take to undo what they did when that is over.
const ROLL_BACK: Duration = Duration::from_secs(20);

/// How long a connection made before the socket went away may take to be seen.
const BACKLOG: Duration = Duration::from_millis(5);
/// How long answers that are under way at the end may take.
const ANSWERS: Duration = Duration::from_millis(500);

/// The longest a daemon without a socket may take until it is gone.
pub const LONGEST_END: Duration = DRAIN
    .saturating_add(ROLL_BACK)
    .saturating_add(Duration::from_secs(5));

/// A socket that listens; its path goes away with it.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    /// Listens at `path`. The socket appears there only when it listens and nobody else can open it: bound under
    /// another name, made 0600, renamed. What a dead daemon left there is replaced; the caller holds the lock.
    ///
    /// # Errors
    /// The system refuses.
    pub fn at(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, path)?;
        Ok(Listening {
            listener,
            path: path.to_owned(),
        })
    }
}

/// Serves until the daemon is asked to end, then drains: running operations get 10 s, the rest is cancelled and
/// undone. VMs stay.
pub async fn serve(daemon: Arc<Daemon>, listening: Listening) {
    // Every connection holds a sender: the last one gone ends the receiver's wait.
    let (open, mut all_closed) = mpsc::channel(1);
    loop {
        tokio::select! {
            accepted = listening.listener.accept() => match accepted {
                Ok((stream, _)) => connection(&daemon, stream, open.clone()),
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = daemon.ending() => break,
        }
    }
    // From here on a new command finds no daemon and starts the next, which waits for our lock.
    let _ = std::fs::remove_file(&listening.path);
    // Who has connected already is answered: a listener that is closed resets them.
    while let Ok(Ok((stream, _))) = timeout(BACKLOG, listening.listener.accept()).await {
        connection(&daemon, stream, open.clone());
    }
    drop((listening, open));
    drain(&daemon).await;
    // Who listens hears of what ended meanwhile, and then of the end.
    daemon.feed().close();
    // What is being answered now gets its answer; a client that keeps an idle connection open is not waited for.
    let _ = timeout(ANSWERS, all_closed.recv()).await;
}

async fn drain(daemon: &Daemon) {
    let registry = &daemon.registry;
    tracing::info!(operations = registry.running(), "draining");
    daemon.feed().tell(What::DaemonStopping {
        operations: u32::try_from(registry.running()).unwrap_or(u32::MAX),
    });
    let idle = timeout(DRAIN, registry.idle()).await.is_ok();
    // No await since it was idle: nothing began in between.
    registry.close();
    if idle {
        return;
    }
    registry.cancel_all(crate::ops::Why::Shutdown);
    if timeout(ROLL_BACK, registry.idle()).await.is_err() {
        let left = registry.running();
        tracing::warn!(
            left,
            "operations are left unfinished; the next daemon ends them"
        );
    }
}

fn connection(daemon: &Arc<Daemon>, stream: UnixStream, open: mpsc::Sender<()>) {
    if let Err(reason) = check_peer(&stream) {
        tracing::warn!(reason, "connection refused");
        return;
    }
    let daemon = Arc::clone(daemon);
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let daemon = Arc::clone(&daemon);
            async move { Ok::<_, Infallible>(dispatch::dispatch(daemon, request).await) }
        });
        let served = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
        drop(open);
    });
}

/// Only our own user and root may speak to us (R-OPS-3): the kernel says who the peer is.
fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = stream
        .peer_cred()
        .map_err(|e| format!("the peer's credentials cannot be read: {e}"))?;
    let ours = rustix::process::geteuid().as_raw();
    if peer.uid() == ours || peer.uid() == 0 {
        return Ok(());
    }
    Err(format!("uid {} may not speak to uid {ours}", peer.uid()))
}
