//! `daemon status|stop|metrics`.

use super::{print_json, print_text};
use crate::{
    args::JsonArgs,
    connection::{self, Daemon},
    failure::Failure,
};
use banger_wire::api::{DaemonStatus, NotRunning, Shutdown};
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Draining takes 10 s at most (R-CLI-6); ending a little more.
const END: Duration = Duration::from_secs(15);

/// Says whether the daemon runs and where; starts nothing. Exit status 3 if it does not run, as
/// `systemctl status` has it.
pub async fn status(args: JsonArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let Some(view) = daemon.call_if_running(&DaemonStatus {}).await? else {
        let paths = connection::paths()?;
        if args.json {
            print_json(&NotRunning {
                running: false,
                socket: paths.socket(),
            })?;
        } else {
            print_text(&format!(
                "not running (socket {})\n",
                paths.socket().display()
            ))?;
        }
        return Ok(ExitCode::from(3));
    };
    if args.json {
        print_json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "running  pid {}, version {}, up {} s\nsocket   {}\nstate    {}\nlog      {}\nvms      {}\n",
        view.pid,
        view.version.version,
        view.uptime,
        view.socket.display(),
        view.state_dir.display(),
        view.log.display(),
        view.vms
    );
    if let Some(why) = &view.read_only {
        text.push_str(&format!("read-only: {why}\nhint: banger recover\n"));
    }
    for id in &view.lost {
        text.push_str(&format!(
            "lost VM directory: {id} (banger recover adopts it)\n"
        ));
    }
    print_text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon and waits until it is gone; VMs stay.
pub async fn stop() -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let Some(ending) = daemon.call_if_running(&Shutdown {}).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let pid = ending.pid;
    let deadline = Instant::now() + END;
    // A zombie has no exe: its parent, whoever that is, does not hold us up.
    while Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok() {
        if Instant::now() >= deadline {
            return Err(
                Failure::new(format!("waited {END:?} for the daemon (pid {pid}) to end"))
                    .hint("banger daemon logs"),
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the metrics of a daemon that runs; starts none, for one that has just begun has nothing to tell.
pub async fn metrics() -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let Some(text) = daemon.metrics_if_running().await? else {
        return Err(Failure::new("no daemon runs").hint("banger vm list starts one"));
    };
    print_text(&text)?;
    Ok(ExitCode::SUCCESS)
}
