//! `cargo xtask lint`: what this tree promises about itself and no compiler checks.
//!
//! Every rule is a pure function from files to findings, so that each has tests that plant its violation.

mod edges;
mod source;
mod spawn;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use crate::run;

/// One file of the tree: its path from the root, and its text.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the repository's root, `/` between components.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// One violation, at a line counted from 1 (0 where the whole file is meant).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// All findings in these files, sorted by place.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = edges::check(files);
    findings.extend(spawn::check(files));
    findings.extend(files.iter().flat_map(source::check));
    findings.sort();
    findings.dedup();
    findings
}

/// Lints the tree at `root` and prints the findings.
///
/// # Errors
/// When git cannot list the files or one cannot be read.
pub fn command(root: &Path) -> Result<ExitCode, String> {
    let files = tree(root)?;
    let findings = check(&files);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("lint: {} files, 0 findings", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("lint: {} files, {} findings", files.len(), findings.len());
    Ok(ExitCode::FAILURE)
}

/// Every text file git knows or would take in. What is not UTF-8 is test data and left alone.
fn tree(root: &Path) -> Result<Vec<File>, String> {
    let listed = run::output(
        root,
        "git",
        &["ls-files", "-z", "-co", "--exclude-standard"],
    )?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|p| !p.is_empty()) {
        let full = root.join(path);
        // Deleted and not yet committed, or a link to somewhere else.
        if !full.symlink_metadata().is_ok_and(|m| m.is_file()) {
            continue;
        }
        let bytes = std::fs::read(&full).map_err(|e| format!("cannot read {path}: {e}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
pub fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
