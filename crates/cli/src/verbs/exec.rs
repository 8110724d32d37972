//! `vm exec`: a command in a running VM.

use crate::{
    args::{ExecArgs, ProcessArgs},
    connection::Daemon,
    failure::Failure,
    stream::{self, Carried},
    terminal,
};
use banger_wire::{
    api::{Command, Program, VmExec},
    guest::{ExecId, TtySize},
};
use std::{path::Path, process::ExitCode};

/// What of our environment a command with a terminal gets (R-CLI-1).
const PASSED_WITH_TTY: [&str; 3] = ["TERM", "LANG", "TZ"];
/// Size of a terminal that does not say its size.
const ASSUMED_SIZE: TtySize = TtySize { rows: 24, cols: 80 };

/// Runs the command, ends with its status; detached, with that of its start.
pub async fn exec(args: ExecArgs) -> Result<ExitCode, Failure> {
    let mut command = command_of(&args.process, args.command)?;
    if args.detach {
        command.detach = true;
        command.tty = None;
    }
    let id = ExecId::random()
        .map_err(|e| Failure::new("the system gives no random numbers").caused_by(&e))?;
    command.id = Some(id);
    let what = Carried {
        tty: command.tty.is_some(),
        id,
        vm: Some(args.vm.clone()),
        removes: false,
        shell: false,
        left_alone: args.detach,
    };
    let request = VmExec {
        vm: args.vm,
        command,
    };
    let daemon = Daemon::of_this_user()?;
    // Asked twice with one id, the guest starts one command.
    let frames = daemon.frames_again(&request).await?;
    stream::carry(&daemon, frames, what).await
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
    for file in &process.env_file {
        env.extend(read_env_file(file)?);
    }
    for assignment in &process.env {
        let Some(variable) = assigned(assignment) else {
            return Err(
                Failure::new(format!("'-e {assignment}' names no variable")).hint("-e NAME=VALUE")
            );
        };
        env.extend(variable);
    }
    Ok(Command {
        argv,
        program: Program::Argv,
        env,
        cwd: process.workdir.clone(),
        user: process.user.clone(),
        tty,
        id: None,
        detach: false,
    })
}

/// What `NAME=VALUE` or `NAME` sets: the latter our own value, or nothing if we have none. `None` without a name.
fn assigned(text: &str) -> Option<Option<(String, String)>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    (!name.is_empty()).then(|| value.map(|value| (name.to_owned(), value)))
}

/// Variables of a file as docker reads it: one on a line, values as they stand, lines that begin with `#` and empty
/// ones left out.
fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read the variables in {}", path.display())).caused_by(&error)
    })?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(variable) = assigned(line) else {
            let place = format!("line {} of {}", index + 1, path.display());
            return Err(Failure::new(format!("{place} names no variable")).hint("NAME=VALUE"));
        };
        variables.extend(variable);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_as_docker_reads_it() {
        let file = std::env::temp_dir().join(format!("banger-env-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_env_file(&file)
        };
        let good = read("# comment\n\nA=1\nB=two words # kept\n  C==\nBANGER_NOT_SET\n").unwrap();
        let bad = read("A=1\n=x\n").unwrap_err().text();
        std::fs::remove_file(&file).unwrap();
        let expected = [("A", "1"), ("B", "two words # kept"), ("C", "=")];
        assert_eq!(good, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(bad.contains("line 2 of "), "{bad}");
        let missing = read_env_file(&file).unwrap_err().text();
        assert!(missing.contains("cannot read the variables"), "{missing}");
    }
}
