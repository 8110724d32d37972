//! Reaching the daemon, and starting it on first use.

use crate::{failure::Failure, log::Line, spawn};
use banger_wire::api::{
    Client, ClientError, Code, EventStream, FrameReceiver, FrameSender, Method, NoticeStream,
    Paths, Ping, VmAttach, VmShow,
};
use bytes::Bytes;
use std::{
    future::Future,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The longest a daemon may take from its start to its first answer; it reads its database and looks
/// at the machine before, and waits for one that is ending: 35 s at most.
const BIRTH: Duration = Duration::from_secs(50);

/// How long the daemon that ours gave way to may take to answer.
const GIVEN_WAY: Duration = Duration::from_millis(500);
/// How long a VM that is being deleted is waited for.
const GONE: Duration = Duration::from_secs(60);
/// How long an agent may be out of reach while a command waits to be taken up: a machine that stands still for a minute
/// or two is no reason to give it up.
const REACHED: Duration = Duration::from_secs(180);
/// Wait before something is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// The paths of this user and environment.
///
/// # Errors
/// The environment names no usable place.
pub fn paths() -> Result<Paths, Failure> {
    let uid = rustix::process::getuid().as_raw();
    let paths = Paths::of_process(uid).map_err(|e| {
        Failure::new(e.to_string())
            .hint("set BANGER_STATE_DIR and BANGER_RUNTIME_DIR to short absolute paths")
    })?;
    check_owner(&paths.runtime_dir, uid)?;
    Ok(paths)
}

/// Refuses a runtime directory of someone else: in `/tmp` anyone may have made it first, and what listens in it would
/// be told our commands and their input (R-OPS-3). Root may speak to anyone's daemon.
fn check_owner(dir: &Path, uid: u32) -> Result<(), Failure> {
    // One that is not there yet is made, and checked, by the daemon.
    let Ok(seen) = std::fs::symlink_metadata(dir) else {
        return Ok(());
    };
    if uid == 0 || (seen.is_dir() && seen.uid() == uid) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the runtime directory {} is not a directory of yours",
        dir.display()
    ))
    .hint("set BANGER_RUNTIME_DIR to a directory that only you can enter"))
}

/// The daemon as the verbs see it: whatever is asked of it, it is started if none listens.
///
/// A request that found nobody, or whom it found ended before reading it, is safe to send to the next daemon; one that
/// only reads is safe to send again at any time. There is no look whether one runs before: it could end between the look
/// and the request (R-PROG-2).
#[derive(Debug, Clone)]
pub struct Daemon {
    paths: Paths,
    client: Client,
}

impl Daemon {
    /// The daemon of this user and environment; touches nothing yet.
    ///
    /// # Errors
    /// The environment names no usable place.
    pub fn of_this_user() -> Result<Self, Failure> {
        let paths = paths()?;
        let client = Client::new(paths.socket());
        Ok(Daemon { paths, client })
    }

    /// Calls a method that answers with one object.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says.
    pub async fn call<M: Method>(&self, request: &M) -> Result<M::Reply, Failure> {
        let ask = || self.client.call(request);
        if M::READS {
            return self.until_answered(BIRTH, lost, ask).await;
        }
        self.started(ask).await
    }

    /// Calls a method that streams events.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says before the first event.
    pub async fn events<M: Method>(&self, request: &M) -> Result<EventStream, Failure> {
        self.started(|| self.client.events(request)).await
    }

