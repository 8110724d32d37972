//! `daemon logs`: what the daemon wrote, with no daemon needed.

use super::print_now;
use crate::{args::DaemonLogsArgs, connection, failure::Failure, log::Line};
use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Prints the daemon's log.
pub async fn logs(args: DaemonLogsArgs) -> Result<ExitCode, Failure> {
    let path = connection::paths()?.daemon_log();
    let failed = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot read the daemon's log {}", path.display()))
            .caused_by(&error);
        match error.kind() {
            ErrorKind::NotFound => failure.hint("banger vm list starts a daemon, which writes it"),
            _ => failure.hint(format!("see what {} is", path.display())),
        }
    };
    let mut log = match File::open(&path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) if error.kind() == ErrorKind::NotFound && args.follow => None,
        Err(error) => return Err(failed(error)),
    };
    let mut line = Vec::new();
    loop {
        if let Some(log) = &mut log {
            while log.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                // Half a line waits for its rest, unless nobody waits for more.
                if line.last() != Some(&b'\n') && args.follow {
                    break;
                }
                if !print(&args, &line)? {
                    return Ok(ExitCode::SUCCESS);
                }
                line.clear();
            }
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
        if log
            .as_ref()
            .is_none_or(|log| replaced(log.get_ref(), &path))
            && let Ok(file) = File::open(&path)
        {
            log = Some(BufReader::new(file));
            line.clear();
        }
    }
}

/// Prints a line if it is wanted; false if nobody reads.
fn print(args: &DaemonLogsArgs, line: &[u8]) -> Result<bool, Failure> {
    let text = String::from_utf8_lossy(line);
    let line = Line::of(text.trim_end());
    if args.operation.as_ref().is_some_and(|op| !line.is_of(op)) {
        return Ok(true);
    }
    let text = if args.json { line.json() } else { line.text() };
    print_now(&(text + "\n"))
}

/// Whether the path means another file by now: a log that has grown long is put aside by the next daemon.
fn replaced(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
        _ => false,
    }
}
