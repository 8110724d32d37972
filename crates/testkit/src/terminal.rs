//! A program on a terminal of its own, whose screen is what a real terminal emulator shows.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use crate::{Home, wait_until};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    num::NonZero,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Longest wait for something to show.
const LIMIT: Duration = Duration::from_secs(60);
/// The size a terminal begins with: rows, columns.
const SIZE: (u16, u16) = (24, 80);

/// A program that leads a session with a terminal that we hold.
pub struct OnTerminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    /// Everything that was ever written.
    all: Vec<u8>,
    /// What a terminal makes of it.
    emulator: vt100::Parser,
}

impl OnTerminal {
    /// Starts `banger` in this home.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(home: &Home, args: &[&str]) -> OnTerminal {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keys).expect("a terminal");
        unlockpt(&keys).expect("a terminal");
        tcsetwinsize(&keys, window(SIZE)).expect("its size");
        let name = ptsname(&keys, Vec::new()).expect("its name");
        let open = || {
            let side = OpenOptions::new()
                .read(true)
                .write(true)
                .open(name.to_str().expect("ASCII"));
            Stdio::from(side.expect("its other side"))
        };
        let banger = home.command(args);
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(banger.get_program())
            .args(banger.get_args())
            .env_clear();
        for (name, value) in banger.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().expect("setsid");
        let keys = File::from(keys);
        let shown = Arc::new(Mutex::new(Shown {
            all: Vec::new(),
            emulator: vt100::Parser::new(cells(SIZE.0), cells(SIZE.1), 0),
        }));
        let (to, mut from) = (Arc::clone(&shown), keys.try_clone().expect("a copy"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = from.read(&mut buffer) {
                let mut shown = to.lock().unwrap_or_else(PoisonError::into_inner);
                shown.all.extend_from_slice(&buffer[..count]);
                shown.emulator.process(&buffer[..count]);
            }
        });
        OnTerminal { child, keys, shown }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was ever written, as text.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.shown().all).into_owned()
    }

    /// What the screen shows now, without blanks at the ends of lines.
    pub fn screen(&self) -> String {
        let contents = self.shown().emulator.screen().contents();
        let lines: Vec<&str> = contents.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    /// Waits until this was written.
    ///
    /// # Panics
    /// It was not.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} to be written"), LIMIT, || {
            let written = self.written();
            written.contains(text).then_some(()).ok_or(written)
        });
    }

    /// Waits until the screen satisfies.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn looks(&self, like: &str, is: impl Fn(&str) -> bool) {
        wait_until(&format!("a screen that {like}"), LIMIT, || {
            let screen = self.screen();
            is(&screen).then_some(()).ok_or(screen)
        });
    }

    /// Presses keys.
    ///
    /// # Panics
    /// The terminal does not take them.
    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
    }

    /// Changes the terminal's size.
    ///
    /// # Panics
    /// The kernel refuses.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keys, window((rows, columns))).expect("a size");
        let mut shown = self.shown();
        let screen = shown.emulator.screen_mut();
        screen.set_size(cells(rows), cells(columns));
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// It does not end, or with another status.
    #[track_caller]
    pub fn exits(&mut self, status: i32) {
        let mut ended = None;
        wait_until("the command line to end", Duration::from_secs(30), || {
            ended = self.child.try_wait().expect("its status");
            ended.map(|_| ()).ok_or_else(|| self.screen())
        });
        let code = ended.and_then(|status| status.code());
        assert_eq!(code, Some(status), "{}", self.written());
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has rows and columns")
}

fn window((rows, columns): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
