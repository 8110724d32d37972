//! How far a copy is and how fast it goes.

use std::{
    cell::Cell,
    convert::Infallible,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How often a terminal is told how far a copy is.
const REFRESH: Duration = Duration::from_millis(250);
/// After this time a copy is worth a line where there is no terminal; then after twice as long, and so on.
const LONG: Duration = Duration::from_secs(10);

/// Bytes of a copy and how fast they go: on one line of a terminal, elsewhere in a few lines if it takes long.
#[derive(Default)]
pub struct Meter {
    bytes: Cell<u64>,
    /// The terminal has a line of ours.
    shown: Cell<bool>,
}

impl Meter {
    /// So many more were copied.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Shows them for as long as it is polled.
    pub async fn show(&self) -> Infallible {
        let terminal = io::stderr().is_terminal();
        let began = Instant::now();
        let mut wait = if terminal { REFRESH } else { LONG };
        loop {
            tokio::time::sleep(wait).await;
            let text = copied(self.bytes.get(), began.elapsed());
            if terminal {
                let _ = write!(io::stderr(), "\r{text}\x1b[K");
                self.shown.set(true);
            } else {
                let _ = writeln!(io::stderr(), "{text}");
                wait *= 2;
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown.get() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// `copy: 12.5 MiB, 50.0 MiB/s`
fn copied(bytes: u64, took: Duration) -> String {
    let mib = bytes as f64 / (1024.0 * 1024.0);
    let rate = mib / took.as_secs_f64().max(0.001);
    format!("copy: {mib:.1} MiB, {rate:.1} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_tells_bytes_and_rate() {
        let text = copied(25 << 19, Duration::from_millis(250));
        assert_eq!(text, "copy: 12.5 MiB, 50.0 MiB/s");
    }
}
