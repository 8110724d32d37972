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
pub mod export;
pub mod health;
pub mod image;
pub mod image_history;
pub mod image_prune;
pub mod import;
pub mod kernel;
mod kernel_host;
mod kernel_import;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod operation;
pub mod ports;
pub mod prune;
pub mod pull;
pub mod recover;
pub mod reference;
pub mod register;
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
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// Prints a value as JSON, for programs.
fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| no_json(&e))?;
    print_text(&format!("{text}\n"))
}

/// A value as JSON on a line.
fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string(value).map_err(|e| no_json(&e))?;
    text.push('\n');
    Ok(text)
}

fn no_json(error: &serde_json::Error) -> Failure {
    Failure::new("cannot write JSON").caused_by(error)
}

/// Prints each on a line of its own.
fn print_each<T: Display>(items: impl Iterator<Item = T>) -> Result<(), Failure> {
    print_text(&items.map(|item| format!("{item}\n")).collect::<String>())
}

/// Prints to stdout; a closed pipe is the reader's choice, not a failure.
pub fn print_text(text: &str) -> Result<(), Failure> {
    printed(io::stdout().lock().write_all(text.as_bytes())).map(drop)
}

/// Prints at once; false if nobody reads any more.
fn print_now(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    printed(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

fn printed(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new("cannot write to stdout").caused_by(&error)),
    }
}

/// What several requests came to: good ones proceed, and a failure of any is that of the whole.
struct Several<T> {
    /// Answers of the good ones.
    good: Vec<T>,
    /// The exit status of the whole.
    status: ExitCode,
}

impl<T> Several<T> {
    fn new() -> Self {
        Several {
            good: Vec::new(),
            status: ExitCode::SUCCESS,
        }
    }

    /// Takes a good one's answer; tells why another has none.
    fn add(&mut self, answer: Result<T, Failure>) -> Option<&T> {
        match answer {
            Ok(answer) => {
                self.good.push(answer);
                self.good.last()
            }
            Err(failure) => {
                self.status = failure.report();
                None
            }
        }
    }
}

/// Tells each failure; the exit status of the whole.
fn report_all(failures: impl Iterator<Item = Failure>) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for failure in failures {
        status = failure.report();
    }
    status
}
