//! Copies a disk file by sharing its blocks where the file system can, else by its allocated
//! extents: the cost is that of the data in it, never that of its size.

use super::sharing;
use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::Errno;
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes moved at a time where the kernel cannot copy between the two file systems.
const PIECE: usize = 1 << 20;

/// Makes the empty file `to` equal to `from`, holes where `from` has holes.
///
/// # Errors
/// The system call that failed; `to` is then half made.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    match sharing::share(from, to) {
        Ok(()) => return Ok(()),
        Err(errno) if sharing::cannot(errno) => {}
        Err(e) => return Err(e.into()),
    }
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut at = 0;
    while let Some((start, end)) = next_extent(from, at, len)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

/// The next run of data at or after `at`, `None` if only a hole is left.
fn next_extent(from: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes: everything is data.
        Err(Errno::INVAL) => return Ok(Some((at, len))),
        Err(e) => return Err(e.into()),
    };
    let end = seek(from, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(len))))
}

/// Copies `start..end`, in the kernel where it can.
fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut off_in, mut off_out) = (start, start);
    while off_in < end {
        let want = usize::try_from(end - off_in)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), want) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the template became shorter while it was copied",
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return pump(from, to, off_in, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Copies `start..end` through a buffer.
fn pump(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        from.read_exact_at(&mut buffer[..want], at)?;
        to.write_all_at(&buffer[..want], at)?;
        at += want as u64;
    }
    Ok(())
}