    /// Calls a method whose body is data and which streams events.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says before the first event.
    pub async fn upload<M: Method>(
        &self,
        request: &M,
        chunks: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<EventStream, Failure> {
        // The chunks can be given away once only, so that somebody listens is seen to before.
        self.call(&Ping {}).await?;
        Ok(self.client.upload(request, chunks).await?)
    }

    /// Calls a method that upgrades to frames.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says before the upgrade.
    pub async fn frames<M: Method>(
        &self,
        request: &M,
    ) -> Result<(FrameSender, FrameReceiver), Failure> {
        self.started(|| self.client.frames(request)).await
    }

    /// Calls a method that upgrades to frames and may safely be asked twice, until it is answered: a connection that
    /// breaks before the upgrade, and a daemon that ends, is tried again.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says before the upgrade.
    pub async fn frames_again<M: Method>(
        &self,
        request: &M,
    ) -> Result<(FrameSender, FrameReceiver), Failure> {
        let ask = || self.client.frames(request);
        self.until_answered(BIRTH, lost, ask).await
    }

    /// Takes up a command whose connection was lost. An agent that cannot be reached yet is asked for again.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says before the upgrade.
    pub async fn take_up(
        &self,
        request: &VmAttach,
    ) -> Result<(FrameSender, FrameReceiver), Failure> {
        let passes = |error: &ClientError| match error {
            ClientError::Api(error) => error.code == Code::Unavailable,
            error => lost(error),
        };
        let ask = || self.client.frames(request);
        self.until_answered(REACHED, passes, ask).await
    }

    /// Asks until there is an answer or a failure that does not pass.
    async fn until_answered<T, F>(
        &self,
        limit: Duration,
        passes: impl Fn(&ClientError) -> bool,
        ask: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + limit;
        // What passes is not the end of the asking, but for those who look for a daemon.
        let ask = || async {
            match ask().await {
                Err(error) if passes(&error) => Ok(Err(error)),
                other => other.map(Ok),
            }
        };
        loop {
            match self.started(ask).await? {
                Ok(answer) => return Ok(answer),
                // How long the answer took is no part of it: it is the daemon that has so long to be there again.
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Waits until a VM is gone that a daemon, this one or the next, is deleting.
    ///
    /// # Errors
    /// It is still there after a minute, or the daemon cannot be asked.
    pub async fn until_gone(&self, vm: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + GONE;
        let show = VmShow { vm: vm.to_owned() };
        while Instant::now() < deadline {
            if self.started(|| self.is_gone(&show)).await? {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(
            Failure::new(format!("VM {vm} is still there after {GONE:?}"))
                .hint(format!("banger vm delete --force {vm}")),
        )
    }

    async fn is_gone(&self, show: &VmShow) -> Result<bool, ClientError> {
        match self.client.call(show).await {
            Err(ClientError::Api(error)) if error.code == Code::NotFound => Ok(true),
            Err(error) if !lost(&error) => Err(error),
            _ => Ok(false),
        }
    }

    /// Calls a method of a daemon that runs already; `None` if none does.
    ///
    /// # Errors
    /// One listens but does not answer as it should.
    pub async fn call_if_running<M: Method>(
        &self,
        request: &M,
    ) -> Result<Option<M::Reply>, Failure> {
        match self.client.call(request).await {
            Err(error) if error.no_daemon() => Ok(None),
            // It ended, or is ending: whether another listens is the same question again.
            Err(error) if M::READS && lost(&error) => match self.client.call(request).await {
                Err(error) if error.no_daemon() => Ok(None),
                answer => Ok(Some(answer?)),
            },
            answer => Ok(Some(answer?)),
        }
    }

    /// Listens to what happens.
    ///
    /// # Errors
    /// The daemon cannot be started, or what it says.
    pub async fn notices(&self) -> Result<NoticeStream, Failure> {
        self.started(|| self.client.notices()).await
    }

    /// Listens to a daemon that runs already; `None` if none does, or it is about to end.
    ///
    /// # Errors
    /// One listens but does not answer as it should.
    pub async fn notices_if_running(&self) -> Result<Option<NoticeStream>, Failure> {
        match self.client.notices().await {
            Err(error) if error.no_daemon() => Ok(None),
            Err(error) if lost(&error) => Ok(None),
            Err(ClientError::Api(error)) if error.code == Code::Unavailable => Ok(None),
            answer => Ok(Some(answer?)),
        }
    }

    /// The metrics of a daemon that runs already; `None` if none does.
    ///
    /// # Errors
    /// One listens but does not answer as it should.
    pub async fn metrics_if_running(&self) -> Result<Option<String>, Failure> {
        match self.client.metrics().await {
            Err(error) if error.no_daemon() => Ok(None),
            answer => Ok(Some(answer?)),
        }
    }

    /// Asks; while nobody listens, starts a daemon and asks again.
    async fn started<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        // One that we have started may be ended by somebody else before we ask, but not for ever.
        let deadline = Instant::now() + BIRTH;
        loop {
            match ask().await {
                Err(error) if error.no_daemon() && Instant::now() < deadline => {
                    start(&self.paths, &self.client, deadline).await?;
                }
                answer => return Ok(answer?),
            }
        }
    }
}

/// Whether the connection is what failed: the daemon ended, or is ending.
const fn lost(error: &ClientError) -> bool {
    matches!(error, ClientError::Lost(_) | ClientError::Cut)
}

/// Starts a daemon and waits until one answers.
async fn start(paths: &Paths, client: &Client, deadline: Instant) -> Result<(), Failure> {
    let binary = spawn::daemon_binary().ok_or_else(|| {
        Failure::new("the daemon 'bangerd' is neither beside this program nor in PATH")
            .hint("./quickstart builds it; put target/release in PATH")
    })?;
    let mut daemon = spawn::spawn_daemon(&binary)
        .map_err(|e| Failure::new(format!("cannot start {}", binary.display())).caused_by(&e))?;
    let mut gave_way = None;
    loop {
        match client.call(&Ping {}).await {
            Ok(_) => return Ok(()),
            Err(error) if !error.no_daemon() => return Err(error.into()),
            Err(error) => {
                let ended = wait_for_birth(paths, &mut daemon, deadline, error)?;
                let since = ended.then(|| *gave_way.get_or_insert_with(Instant::now));
                if since.is_some_and(|since| since.elapsed() > GIVEN_WAY) {
                    // To one that was dying itself: whoever asks starts another.
                    return Ok(());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Decides whether waiting on makes sense: another daemon may have won the race (then ours ended with
/// status 0, which is the answer here, and the winner will speak).
fn wait_for_birth(
    paths: &Paths,
    daemon: &mut std::process::Child,
    deadline: Instant,
    error: ClientError,
) -> Result<bool, Failure> {
    let log = paths.daemon_log();
    let hint = || format!("see {}", log.display());
    let ended = daemon.try_wait().ok().flatten();
    if let Some(status) = ended
        && !status.success()
    {
        return Err(Failure::new(format!("the daemon ended at once ({status})"))
            .caused_by(&last_lines(&log))
            .hint(hint()));
    }
    if Instant::now() >= deadline {
        let message = format!(
            "waited {BIRTH:?} for the daemon to answer on {}",
            paths.socket().display()
        );
        return Err(Failure::new(message).caused_by(&error).hint(hint()));
    }
    Ok(ended.is_some())
}

/// The last words of a daemon that died being born.
fn last_lines(log: &std::path::Path) -> std::io::Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text
        .lines()
        .rfind(|l| !l.trim().is_empty())
        .unwrap_or("it left no log");
    std::io::Error::other(Line::of(last).text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_directory_of_someone_else_is_refused() {
        let dir = std::env::temp_dir().join(format!("banger-owner-{}", std::process::id()));
        let me = 1 + std::process::id();
        assert!(check_owner(&dir, me).is_ok(), "not there yet");
        std::fs::create_dir(&dir).unwrap();
        let owner = std::fs::metadata(&dir).unwrap().uid();
        let refused = check_owner(&dir, owner + 1).is_err();
        let accepted = check_owner(&dir, owner).is_ok();
        std::fs::remove_dir(&dir).unwrap();
        assert!(refused && accepted);
    }
}
