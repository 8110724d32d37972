//! A file system as the one layer of an image: every path in the order of its names, directories before what is in them.

use crate::tarball::{self, PIECES_MAX};
use crate::{Error, Progress, Result};
use banger_ext4::{
    Content, Extent, FileSystem, FileType, Inode, Kind, Meta, Node, ReadAt, ReadError,
};
use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

/// What mke2fs makes in every file system, and nobody's file.
const LOST_FOUND: &[u8] = b"lost+found";
/// Zeros in a row that are told as a hole; the importer makes holes of as many.
const HOLE_MIN: u64 = 64 << 10;

/// A layer being written.
struct Writer<'a, R> {
    fs: &'a FileSystem<R>,
    out: &'a mut dyn Write,
    progress: &'a dyn Progress,
    /// The first path of what has several.
    names: HashMap<u32, Vec<u8>>,
    directories: HashSet<u32>,
    sockets: u64,
}

/// Writes the tar of everything in a file system but for an empty `lost+found`; how many sockets were left out.
///
/// # Errors
/// Something cannot be read, or told of in a layer; writing failed; cancelled.
pub(super) fn write<R: ReadAt>(
    fs: &FileSystem<R>,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64> {
    let mut writer = Writer {
        fs,
        out,
        progress,
        names: HashMap::new(),
        directories: HashSet::new(),
        sockets: 0,
    };
    writer.walk()?;
    writer.out.write_all(&super::END).map_err(Error::Write)?;
    Ok(writer.sockets)
}

impl<R: ReadAt> Writer<'_, R> {
    fn walk(&mut self) -> Result<()> {
        // The last one is next.
        let mut ahead = vec![(b"./".to_vec(), FileSystem::<R>::ROOT)];
        while let Some((path, number)) = ahead.pop() {
            if self.progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let node = self.fs.node(number).map_err(Error::Unreadable)?;
            if node.file_type != FileType::Directory {
                self.entry(&path, &node)?;
                continue;
            }
            if !self.directories.insert(number) {
                let why = ReadError::Damaged("a directory is in itself, or in two others");
                return Err(Error::Unreadable(why));
            }
            let mut entries = self.fs.entries(&node).map_err(Error::Unreadable)?;
            let is_root = number == FileSystem::<R>::ROOT;
            if entries.is_empty() && path == LOST_FOUND {
                continue;
            }
            self.entry(&path, &node)?;
            entries.sort();
            for entry in entries.into_iter().rev() {
                let path = match is_root {
                    true => entry.name.to_vec(),
                    false => [&*path, &*entry.name].join(&b'/'),
                };
                ahead.push((path, entry.inode));
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], node: &Node) -> Result<()> {
        if node.file_type == FileType::Socket {
            self.sockets += 1;
            return Ok(());
        }
        let (inode, content) = self.inode(node).map_err(Error::Unreadable)?;
        tellable(path, &inode.meta)?;
        let fetch = |_, offset, bytes: &mut [u8]| -> Result<()> {
            if let Some(content) = &content {
                let read = self.fs.read(content, offset, bytes);
                read.map_err(Error::Unreadable)?;
            }
            Ok(())
        };
        let first = self.names.get(&node.number).map(Vec::as_slice);
        let id = banger_ext4::InodeId(node.number);
        tarball::entry(self.out, path, id, &inode, first, &fetch)?;
        if node.links > 1 && node.file_type != FileType::Directory {
            self.names
                .entry(node.number)
                .or_insert_with(|| path.to_vec());
        }
        Ok(())
    }

    /// What an archive says of an inode, and where its bytes are.
    fn inode(&self, node: &Node) -> std::result::Result<(Inode, Option<Content>), ReadError> {
        let mut content = None;
        let (major, minor) = node.device().unwrap_or_default();
        let kind = match node.file_type {
            FileType::Directory => Kind::Directory(Vec::new()),
            FileType::File => {
                let bytes = self.fs.content(node)?;
                let data = pieces(node.size, &self.fs.data(&bytes));
                content = Some(bytes);
                Kind::File {
                    size: node.size,
                    data,
                }
            }
            FileType::Symlink => Kind::Symlink(self.fs.target(node)?.into()),
            FileType::CharDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
        };
        let meta = Meta {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            xattrs: self.fs.xattrs(node)?,
        };
        Ok((Inode { meta, kind }, content))
    }
}

/// Refuses what would be something else in a layer.
fn tellable(path: &[u8], meta: &Meta) -> Result<()> {
    let untold = |why| Error::Untold {
        entry: crate::layer::shown(path),
        why,
    };
    let name = path.rsplit(|byte| *byte == b'/').next();
    if name.is_some_and(|name| name.starts_with(b".wh.")) {
        return Err(untold(
            "a name that begins with '.wh.' hides files of lower layers there",
        ));
    }
    if meta.xattrs.iter().any(|xattr| xattr.name.contains(&b'=')) {
        return Err(untold("it has an extended attribute with '=' in its name"));
    }
    Ok(())
}

/// Ranges of a file without its long holes, no more than a header tells of.
fn pieces(size: u64, data: &[Extent]) -> Vec<Extent> {
    let mut least = HOLE_MIN;
    loop {
        let found = without_holes(size, data, least);
        if found.len() <= PIECES_MAX {
            return found;
        }
        least = least.saturating_mul(2);
    }
}

fn without_holes(size: u64, data: &[Extent], least: u64) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let end = Extent {
        offset: size,
        len: 0,
    };
    for extent in data.iter().chain([&end]) {
        let before = found.last().map_or(0, |last| last.offset + last.len);
        let near = extent.offset.saturating_sub(before) < least;
        let until = extent.offset + extent.len;
        match found.last_mut() {
            Some(last) if near => last.len = until - last.offset,
            _ if extent.len == 0 && !near => {}
            _ => {
                let offset = if near { before } else { extent.offset };
                let len = until - offset;
                if len > 0 {
                    found.push(Extent { offset, len });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_holes_are_told_and_short_ones_filled() {
        const M: u64 = 1 << 20;
        let found = |size, data: &[(u64, u64)]| {
            let data: Vec<_> = data
                .iter()
                .map(|&(offset, len)| Extent { offset, len })
                .collect();
            let found = pieces(size, &data).into_iter();
            found.map(|e| (e.offset, e.len)).collect::<Vec<_>>()
        };
        assert_eq!(found(0, &[]), []);
        assert_eq!(found(100, &[]), [(0, 100)]);
        assert_eq!(found(M, &[]), []);
        assert_eq!(found(M, &[(0, M)]), [(0, M)]);
        assert_eq!(found(10_000, &[(4096, 4096)]), [(0, 10_000)]);
        assert_eq!(found(3 * M, &[(M, 4096)]), [(M, 4096)]);
        assert_eq!(
            found(3 * M, &[(0, 4096), (8192, 4096), (2 * M, M)]),
            [(0, 12_288), (2 * M, M)]
        );
        // More pieces than a header tells of become fewer.
        let many: Vec<_> = (0..30_000).map(|n| (n * 2 * HOLE_MIN, 4096)).collect();
        let size = 30_000 * 2 * HOLE_MIN;
        let few = found(size, &many);
        assert!(!few.is_empty() && few.len() <= PIECES_MAX);
        let covered = |at: u64| few.iter().any(|(o, l)| (*o..o + l).contains(&at));
        assert!(many.iter().all(|(offset, _)| covered(*offset)));
    }
}
