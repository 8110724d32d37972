//! The copy of an image's `/root` that work disks start from: an archive of ours, `home.tar` beside the image, so that
//! owners and all else are right whoever the daemon runs as.

use crate::flatten::{Flatten, Flattened};
use crate::layer::{self, Blob, Content, End, Form, Watch};
use crate::{Error, Limits, Result};
use banger_ext4::{Extent, Inode, InodeId, Kind, Time, Tree};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};
use tar::{EntryType, Header};

/// The directory that is kept.
const HOME: &[u8] = b"root";
/// The most pieces of a file that its header tells of.
const PIECES_MAX: usize = 10_000;
/// The longest path that an archive tells of, and the most bytes of paths that are kept in memory.
const PATH_MAX: usize = 4095;
const PATHS_MAX: usize = 64 << 20;
/// The most bytes of files: twice on the disk and then in every work disk, a larger home is copied by guests that want it.
const BYTES_MAX: u64 = 1 << 30;
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Reads bytes of a file where it has some, or says why not to go on.
pub(crate) type Fetch<'a> = &'a dyn Fn(InodeId, u64, &mut [u8]) -> Result<()>;

/// Writes the archive, durable, if the image has such a directory, and one that can be told of and is not large.
///
/// # Errors
/// Reading or writing failed; what `fetch` says.
pub(crate) fn keep(path: &Path, tree: &Tree, fetch: Fetch<'_>) -> Result<()> {
    let Some(top) = top(tree) else {
        return Ok(());
    };
    let Some(order) = order(tree, top).filter(|order| is_kept(tree, order)) else {
        return Ok(()); // the guest copies it by itself
    };
    let file = File::create_new(path).map_err(Error::unwritten)?;
    let mut out = BufWriter::with_capacity(CHUNK, file);
    let mut names: HashMap<InodeId, Vec<u8>> = HashMap::new();
    for (path, inode) in order {
        let first = names.get(&inode).map(Vec::as_slice);
        entry(&mut out, &path, inode, at(tree, inode), first, fetch)?;
        names.entry(inode).or_insert(path);
    }
    let ended = out.write_all(&[0; 1024]).and_then(|()| out.flush());
    let synced = ended.and_then(|()| out.get_ref().sync_all());
    synced.map_err(Error::unwritten)
}

/// Whether all of these can be told of, and are not more than work disks get before their first boot.
fn is_kept(tree: &Tree, order: &[(Vec<u8>, InodeId)]) -> bool {
    let mut bytes = 0_u64;
    order.iter().all(|(_, inode)| match &at(tree, *inode).kind {
        Kind::File { data, .. } => {
            bytes += data.iter().map(|piece| piece.len).sum::<u64>();
            data.len() <= PIECES_MAX && bytes <= BYTES_MAX
        }
        Kind::Socket => false,
        _ => true,
    })
}

/// Reads the archive; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub(crate) fn read(path: &Path, watch: &Watch<'_>) -> Result<Option<(Flattened, Blob)>> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => Arc::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let len = file.metadata().map_err(unreadable)?.len();
    let blob = Blob {
        file,
        start: 0,
        len,
    };
    let mut reader = blob.reader();
    let Content::Tar(archive) = layer::open(&mut reader)? else {
        return Err(Error::Truncated);
    };
    let mut image = Flatten::new(watch.limits(), Form::Flat);
    let mut take = |entry| image.take(entry);
    layer::index(archive, Form::Flat, End::Marked, watch, &mut take)?;
    Ok(Some((image.finish(), blob)))
}

/// What was let in once is let in again.
pub(crate) const LIMITS: Limits = Limits {
    entries: u32::MAX as u64 - 1,
    bytes: u64::MAX,
    kept: u64::MAX,
    in_directory: u64::MAX,
    devices: u64::MAX,
    ratio: 1,
    ratio_from: u64::MAX,
};

fn at(tree: &Tree, inode: InodeId) -> &Inode {
    &tree.inodes[inode.0 as usize]
}

fn top(tree: &Tree) -> Option<InodeId> {
    let Kind::Directory(entries) = &at(tree, InodeId::ROOT).kind else {
        return None;
    };
    let top = entries.iter().find(|entry| *entry.name == *HOME)?.inode;
    matches!(at(tree, top).kind, Kind::Directory(_)).then_some(top)
}

/// Every path and its inode, directories before what is in them; `None` if that is more than anybody's home has.
fn order(tree: &Tree, top: InodeId) -> Option<Vec<(Vec<u8>, InodeId)>> {
    let mut found = vec![(HOME.to_vec(), top)];
    let (mut next, mut bytes) = (0, 0);
    while next < found.len() {
        let (path, inode) = found[next].clone();
        if let Kind::Directory(entries) = &at(tree, inode).kind {
            for entry in entries {
                let path = [&path, &*entry.name].join(&b'/');
                bytes += path.len();
                if path.len() > PATH_MAX || bytes > PATHS_MAX {
                    return None;
                }
                found.push((path, entry.inode));
            }
        }
        next += 1;
    }
    Some(found)
}

/// One entry: what is said of it, its bytes.
fn entry(
    out: &mut impl Write,
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
    out: &mut impl Write,
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
fn pad(out: &mut impl Write, len: u64) -> io::Result<()> {
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

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
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

/// Bytes allocated for a directory and everything below it; what cannot be read counts nothing.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(dir) else {
        return 0;
    };
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    let below: u64 = match meta.is_dir() {
        true => below.map(|entry| disk_usage(&entry.path())).sum(),
        false => 0,
    };
    meta.blocks() * 512 + below
}
