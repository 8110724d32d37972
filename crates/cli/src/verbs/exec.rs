//! `vm exec`: a command in a running VM.

use crate::{
    args::{ExecArgs, ProcessArgs},
    connection::Daemon,
    failure::Failure,
    stream::{self, Begin},
    terminal,
};
use banger_wire::{
    api::{Command, VmExec},
    guest::TtySize,
};
use std::process::ExitCode;

/// What of our environment a command with a terminal gets (R-CLI-1).
const PASSED_WITH_TTY: [&str; 3] = ["TERM", "LANG", "TZ"];
/// Size of a terminal that does not say its size.
const ASSUMED_SIZE: TtySize = TtySize { rows: 24, cols: 80 };

/// Runs the command, ends with its status.
pub async fn exec(args: ExecArgs) -> Result<ExitCode, Failure> {
    let command = command_of(&args.process, args.command)?;
    let tty = command.tty.is_some();
    let request = VmExec {
        vm: args.vm,
        command,
    };
    stream::carry(
        Daemon::of_this_user()?.frames(&request).await?,
        tty,
        Begin::AtOnce,
    )
    .await
}

/// The command as the API wants it. A pty when asked for, or when stdin and stdout are terminals.
///
/// # Errors
/// `-e` without a name.
pub fn command_of(process: &ProcessArgs, argv: Vec<String>) -> Result<Command, Failure> {
    let interactive = process.tty || (!process.no_tty && terminal::is_interactive());
    let tty = interactive.then(|| terminal::size().unwrap_or(ASSUMED_SIZE));
    let mut env = std::collections::BTreeMap::new();
    if interactive {
        env.extend(
            PASSED_WITH_TTY
                .into_iter()
                .filter_map(|n| Some((n.to_owned(), std::env::var(n).ok()?))),
        );
    }
    for assignment in &process.env {
        let (name, value) = match assignment.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (assignment.as_str(), std::env::var(assignment).ok()),
        };
        if name.is_empty() {
            return Err(
                Failure::new(format!("'-e {assignment}' names no variable")).hint("-e NAME=VALUE")
            );
        }
        env.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(Command {
        argv,
        env,
        cwd: process.workdir.clone(),
        user: process.user.clone(),
        tty,
    })
}
