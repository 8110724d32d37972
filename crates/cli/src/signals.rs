//! Signals a user sends to us that are meant for the command.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are passed on.
pub struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals do not end us by themselves.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next signal for the command (signal(7)).
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            () = received(&mut self.hang_up) => 1,
            () = received(&mut self.interrupt) => 2,
            () = received(&mut self.quit) => 3,
            () = received(&mut self.terminate) => 15,
        }
    }
}

/// The terminal's changes of size.
pub struct Resizes(Signal);

impl Resizes {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Resizes)
    }

    /// Waits for the next.
    pub async fn next(&mut self) {
        received(&mut self.0).await;
    }
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
