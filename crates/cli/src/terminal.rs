//! The user's terminal: its size, and raw mode that is always undone.

use banger_wire::guest::exec::TtySize;
use rustix::termios::{self, OptionalActions, Termios};
use std::io::{self, IsTerminal};

/// The size of the terminal at stdout, if there is one.
pub fn size() -> Option<TtySize> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TtySize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// Columns of the terminal at stderr, if there is one.
pub fn stderr_width() -> Option<usize> {
    let size = termios::tcgetwinsize(io::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Both ends of a conversation are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Raw mode of stdin until dropped. (Dropping only restores the terminal; nothing is destroyed.)
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode; every key goes to the guest.
    ///
    /// # Errors
    /// If stdin is not a terminal.
    pub fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
