//! A layer as it lies in a file, and digests of what passes.

use crate::{Error, Result};
use banger_model::hex;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// A range of a file.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// The file.
    pub file: Arc<File>,
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Blob {
    /// A reader from its beginning.
    pub(crate) fn reader(&self) -> BlobReader {
        BlobReader {
            blob: self.clone(),
            at: 0,
        }
    }

    /// Fills the buffer from this offset on.
    ///
    /// # Errors
    /// The file is shorter, or cannot be read.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(bytes, self.start + offset)
    }

    /// All of it, if it is not longer than `most`.
    ///
    /// # Errors
    /// It is longer, or cannot be read.
    pub(crate) fn bytes(&self, most: u64, what: &str) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        if self.len > most {
            return Err(Error::TooLarge(format!(
                "{what} has {len} bytes; at most {most} are read"
            )));
        }
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, 0).map_err(Error::damaged)?;
        Ok(bytes)
    }
}

/// Reads a [`Blob`] from its beginning to its end.
#[derive(Debug)]
pub(crate) struct BlobReader {
    blob: Blob,
    at: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len - self.at;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let at = self.blob.start + self.at;
        let n = self.blob.file.read_at(&mut buffer[..want], at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// What is made of bytes that pass.
pub(crate) trait OfBytes {
    /// Goes on with these.
    fn take(&mut self, bytes: &[u8]);
}

/// sha256 and length of what has passed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digests {
    hash: Sha256,
    /// Number of bytes.
    pub len: u64,
}

impl Digests {
    /// Lower-case hex.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(&self.hash.clone().finalize())
    }
}

impl OfBytes for Digests {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }
}

/// CRC-32C and length of what has passed: enough to tell streams apart where nothing is to be proven, at a tenth of a digest's
/// cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The checksum.
    pub crc32c: u32,
    /// Number of bytes.
    pub len: u64,
}

impl OfBytes for Sum {
    fn take(&mut self, bytes: &[u8]) {
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.len += bytes.len() as u64;
    }
}

/// Makes something of what is read through it.
pub(crate) struct Tapped<'a, R, T> {
    inner: R,
    to: &'a mut T,
}

impl<'a, R, T> Tapped<'a, R, T> {
    /// Adds what passes to this.
    pub(crate) fn new(inner: R, to: &'a mut T) -> Self {
        Tapped { inner, to }
    }
}

impl<R: Read, T: OfBytes> Read for Tapped<'_, R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.to.take(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_streams_however_it_is_read() {
        let mut sum = Sum::default();
        let mut reader = Tapped::new(&b"123456789"[..], &mut sum);
        let mut read = Vec::new();
        for n in [4, 0, 9, 9] {
            let mut buffer = vec![0; n];
            let n = reader.read(&mut buffer).unwrap();
            read.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(read, b"123456789");
        // RFC 3720's polynomial; the value is in every list of checksums.
        let (crc32c, len) = (0xe306_9283, 9);
        assert_eq!(sum, Sum { crc32c, len });
    }
}
