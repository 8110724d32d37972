//! Images on their way out: an archive that other tools read, or a bundle that is the very same image here again. Nothing of
//! an image becomes a file of this machine, so no rights are needed, and the same image is the same archive.

mod bundle;
mod layer;
mod oci;

use crate::{Error, ImageStore, Manifest, Progress, Result};
use banger_ext4::FileSystem;
use banger_host::{Clock, Files, Tools};
use std::{
    fs::File,
    io::{self, Write},
    time::Instant,
};

/// A kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar of an OCI image layout of one layer, with Docker's own `manifest.json` beside it.
    Oci,
    /// `manifest.json` and `rootfs.ext4` in a tar, packed with zstd.
    Bundle,
}

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Sockets that were left out, because no tar has them.
    pub sockets: u64,
}

impl<H: Files + Tools + Clock> ImageStore<H> {
    /// Writes an image as an archive, which calls it by `name`.
    ///
    /// # Errors
    /// The image cannot be read, has what the format cannot tell of, writing failed, or cancelled.
    pub fn export(
        &self,
        image: &Manifest,
        name: Option<&str>,
        format: Format,
        out: &mut dyn Write,
        progress: &dyn Progress,
    ) -> Result<Exported> {
        let path = self.rootfs(image);
        let unreadable = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        let mut out = Out {
            inner: out,
            progress,
            count: 0,
            told: Instant::now(),
        };
        let exported = match format {
            Format::Bundle => {
                progress.stage("packing the image");
                bundle::write(image, name, &file, &mut out)
            }
            Format::Oci => {
                let fs = FileSystem::open(file).map_err(Error::Unreadable)?;
                oci::write(image, name, &fs, &mut out, progress)
            }
        };
        // What breaks because nobody wants it any more is no fault of the image.
        let cancelled = |error| {
            if progress.cancelled() {
                Error::Cancelled
            } else {
                error
            }
        };
        let exported = exported.map_err(cancelled)?;
        out.flush().map_err(Error::Write)?;
        Ok(exported)
    }
}

/// What goes out, told of and cancelled.
struct Out<'a> {
    inner: &'a mut dyn Write,
    progress: &'a dyn Progress,
    count: u64,
    told: Instant,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.progress.cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let n = self.inner.write(bytes)?;
        self.count += n as u64;
        if self.told.elapsed() >= crate::layer::TELL {
            self.told = Instant::now();
            self.progress.moved(self.count);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The header of a file of an archive of ours: nobody's, of no time.
fn file_header(name: &str, size: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(Error::Write)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header)
}

/// A whole small file of an archive.
fn put(out: &mut dyn Write, name: &str, bytes: &[u8]) -> Result<()> {
    let header = file_header(name, bytes.len() as u64)?;
    out.write_all(header.as_bytes())
        .and_then(|()| out.write_all(bytes))
        .and_then(|()| crate::tarball::pad(out, bytes.len() as u64))
        .map_err(Error::Write)
}

/// What follows the last entry of an archive.
const END: [u8; 1024] = [0; 1024];
