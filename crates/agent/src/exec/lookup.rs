//! From a command's name to the file to execute.

use std::io;
use std::path::{Path, PathBuf};

use banger_wire::guest::{ExecFailure, FailureKind};
use rustix::fs::{Access, access};

/// Finds a program as a shell does: with a slash it is a path, otherwise the first executable file in `path`.
/// A file that is there and cannot be executed is told apart from none at all.
pub fn find(program: &str, path: &str, cwd: &Path) -> Result<PathBuf, ExecFailure> {
    if program.contains('/') {
        let file = cwd.join(program);
        return match executable(&file) {
            Some(true) => Ok(file),
            Some(false) => Err(not_executable(program)),
            None => Err(not_found(format!("{program}: no such file in the guest"))),
        };
    }
    let mut seen = false;
    for directory in path.split(':') {
        let file = cwd.join(directory).join(program);
        match executable(&file) {
            Some(true) if !program.is_empty() => return Ok(file),
            Some(false) if file.is_file() => seen = true,
            _ => {}
        }
    }
    if seen {
        return Err(not_executable(program));
    }
    Err(not_found(format!(
        "{program}: command not found in the guest (PATH is {path})"
    )))
}

/// Whether the file can be executed; `None` if there is none.
fn executable(file: &Path) -> Option<bool> {
    let metadata = file.metadata().ok()?;
    Some(metadata.is_file() && access(file, Access::EXEC_OK).is_ok())
}

/// What an error of spawn means for a program that was found.
pub fn spawn_failure(program: &str, error: &io::Error) -> ExecFailure {
    match error.kind() {
        io::ErrorKind::NotFound => not_found(format!(
            "{program}: its interpreter is missing in the guest"
        )),
        io::ErrorKind::PermissionDenied => not_executable(program),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            ExecFailure {
                reason: FailureKind::NotExecutable,
                message: format!("{program}: not a program for this machine, and no `#!` line"),
            }
        }
        io::ErrorKind::ArgumentListTooLong => ExecFailure {
            reason: FailureKind::NotExecutable,
            message: format!("{program}: arguments and environment are too long"),
        },
        _ => ExecFailure {
            reason: FailureKind::Resource,
            message: format!("{program}: the guest could not start it: {error}"),
        },
    }
}

fn not_found(message: String) -> ExecFailure {
    ExecFailure {
        reason: FailureKind::NotFound,
        message,
    }
}

fn not_executable(program: &str) -> ExecFailure {
    ExecFailure {
        reason: FailureKind::NotExecutable,
        message: format!("{program}: permission denied: not executable in the guest"),
    }
}
