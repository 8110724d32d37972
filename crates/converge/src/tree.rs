//! Removing a directory with what is in it.

use banger_host::{Error, ErrorKind, FileKind, Files};
use std::path::Path;

/// Removes a directory and everything in it; what is gone already is no error. Resumable from every
/// prefix. Symlinks are removed, never followed.
pub(crate) fn remove<F: Files>(files: &F, dir: &Path) -> Result<(), Error> {
    clear(files, dir)?;
    gone(files.rmdir(dir))
}

/// Removes everything in a directory.
pub(crate) fn clear<F: Files>(files: &F, dir: &Path) -> Result<(), Error> {
    for name in files.list(dir)? {
        let path = dir.join(name);
        match files.stat(&path)?.map(|seen| seen.kind) {
            None => {}
            Some(FileKind::Dir) => remove(files, &path)?,
            Some(_) => gone(files.unlink(&path))?,
        }
    }
    Ok(())
}

/// Takes "it is not there" for done.
pub(crate) fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
