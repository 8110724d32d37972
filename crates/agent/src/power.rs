//! The orderly end of the guest.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use banger_wire::guest::PowerOff;
use banger_wire::guest::exec::DEFAULT_PATH;
use banger_wire::guest::last_word::{POWERING_OFF, REBOOTING};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use tokio::time::{Instant, sleep};

use crate::boot::mounts;
use crate::console::{say, say_now};
use crate::guest::{Guest, Place};
use crate::init::Kind;
use crate::reaper::children_left;
use crate::spawn::{Launch, Stdio, spawn};

/// How long the answer may take to leave before things are stopped: the runtime writes it before it next sleeps.
const ANSWER: Duration = Duration::from_millis(2);
/// How long programs have that are asked in a way of their own, before all others are.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);
/// How long processes have between SIGTERM and SIGKILL.
const TERM_LIMIT: Duration = Duration::from_secs(2);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(5);

/// How long the image's init may take, of the time that the host gives.
const INIT_LIMIT: Duration = Duration::from_secs(7);

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
        // What is written by now is on the disks however little time the host gives to the rest.
        tokio::task::spawn_blocking(rustix::fs::sync);
        match guest.place {
            // Commands of a process that is not init are not ours to end; they get a hang-up.
            Place::Local => std::process::exit(0),
            place => {
                let began = Instant::now();
                guest.farewells.say(&guest.reaper, FAREWELL_LIMIT).await;
                if place == Place::Service {
                    let left = INIT_LIMIT.saturating_sub(began.elapsed());
                    ask_init(&guest, left).await;
                }
                stop_processes(place).await;
                // On a thread: the runtime goes on sending what was answered.
                let how = guest.power_off;
                let _ = tokio::task::spawn_blocking(move || finish(how, end)).await;
            }
        }
    });
}

/// Asks the image's init to power off, in the way it knows, and gives it its time. It ends the machine; if it does
/// not, we do.
async fn ask_init(guest: &Guest, limit: Duration) {
    let asked = match guest.init() {
        // SAFETY: 38 is a signal's number: systemd(1)'s SIGRTMIN+4, counted from glibc's first.
        Some(Kind::Systemd) => tell_init(unsafe { Signal::from_raw_unchecked(38) }),
        Some(Kind::Other) => match run_power_off(guest) {
            Ok(()) => Ok(()),
            // busybox init has the program and this signal; the others have the program.
            Err(_) => tell_init(Signal::USR2),
        },
        // It never was there.
        None => return,
    };
    match asked {
        Ok(()) => sleep(limit).await,
        Err(error) => say(&format!(
            "the image's init cannot be asked to power off: {error}"
        )),
    }
}

fn tell_init(signal: Signal) -> io::Result<()> {
    Ok(kill_process(Pid::INIT, signal)?)
}

/// Runs the image's `poweroff`, which knows its init.
fn run_power_off(guest: &Guest) -> io::Result<()> {
    let places = DEFAULT_PATH
        .split(':')
        .map(|dir| Path::new(dir).join("poweroff"));
    let program = places.into_iter().find(|path| path.exists());
    let program = program.ok_or(io::ErrorKind::NotFound)?;
    let launch = Launch {
        program: &program,
        argv: &["poweroff".to_owned()],
        env: &[("PATH".to_owned(), DEFAULT_PATH.to_owned())],
        cwd: Path::new("/"),
        uid: 0,
        gid: 0,
        groups: &[],
        stdio: Stdio::Null,
    };
    spawn(&guest.reaper, &launch).map(drop)
}

/// Asks all processes to end, and ends those that do not.
async fn stop_processes(place: Place) {
    for (signal, limit) in [(Signal::TERM, TERM_LIMIT), (Signal::KILL, KILL_LIMIT)] {
        // Beside another init most processes are not our children, and have been asked by that already.
        if place == Place::Init && !children_left() {
            return;
        }
        // `kill(-1)`: every process but this one and PID 1.
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
