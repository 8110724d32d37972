//! The verbs, one file each.

pub mod completion;
pub mod config;
pub mod connect;
pub mod cp;
pub mod create;
pub mod daemon;
pub mod daemon_logs;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod health;
pub mod image;
pub mod import;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod operation;
pub mod ports;
pub mod prune;
pub mod recover;
pub mod reference;
pub mod rename;
pub mod run;
pub mod set;
pub mod show;
pub mod ssh;
pub mod stats;
mod stats_live;
pub mod version;
pub mod wait;

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// Prints a value as JSON, for programs.
fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new("cannot write JSON").caused_by(&e))?;
    print_text(&format!("{text}\n"))
}

/// Prints a line at once; false if nobody reads any more.
fn print_line(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new("cannot write to stdout").caused_by(&error)),
    }
}

/// Prints to stdout; a closed pipe is the reader's choice, not a failure.
fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to stdout").caused_by(&error))
        }
        _ => Ok(()),
    }
}
