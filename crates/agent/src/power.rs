//! The orderly end of the guest.

use std::sync::Arc;
use std::time::Duration;

use banger_wire::guest::PowerOff;
use banger_wire::guest::last_word::{POWERING_OFF, REBOOTING};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use tokio::time::{Instant, sleep};

use crate::boot::mounts;
use crate::console::{say, say_now};
use crate::guest::{Guest, Place};
use crate::reaper::children_left;

/// How long the answer may take to leave before things are stopped: the runtime writes it before it next sleeps.
const ANSWER: Duration = Duration::from_millis(2);
/// How long processes have between SIGTERM and SIGKILL.
const TERM_LIMIT: Duration = Duration::from_secs(2);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(5);

/// What follows the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    PowerOff,
    /// The guest wants to come up again.
    Reboot,
}

/// Begins the end of the guest; returns at once. The first order counts.
pub fn begin(guest: Arc<Guest>, end: End) {
    if !guest.first_order() {
        return;
    }
    tokio::spawn(async move {
        sleep(ANSWER).await;
        match guest.place {
            // Commands of a process that is not init are not ours to end; they get a hang-up.
            Place::Local => std::process::exit(0),
            Place::Init => {
                stop_processes().await;
                // On a thread: the runtime goes on sending what was answered.
                let how = guest.power_off;
                let _ = tokio::task::spawn_blocking(move || finish(how, end)).await;
            }
        }
    });
}

/// Asks all processes to end, and ends those that do not.
async fn stop_processes() {
    for (signal, limit) in [(Signal::TERM, TERM_LIMIT), (Signal::KILL, KILL_LIMIT)] {
        if !children_left() {
            return;
        }
        // `kill(-1)`: every process but this one.
        let _ = kill_process_group(Pid::INIT, signal);
        // An interactive shell heeds the hang-up only, and a stopped process must run to hear anything.
        let _ = kill_process_group(Pid::INIT, Signal::HUP);
        let _ = kill_process_group(Pid::INIT, Signal::CONT);
        let end = Instant::now() + limit;
        while children_left() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }
}

/// Writes everything to the disks and ends the machine; returns only if the kernel refuses.
pub fn finish(how: PowerOff, end: End) {
    // Making a file system read-only writes it out; what the user mounted besides is synced after that.
    mounts::make_read_only();
    rustix::fs::sync();
    // For the host, which may not be listening: the console is a file there.
    say_now(match end {
        End::PowerOff => POWERING_OFF,
        End::Reboot => REBOOTING,
    });
    let command = match (end, how) {
        (End::PowerOff, PowerOff::PowerOff) => RebootCommand::PowerOff,
        (End::Reboot, _) | (_, PowerOff::Reboot) => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        say(&format!("the kernel refused to end the machine: {error}"));
    }
}
