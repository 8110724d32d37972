//! A bundle: `manifest.json` and `rootfs.ext4` in a tar, packed with zstd (R-IMG-1).

use super::{END, Exported, file_header, put};
use crate::bundle::{BundleManifest, MANIFEST_NAME, ROOTFS_NAME};
use crate::{Error, Manifest, Result, tarball};
use std::{
    fs::File,
    io::{self, Read, Write},
};

/// zstd's own default: zeros cost next to nothing with any.
const LEVEL: i32 = 3;
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Writes the bundle of an image.
pub(super) fn write(
    image: &Manifest,
    name: Option<&str>,
    rootfs: &File,
    out: &mut dyn Write,
) -> Result<Exported> {
    let told = BundleManifest::of(image, name);
    let mut text = serde_json::to_vec_pretty(&told).map_err(|error| Error::Write(error.into()))?;
    text.push(b'\n');
    let mut packed = zstd::Encoder::new(out, LEVEL).map_err(Error::Write)?;
    packed.include_checksum(true).map_err(Error::Write)?;
    put(&mut packed, MANIFEST_NAME, &text)?;
    let header = file_header(ROOTFS_NAME, image.size)?;
    packed.write_all(header.as_bytes()).map_err(Error::Write)?;
    copy(rootfs, image.size, &mut packed)?;
    tarball::pad(&mut packed, image.size).map_err(Error::Write)?;
    packed.write_all(&END).map_err(Error::Write)?;
    packed.finish().map_err(Error::Write)?;
    Ok(Exported::default())
}

fn copy(mut from: &File, len: u64, out: &mut dyn Write) -> Result<()> {
    let (mut buffer, mut left) = (vec![0; CHUNK], len);
    while left > 0 {
        let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let n = from.read(&mut buffer[..want]);
        let n = n.and_then(|n| match n {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        });
        let n = n.map_err(|error| Error::Unreadable(error.into()))?;
        out.write_all(&buffer[..n]).map_err(Error::Write)?;
        left -= n as u64;
    }
    Ok(())
}
