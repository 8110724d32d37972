//! Removing a directory with what is in it, effect by effect.

use std::path::Path;

use banger_host::{ErrorKind, FileKind, Files};

/// Removes `path` and all below it; nothing there is success. Symlinks are removed, never followed. Resumable: a
/// second call goes on where the first one ended.
///
/// # Errors
/// The first effect that fails, other than finding the thing gone.
pub fn remove<F: Files>(files: &F, path: &Path) -> Result<(), banger_host::Error> {
    let Some(seen) = files.stat(path)? else {
        return Ok(());
    };
    if seen.kind != FileKind::Dir {
        return gone_is_fine(files.unlink(path));
    }
    for name in files.list(path)? {
        remove(files, &path.join(name))?;
    }
    gone_is_fine(files.rmdir(path))
}

fn gone_is_fine(result: Result<(), banger_host::Error>) -> Result<(), banger_host::Error> {
    match result {
        Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
