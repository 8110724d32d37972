//! The one place of this tool that starts programs.
#![allow(
    clippy::disallowed_methods,
    reason = "a developer's tool runs git, cargo, mmdebstrap and QEMU; nothing of the product runs through it"
)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program to be configured by the caller, with nothing on its standard input.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a program in `dir` to its end and returns its standard output; its errors go to ours.
///
/// # Errors
/// When it cannot be started, ends with another status than 0, or says something that is not UTF-8.
pub fn output(dir: &Path, program: &str, args: &[&str]) -> Result<String, String> {
    let out = command(program)
        .args(args)
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if !out.status.success() {
        return Err(format!(
            "{program} {} ended with {}",
            args.join(" "),
            out.status
        ));
    }
    String::from_utf8(out.stdout).map_err(|e| format!("output of {program} is not UTF-8: {e}"))
}

/// Runs a prepared program to its end, with our own output and errors.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0.
pub fn to_end(mut command: Command, name: &str) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name} ended with {status}"))
    }
}

/// Makes a sparse ext4 image of a directory; nobody needs it after a crash, so it has no journal.
///
/// # Errors
/// When mke2fs cannot be run, or the directory does not fit.
pub fn ext4(tree: &Path, image: &Path, size: &str, name: &str) -> Result<(), String> {
    let mut mke2fs = command("mke2fs");
    mke2fs
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"])
        .args(["-E", "lazy_itable_init=1", "-L", name, "-d"])
        .args([tree, image])
        .arg(size)
        .stdout(Stdio::null());
    to_end(mke2fs, "mke2fs")
}

/// The terminal's size as `ROWSxCOLUMNS`; none where standard input is no terminal.
pub fn terminal_size() -> Option<String> {
    let out = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (rows, columns) = text.trim().split_once(' ')?;
    Some(format!("{rows}x{columns}"))
}
