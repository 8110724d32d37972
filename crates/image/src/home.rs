//! The copy of an image's `/root` that work disks start from: an archive of ours, `home.tar` beside the image, so that
//! owners and all else are right whoever the daemon runs as.

use crate::flatten::{Flatten, Flattened};
use crate::layer::{self, Blob, Content, End, Form, Watch};
use crate::tarball::{self, Fetch};
use crate::{Error, Limits, Result};
use banger_ext4::{Inode, InodeId, Kind, Tree};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

/// The directory that is kept.
const HOME: &[u8] = b"root";
/// The longest path that an archive tells of, and the most bytes of paths that are kept in memory.
const PATH_MAX: usize = 4095;
const PATHS_MAX: usize = 64 << 20;
/// The most bytes of files: twice on the disk and then in every work disk, a larger home is copied by guests that want it.
const BYTES_MAX: u64 = 1 << 30;
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

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
        tarball::entry(&mut out, &path, inode, at(tree, inode), first, fetch)?;
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
            data.len() <= tarball::PIECES_MAX && bytes <= BYTES_MAX
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

/// Bytes allocated for a directory and everything below it, and those of them that no other file has as well; what
/// cannot be read counts nothing.
pub(crate) fn disk_usage(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(dir) else {
        return (0, 0);
    };
    let allocated = meta.blocks() * 512;
    let own = banger_host::linux::own_bytes(dir).unwrap_or(allocated);
    let here = (allocated, own.min(allocated));
    if !meta.is_dir() {
        return here;
    }
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    below
        .map(|entry| disk_usage(&entry.path()))
        .fold(here, |sum, more| (sum.0 + more.0, sum.1 + more.1))
}
