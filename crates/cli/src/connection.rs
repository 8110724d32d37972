//! Reaching the daemon, and starting it on first use.

use crate::{failure::Failure, spawn};
use banger_wire::api::{Client, ClientError, Paths, Ping};
use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

/// The longest a daemon may take from its start to its first answer; it reads its database and looks
/// at the machine before, and waits for one that is ending: 35 s at most.
const BIRTH: Duration = Duration::from_secs(50);

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

/// A client of the running daemon, which is started if there is none.
///
/// # Errors
/// It cannot be started, or does not answer in time.
pub async fn connect() -> Result<Client, Failure> {
    let paths = paths()?;
    let client = Client::new(paths.socket());
    match client.call(&Ping {}).await {
        Err(error) if error.no_daemon() => start(&paths, &client).await?,
        other => {
            other?;
        }
    }
    Ok(client)
}

/// A client of the running daemon, `None` if none runs.
///
/// # Errors
/// One listens but does not answer as it should.
pub async fn connect_if_running() -> Result<Option<Client>, Failure> {
    let client = Client::new(paths()?.socket());
    match client.call(&Ping {}).await {
        Ok(_) => Ok(Some(client)),
        Err(error) if error.no_daemon() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn start(paths: &Paths, client: &Client) -> Result<(), Failure> {
    let binary = spawn::daemon_binary().ok_or_else(|| {
        Failure::new("the daemon 'bangerd' is neither beside this program nor in PATH")
            .hint("./quickstart builds it; put target/release in PATH")
    })?;
    let mut daemon = spawn::spawn_daemon(&binary)
        .map_err(|e| Failure::new(format!("cannot start {}", binary.display())).caused_by(&e))?;
    let deadline = Instant::now() + BIRTH;
    loop {
        match client.call(&Ping {}).await {
            Ok(_) => return Ok(()),
            Err(error) if !error.no_daemon() => return Err(error.into()),
            Err(error) => wait_for_birth(paths, &mut daemon, deadline, error)?,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Decides whether waiting on makes sense: another daemon may have won the race (then ours ended with
/// status 0 and the winner will answer).
fn wait_for_birth(
    paths: &Paths,
    daemon: &mut std::process::Child,
    deadline: Instant,
    error: ClientError,
) -> Result<(), Failure> {
    let log = paths.daemon_log();
    let hint = || format!("see {}", log.display());
    if let Ok(Some(status)) = daemon.try_wait()
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
    Ok(())
}

/// The last words of a daemon that died being born.
fn last_lines(log: &std::path::Path) -> std::io::Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text
        .lines()
        .rfind(|l| !l.trim().is_empty())
        .unwrap_or("it left no log");
    std::io::Error::other(last.to_owned())
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
