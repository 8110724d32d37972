//! What comes in is kept as it comes, because it is read twice.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    rc::Rc,
};

/// Writes what is read into a new file of ours.
pub(super) struct Spool<'a> {
    source: &'a mut dyn Read,
    file: File,
    keeps: Rc<Cell<bool>>,
}

/// Ends the keeping of a [`Spool`].
pub(super) struct Stop(Rc<Cell<bool>>);

impl Stop {
    /// What is read from here on is not kept.
    pub(super) fn stop(&self) {
        self.0.set(false);
    }
}

impl<'a> Spool<'a> {
    /// A spool in a file that is made for it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(source: &'a mut dyn Read, path: &Path) -> io::Result<(Self, Stop)> {
        let file = create(path)?;
        let keeps = Rc::new(Cell::new(true));
        let stop = Stop(Rc::clone(&keeps));
        Ok((
            Spool {
                source,
                file,
                keeps,
            },
            stop,
        ))
    }
}

impl Read for Spool<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        if self.keeps.get() {
            self.file.write_all(&buffer[..n])?;
        }
        Ok(n)
    }
}

/// A new file of ours (mode 0600) that can be read too.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
