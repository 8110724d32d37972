//! Entries of archives of ours: everything that an inode has is in records of PAX, so that nothing of it has a limit.

use crate::{Error, Result};
use banger_ext4::{Extent, Inode, InodeId, Kind, Time};
use std::io::{self, Write};
use tar::{EntryType, Header};

/// The most pieces of a file that its header tells of.
pub(crate) const PIECES_MAX: usize = 10_000;
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Reads bytes of a file where it has some, or says why not to go on.
pub(crate) type Fetch<'a> = &'a dyn Fn(InodeId, u64, &mut [u8]) -> Result<()>;

/// One entry: what is said of it, its bytes.
pub(crate) fn entry(
    out: &mut dyn Write,
    path: &[u8],
    id: InodeId,
    inode: &Inode,
    first: Option<&[u8]>,
    fetch: Fetch<'_>,
) -> Result<()> {
    let (pieces, stored) = head(out, path, inode, first).map_err(Error::unwritten)?;
    let mut buffer = vec![0; CHUNK.min(usize::try_from(stored).unwrap_or(CHUNK))];
    for piece in pieces {
        let mut done = 0;
        while done < piece.len {
            let left = piece.len - done;
            let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            fetch(id, piece.offset + done, &mut buffer[..n])?;
            out.write_all(&buffer[..n]).map_err(Error::unwritten)?;
            done += n as u64;
        }
    }
    pad(out, stored).map_err(Error::unwritten)
}

/// The records and the header of an entry; the pieces whose bytes follow, and how many these are.
fn head<'t>(
    out: &mut dyn Write,
    path: &[u8],
    inode: &'t Inode,
    first: Option<&[u8]>,
) -> io::Result<(&'t [Extent], u64)> {
    let mut records = Records::default();
    records.add(b"path", path);
    let mut header = Header::new_ustar();
    let (mut stored, mut pieces) = (0, &[][..]);
    let kind = match (&inode.kind, first) {
        (_, Some(first)) => {
            records.add(b"linkpath", first);
            EntryType::Link
        }
        (Kind::Directory(_), _) => EntryType::Directory,
        (Kind::File { size, data }, _) => {
            pieces = data.as_slice();
            stored = data.iter().map(|piece| piece.len).sum();
            records.add(b"size", stored.to_string().as_bytes());
            if stored < *size {
                sparse(&mut records, *size, data);
            }
            EntryType::Regular
        }
        (Kind::Symlink(text), _) => {
            records.add(b"linkpath", text);
            EntryType::Symlink
        }
        (Kind::CharDevice { major, minor }, _) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            EntryType::Char
        }
        (Kind::BlockDevice { major, minor }, _) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            EntryType::Block
        }
        (Kind::Fifo | Kind::Socket, _) => EntryType::Fifo,
    };
    let meta = &inode.meta;
    records.add(b"uid", meta.uid.to_string().as_bytes());
    records.add(b"gid", meta.gid.to_string().as_bytes());
    records.add(b"mtime", decimal(meta.mtime).as_bytes());
    for xattr in &meta.xattrs {
        let key = [&b"SCHILY.xattr."[..], &xattr.name].concat();
        records.add(&key, &xattr.value);
    }
    records.write(out)?;
    // For who reads no records.
    let short = &path[..path.len().min(100)];
    header.as_mut_bytes()[..short.len()].copy_from_slice(short);
    header.set_entry_type(kind);
    header.set_mode(meta.mode.into());
    header.set_size(stored);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    Ok((pieces, stored))
}

/// Where the bytes of a file with holes belong (GNU's form 0.1).
fn sparse(records: &mut Records, size: u64, data: &[Extent]) {
    let map = data.iter().map(|d| format!("{},{}", d.offset, d.len));
    // What is all hole has a piece without length at its end.
    let end = data.is_empty().then(|| format!("{size},0"));
    let map: Vec<_> = map.chain(end).collect();
    records.add(b"GNU.sparse.size", size.to_string().as_bytes());
    records.add(b"GNU.sparse.numblocks", map.len().to_string().as_bytes());
    records.add(b"GNU.sparse.map", map.join(",").as_bytes());
}

/// Fills up to a whole block.
pub(crate) fn pad(out: &mut dyn Write, len: u64) -> io::Result<()> {
    let zeros = [0; 512];
    let missing = (512 - len % 512) % 512;
    out.write_all(&zeros[..usize::try_from(missing).unwrap_or(0)])
}

/// Records of a PAX extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let counted = |digits: usize| rest + digits;
        let len = (1..20)
            .map(counted)
            .find(|len| len.to_string().len() + rest == *len)
            .unwrap_or_default();
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let len = self.0.len() as u64;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(len);
        header.set_cksum();
        out.write_all(header.as_bytes())?;
        out.write_all(&self.0)?;
        pad(out, len)
    }
}

/// A time as PAX has it: before 1970 the fraction counts backwards.
fn decimal(time: Time) -> String {
    let Time { seconds, nanos } = time;
    match (seconds < 0, nanos) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanos:09}"),
        (true, _) => {
            let whole = (seconds + 1).unsigned_abs();
            format!("-{whole}.{:09}", 1_000_000_000 - nanos)
        }
    }
}
