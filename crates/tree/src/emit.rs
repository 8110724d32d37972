//! Entries of a stream as they are written, wherever a tree comes from.

use std::collections::BTreeMap;
use std::io;

use crate::tar::{self, Entry, Kind, Time};
use crate::{Error, Output, Shown};

/// So many warnings are told, the others counted.
pub(crate) const MOST_WARNINGS: u64 = 100;

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries of the stream.
    pub entries: u64,
}

/// What an entry says besides its name and kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The twelve permission bits; more is cut off.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed.
    pub mtime: Time,
}

/// Writes entries. Paths are those of the stream: that of a root without a name is empty.
pub struct Emitter<'a> {
    output: &'a mut dyn Output,
    root: &'a [u8],
    name: &'a [u8],
    /// Files with several names: the first one.
    seen: BTreeMap<(u64, u64), Vec<u8>>,
    entries: u64,
    warnings: u64,
}

impl<'a> Emitter<'a> {
    /// `root` is the path by which people know the tree, `name` what it is called in the stream.
    pub fn new(output: &'a mut dyn Output, root: &'a [u8], name: &'a [u8]) -> Self {
        Self {
            output,
            root,
            name,
            seen: BTreeMap::new(),
            entries: 0,
            warnings: 0,
        }
    }

    /// The first path of a file with several names.
    pub fn first_name(&self, file: (u64, u64)) -> Option<&[u8]> {
        self.seen.get(&file).map(Vec::as_slice)
    }

    /// Remembers it.
    pub fn remember(&mut self, file: (u64, u64), path: &[u8]) {
        self.seen.insert(file, in_stream(path));
    }

    /// Writes what comes before an entry's data.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    pub fn header(
        &mut self,
        path: &[u8],
        kind: Kind,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let mut path = in_stream(path);
        if kind == Kind::Directory {
            path.push(b'/');
        }
        let header = tar::header(&Entry {
            path,
            kind,
            mode: attributes.mode & 0o7777,
            uid: u64::from(attributes.uid),
            gid: u64::from(attributes.gid),
            mtime: attributes.mtime,
        });
        self.entries += 1;
        self.write(&header)
    }

    /// Room for an entry's data, never empty.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    pub fn space(&mut self) -> Result<&mut [u8], Error> {
        self.output.space().map_err(unsent)
    }

    /// So many bytes of the room were written.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    pub fn advance(&mut self, count: usize) -> Result<(), Error> {
        self.output.advance(count).map_err(unsent)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.advance(count)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// Nobody takes the stream any more.
    pub fn zeros(&mut self, mut count: u64) -> Result<(), Error> {
        while count > 0 {
            let space = self.space()?;
            let length = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(space.len());
            space[..length].fill(0);
            self.advance(length)?;
            count -= length as u64;
        }
        Ok(())
    }

    /// Tells what was left out, and why.
    pub fn warn(&mut self, text: &str, path: &[u8]) {
        self.warnings += 1;
        if self.warnings <= MOST_WARNINGS {
            let name = self.shown(path);
            self.output.warn(format!("'{}' {text}", Shown(&name)));
        } else if self.warnings == MOST_WARNINGS + 1 {
            self.output.warn("more of this kind is not told".to_owned());
        }
    }

    /// The path by which people know an entry.
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        let below = path.get(self.name.len()..).unwrap_or_default();
        match (below, self.root.ends_with(b"/")) {
            ([], _) => self.root.to_vec(),
            ([b'/', ..], false) | (_, true) => [self.root, below].concat(),
            (_, false) => [self.root, b"/", below].concat(),
        }
    }

    /// What went wrong with an entry.
    pub fn failed(&self, what: &str, path: &[u8], why: impl Into<io::Error>) -> Error {
        Error::entry(what, &self.shown(path)).because(why)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub fn end(mut self) -> Result<Packed, Error> {
        self.write(&tar::END)?;
        Ok(Packed {
            entries: self.entries,
        })
    }
}

/// A path as it stands in the stream: that of a root without a name is `.`.
fn in_stream(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        b".".to_vec()
    } else {
        path.to_vec()
    }
}

pub(crate) fn unsent(error: io::Error) -> Error {
    Error::stream("cannot send the tar stream").because(error)
}
