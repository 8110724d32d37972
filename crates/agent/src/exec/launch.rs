//! From a request to a running program.

use std::path::{Path, PathBuf};

use banger_wire::guest::exec::DEFAULT_PATH;
use banger_wire::guest::{ExecFailure, ExecRequest, FailureKind};

use super::{lookup, user};
use crate::reaper::Reaper;
use crate::spawn::{self, Launch, Running, Stdio};

/// Decides user, directory, environment and file, and starts the program.
pub fn launch(reaper: &Reaper, request: &ExecRequest) -> Result<Running, ExecFailure> {
    let user = user::find(request.user.as_deref()).map_err(|message| ExecFailure {
        reason: FailureKind::User,
        message,
    })?;
    if let Some(cwd) = request.cwd.as_ref().filter(|_| request.make_cwd) {
        // What is there stays as it is; why there is still none is told by looking.
        let _ = std::fs::create_dir_all(cwd);
    }
    let cwd = directory(request.cwd.as_deref(), &user.home)?;
    let env = environment(request, &user);
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, path)| path);
    let name = request.argv.first().map_or("", String::as_str);
    let program = lookup::find(name, path, &cwd)?;
    let launch = Launch {
        program: &program,
        argv: &request.argv,
        env: &env,
        cwd: &cwd,
        uid: user.uid,
        gid: user.gid,
        groups: &user.groups,
        stdio: match request.tty {
            Some(size) => Stdio::Terminal(size),
            None if request.detach => Stdio::Null,
            None => Stdio::Pipes,
        },
    };
    spawn::spawn(reaper, &launch).map_err(|error| lookup::spawn_failure(name, &error))
}

/// The directory asked for, which must exist; else the home, which need not.
fn directory(wanted: Option<&str>, home: &Path) -> Result<PathBuf, ExecFailure> {
    let Some(wanted) = wanted else {
        let home_is_there = home.is_dir();
        return Ok(if home_is_there {
            home.to_owned()
        } else {
            PathBuf::from("/")
        });
    };
    let wanted = PathBuf::from(wanted);
    if wanted.is_absolute() && wanted.is_dir() {
        return Ok(wanted);
    }
    Err(ExecFailure {
        reason: FailureKind::Cwd,
        message: format!(
            "{} is not an absolute path of a directory in the guest",
            wanted.display()
        ),
    })
}

fn environment(request: &ExecRequest, user: &user::User) -> Vec<(String, String)> {
    let mut env = request.env.clone();
    let mut default = |name: &str, value: &str| {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", &user.home.to_string_lossy());
    default("USER", &user.name);
    default("LOGNAME", &user.name);
    default("SHELL", &user.shell);
    if request.tty.is_some() {
        default("TERM", "xterm");
    }
    env.into_iter().collect()
}
