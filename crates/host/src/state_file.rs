//! State files: temporary, write, fsync, rename, fsync directory.

use crate::{Error, Files};
use std::path::{Path, PathBuf};

/// The temporary name next to `path` that [`replace`] writes first.
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

/// Replaces a state file so that every crash leaves the old or the new content, whole.
///
/// # Errors
/// The first effect that failed; the old content is then still there.
pub fn replace<F: Files + ?Sized>(files: &F, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace_through(files, &temporary(path), path, bytes)
}

/// [`replace`], through a temporary name in the same directory that is the caller's alone: of two
/// writers with one temporary name the second writes into what the first has already renamed.
///
/// # Errors
/// As [`replace`].
pub fn replace_through<F: Files + ?Sized>(
    files: &F,
    part: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), Error> {
    files.write(part, bytes)?;
    files.sync_file(part)?;
    files.rename(part, path)?;
    files.sync_dir(path.parent().unwrap_or(Path::new("/")))
}
