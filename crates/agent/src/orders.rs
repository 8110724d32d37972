//! What programs of the guest tell an init: by signal, and through the pipe of sysvinit.
//!
//! `poweroff`, `reboot`, `halt` and `shutdown` of an image are its own init's, and none of these is PID 1 here. They
//! work all the same because the agent understands them: busybox sends signals, systemd's and sysvinit's write to
//! `/run/initctl` (systemd's does so when it finds no systemd to talk to).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::guest::{Guest, Place};
use crate::power::{self, End};

/// Signals and what they ask for: busybox init's, then those of systemd(1), which counts from glibc's first real-time
/// signal, 34. A halt is a power-off: a VMM does not end for a processor that stands still. SIGINT is what the kernel
/// makes of Ctrl-Alt-Del.
const SIGNALS: &[(i32, End)] = &[
    (10, End::PowerOff), // SIGUSR1: halt
    (12, End::PowerOff), // SIGUSR2
    (15, End::Reboot),   // SIGTERM
    (2, End::Reboot),    // SIGINT
    (30, End::PowerOff), // SIGPWR
    (37, End::PowerOff), // SIGRTMIN+3: halt
    (38, End::PowerOff), // SIGRTMIN+4
    (39, End::Reboot),   // SIGRTMIN+5
];

/// Obeys signals from now on; must be called within the runtime.
pub fn obey_signals(guest: &Arc<Guest>) -> io::Result<()> {
    for (number, end) in SIGNALS.iter().copied() {
        let mut heard = signal(SignalKind::from_raw(number))?;
        let guest = Arc::clone(guest);
        tokio::spawn(async move {
            // Beside the image's init nothing is ours to obey, but a signal to everybody must not end us.
            if heard.recv().await.is_some() && guest.place == Place::Init {
                power::begin(guest, end);
            }
        });
    }
    Ok(())
}

const PIPE: &str = "/run/initctl";
/// Where older programs look for it.
const OLD_PIPE: &str = "/dev/initctl";
/// `struct init_request` of sysvinit's initreq.h: magic, command, run level, time, data.
const REQUEST: usize = 384;
const MAGIC: i32 = 0x0309_1969;
const CHANGE_RUN_LEVEL: i32 = 1;

/// Makes the pipe.
pub fn open_pipe() -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    match mknodat(CWD, PIPE, FileType::Fifo, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    if !Path::new(OLD_PIPE).exists() {
        symlink(PIPE, OLD_PIPE)?;
    }
    // For writing too, so that it does not end with its last writer.
    OpenOptions::new().read(true).write(true).open(PIPE)
}

/// Obeys what is written to the pipe; returns when it fails. A request is written in one go, and read so.
pub fn obey_pipe(mut pipe: File, handle: &Handle, guest: &Arc<Guest>) {
    let mut request = [0_u8; REQUEST];
    while let Ok(length) = pipe.read(&mut request) {
        if let Some(end) = asked(&request[..length]) {
            let _in_runtime = handle.enter();
            power::begin(Arc::clone(guest), end);
        }
    }
}

/// What a request asks for, if that is the end: run levels 0 and 6.
fn asked(request: &[u8]) -> Option<End> {
    let number = |at: usize| {
        let bytes = request.get(at..at + 4)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    };
    if (number(0)?, number(4)?) != (MAGIC, CHANGE_RUN_LEVEL) {
        return None;
    }
    match u8::try_from(number(8)?).ok()? {
        b'0' => Some(End::PowerOff),
        b'6' => Some(End::Reboot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(magic: i32, command: i32, level: u8) -> Vec<u8> {
        let numbers = [magic, command, i32::from(level), 0];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.resize(REQUEST, 0);
        bytes
    }

    #[test]
    fn run_levels_0_and_6_end_the_guest() {
        assert_eq!(asked(&request(MAGIC, 1, b'0')), Some(End::PowerOff));
        assert_eq!(asked(&request(MAGIC, 1, b'6')), Some(End::Reboot));
        for other in [
            request(MAGIC, 1, b'3'),
            request(MAGIC, 2, b'0'),
            request(0, 1, b'0'),
            vec![0x69; 7],
            Vec::new(),
        ] {
            assert_eq!(asked(&other), None, "{other:?}");
        }
    }
}
