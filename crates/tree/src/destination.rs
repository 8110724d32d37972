//! Where a copy comes to lie: the rules of `cp` and `docker cp`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::Error;
use crate::tar::Kind;

/// A destination as the user named it. Its own path is the user's word and resolved like any; what is unpacked there
/// is not.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The path as it was typed, made absolute.
    pub path: PathBuf,
    /// What the source is called: its name inside a destination that is a directory. Without one the source's content
    /// goes there.
    pub name: Option<Vec<u8>>,
    /// It must be a directory, whatever the source is.
    pub directory: bool,
}

/// Where the entries go.
pub(crate) enum Place {
    /// Into a directory that is there.
    Into(OwnedFd),
    /// Under a name in a directory.
    At {
        parent: OwnedFd,
        name: Vec<u8>,
        /// The whole path, for messages.
        shown: Vec<u8>,
    },
}

impl Destination {
    /// What the last part of a source's path names; `None` for `.`, `..`, `/` and for a path that ends in `/.`.
    pub fn name_of(path: &[u8]) -> Option<&[u8]> {
        let end = path.iter().rposition(|b| *b != b'/')? + 1;
        let start = path[..end]
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(0, |i| i + 1);
        Some(&path[start..end]).filter(|name| is_plain(name))
    }

    /// Decides by what is there; `root` is what the source is.
    pub(crate) fn place(&self, root: &Kind) -> Result<Place, Error> {
        let from_directory = matches!(root, Kind::Directory);
        let shown = self.path.as_os_str().as_bytes();
        let says_directory = shown.ends_with(b"/") || shown.ends_with(b"/.");
        let seen = std::fs::metadata(&self.path);
        match (seen, &self.name) {
            (Ok(seen), Some(name)) if seen.is_dir() => {
                if !is_plain(name) {
                    return Err(Error::entry("this is no name of a file:", name));
                }
                let slash = if shown.ends_with(b"/") {
                    &b""[..]
                } else {
                    b"/"
                };
                Ok(Place::At {
                    parent: open(&self.path)?,
                    name: name.clone(),
                    shown: [shown, slash, name].concat(),
                })
            }
            (Ok(seen), None) if seen.is_dir() => Ok(Place::Into(open(&self.path)?)),
            (Ok(_), _) if self.directory || says_directory => {
                Err(Error::entry("the destination is not a directory:", shown))
            }
            (Ok(_), _) if from_directory => Err(Error::entry(
                "a directory cannot be copied onto a file:",
                shown,
            )),
            // Through a symbolic link, as `cp` does: what it leads to is replaced.
            (Ok(_), _) => match std::fs::canonicalize(&self.path) {
                Ok(path) => at(&path),
                Err(error) => Err(Error::entry("cannot look at", shown).because(error)),
            },
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
                let dangling = std::fs::symlink_metadata(&self.path).is_ok();
                if self.directory || (says_directory && !from_directory) || dangling {
                    return Err(Error::entry("there is no directory", shown));
                }
                at(&self.path)
            }
            (Err(error), _) => Err(Error::entry("cannot look at", shown).because(error)),
        }
    }

    /// The directory itself, which must be there.
    pub(crate) fn existing(&self) -> Result<OwnedFd, Error> {
        open(&self.path)
    }
}

/// A name of its own: not empty, no path, neither `.` nor `..`.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

fn at(path: &Path) -> Result<Place, Error> {
    let shown = path.as_os_str().as_bytes();
    let name = Destination::name_of(shown)
        .ok_or_else(|| Error::entry("there is no directory", shown))?
        .to_owned();
    let end = shown.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let parent = match &shown[..end - name.len()] {
        [] => b".",
        parent => parent,
    };
    Ok(Place::At {
        parent: open(Path::new(OsStr::from_bytes(parent)))?,
        shown: shown[..end].to_owned(),
        name,
    })
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| {
        let shown = path.as_os_str().as_bytes();
        Error::entry("cannot open the directory", shown).because(errno)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_is_called() {
        let name = |path: &'static str| Destination::name_of(path.as_bytes());
        assert_eq!(name("a/b"), Some(&b"b"[..]));
        assert_eq!(name("a/b//"), Some(&b"b"[..]));
        assert_eq!(name("b"), Some(&b"b"[..]));
        assert_eq!(name("/b"), Some(&b"b"[..]));
        for contents in ["", "/", ".", "..", "a/.", "a/./", "a/.."] {
            assert_eq!(name(contents), None, "{contents}");
        }
    }
}
