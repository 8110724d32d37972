//! `completion`: what a shell sources to complete banger's lines.

use super::print_text;
use crate::{args::Shell, complete::VARIABLE, failure::Failure};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use std::process::ExitCode;

/// Prints the script of a shell. It asks the `banger` of its `PATH`.
pub fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "banger", "banger", "banger", &mut script)
        .map_err(|e| Failure::new("the script cannot be made").caused_by(&e))?;
    print_text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
