//! A file that grows to what it is to be: it may be left half done and gone on with, and gets its name when it is whole.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// A file that is not whole yet.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl PartFile {
    /// The file at this path, with what is in it already; made (mode 0600) if it is not there, never through a symlink.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        let len = file.metadata()?.len();
        Ok(PartFile {
            file,
            path: path.to_owned(),
            len,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives everything in it, from its beginning, until `take` wants no more.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn each(&self, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let (mut buffer, mut at) = (vec![0; CHUNK], 0);
        while at < self.len {
            let n = self.file.read_at(&mut buffer, at)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !take(&buffer[..n]) {
                return Ok(());
            }
            at += n as u64;
        }
        Ok(())
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Empties it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.len = 0;
        Ok(())
    }

    /// Gives it its name, in the same directory; both are durable then.
    ///
    /// # Errors
    /// The system's; it is there under one of the two names.
    pub fn finish(self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, to)?;
        File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    /// Removes it.
    ///
    /// # Errors
    /// The system's.
    pub fn discard(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_on_with_and_named_when_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, name) = (dir.path().join("x.part"), dir.path().join("x"));
        let mut part = PartFile::open(&path).unwrap();
        assert!(part.is_empty());
        part.append(b"one ").unwrap();
        drop(part);
        let mut part = PartFile::open(&path).unwrap();
        assert_eq!(part.len(), 4);
        part.append(b"two").unwrap();
        let mut seen = Vec::new();
        part.each(&mut |bytes| {
            seen.extend_from_slice(bytes);
            true
        })
        .unwrap();
        assert_eq!(seen, b"one two");
        part.finish(&name).unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"one two");
        assert!(!path.exists());
        std::os::unix::fs::symlink(&name, &path).unwrap();
        assert!(PartFile::open(&path).is_err(), "through a symlink");
        std::fs::remove_file(&path).unwrap();
        let mut part = PartFile::open(&path).unwrap();
        part.append(b"x").unwrap();
        part.clear().unwrap();
        assert!(part.is_empty());
        part.discard().unwrap();
        assert!(!path.exists());
    }
}
