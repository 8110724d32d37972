//! `config show|path|check|schema`: what the daemon will read at its start. Needs no daemon.

use super::{print_json, print_text};
use crate::{
    args::{ConfigCheckArgs, JsonArgs},
    connection,
    failure::Failure,
    render,
};
use banger_config::{Config, ConfigError, HostSize, schema, settings};
use std::{path::PathBuf, process::ExitCode};

fn told(error: ConfigError) -> Failure {
    let hint = error.hint();
    let failure = Failure::new(error.to_string()).hint(hint);
    match std::error::Error::source(&error) {
        Some(source) => failure.caused_by(source),
        None => failure,
    }
}

fn file() -> Result<PathBuf, Failure> {
    Ok(connection::paths()?.config)
}

/// Prints every setting.
pub fn show(args: JsonArgs) -> Result<ExitCode, Failure> {
    let settings = settings(&file()?, HostSize::of_this_machine()).map_err(told)?;
    if args.json {
        print_json(&settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = settings
        .iter()
        .map(|s| {
            let value = if s.value.is_empty() { "-" } else { &s.value };
            vec![
                s.key.to_owned(),
                render::plain(value),
                render::origin(s.origin).to_owned(),
            ]
        })
        .collect();
    print_text(&render::table(&["KEY", "VALUE", "ORIGIN"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the path, whether there is a file or not.
pub fn path() -> Result<ExitCode, Failure> {
    print_text(&format!("{}\n", file()?.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Says whether the file can be used.
pub fn check(args: ConfigCheckArgs) -> Result<ExitCode, Failure> {
    let (path, named) = match args.file {
        Some(path) => (path, true),
        None => (file()?, false),
    };
    // A file that was named is to be there; without one everything has its default.
    if matches!(path.try_exists(), Ok(false)) {
        if named {
            return Err(Failure::new(format!("there is no file {}", path.display()))
                .hint("banger config path"));
        }
        print_text(&format!(
            "{}: not there; every setting has its default\n",
            path.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    Config::load(&path).map_err(told)?;
    print_text(&format!("{}: good\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the schema.
pub fn print_schema() -> Result<ExitCode, Failure> {
    print_json(&schema())?;
    Ok(ExitCode::SUCCESS)
}
