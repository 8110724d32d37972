//! `daemon status|stop|metrics`.

use super::{print_json, print_text};
use crate::{
    args::JsonArgs,
    connection::{self, Daemon},
    failure::Failure,
};
use banger_wire::api::{DaemonStatus, NotRunning, Shutdown};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
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
    match await_exit(pid, END) {
        Ok(()) => {}
        Err(Errno::TIMEDOUT) => {
            return Err(
                Failure::new(format!("waited {END:?} for the daemon (pid {pid}) to end"))
                    .hint("banger daemon logs"),
            );
        }
        Err(error) => {
            return Err(Failure::new(format!(
                "the daemon (pid {pid}) ends, but its end cannot be waited for: {error}"
            ))
            .hint("banger daemon status"));
        }
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

/// Waits until all threads of a process are gone, and with them what it had open and mounted. A zombie is gone: its parent,
/// whoever that is, does not hold us up (a pidfd is readable then, pidfd_open(2)).
fn await_exit(pid: u32, timeout: Duration) -> Result<(), Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pidfd = match pidfd_open(pid.ok_or(Errno::INVAL)?, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error),
    };
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
