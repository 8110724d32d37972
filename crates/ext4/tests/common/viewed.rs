//! What an independent reader makes of a file system, without a mount and without root: it checks checksums as well.

use super::{Image, content};
use banger_ext4::{Extent, Inode, InodeId, Kind, Tree};
use ext4_view::{Ext4, FileType, Path, PathBuf};
use std::collections::BTreeMap;

/// The longest file that is read.
const READ: u64 = 4 << 20;

/// Asserts that the reader finds the tree.
pub fn assert_equals(tree: &Tree, image: &Image) {
    let view = Ext4::load_from_path(&image.path).unwrap();
    directory(tree, InodeId::ROOT, &view, Path::ROOT);
}

fn directory(tree: &Tree, id: InodeId, view: &Ext4, path: Path<'_>) {
    let Kind::Directory(entries) = &tree.inodes[id.0 as usize].kind else {
        return;
    };
    let mut found: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    for entry in view.read_dir(path).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.file_name().as_ref().to_vec(), entry.path());
    }
    for own in [&b"."[..], b".."] {
        assert!(found.remove(own).is_some(), "{path:?}");
    }
    if id == InodeId::ROOT {
        assert!(found.remove(&b"lost+found"[..]).is_some());
    }
    for entry in entries {
        let below = found.remove(&entry.name[..]).unwrap();
        let inode = &tree.inodes[entry.inode.0 as usize];
        compare(entry.inode, inode, view, below.as_path());
        directory(tree, entry.inode, view, below.as_path());
    }
    assert!(found.is_empty(), "{found:?} in {path:?}");
}

fn compare(id: InodeId, inode: &Inode, view: &Ext4, path: Path<'_>) {
    let found = view.symlink_metadata(path).unwrap();
    assert_eq!(found.file_type(), file_type(&inode.kind), "{path:?}");
    let owner = (found.mode(), found.uid(), found.gid());
    let meta = &inode.meta;
    assert_eq!(owner, (meta.mode, meta.uid, meta.gid), "{path:?}");
    if (-0x8000_0000..0x2_8000_0000).contains(&meta.mtime.seconds) {
        let time = (found.modified().seconds(), found.modified().nanoseconds());
        assert_eq!(time, (meta.mtime.seconds, meta.mtime.nanos), "{path:?}");
    }
    match &inode.kind {
        Kind::Symlink(target) => {
            let found = view.read_link(path).unwrap();
            assert_eq!(found.as_ref(), &target[..], "{path:?}");
        }
        Kind::File { size, data } => {
            assert_eq!(found.len(), *size, "{path:?}");
            if *size < READ {
                let found = view.read(path).unwrap();
                assert!(found == expected(id, *size, data), "{path:?}: content");
            }
        }
        _ => {}
    }
}

fn expected(id: InodeId, size: u64, data: &[Extent]) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for extent in data {
        let start = usize::try_from(extent.offset).unwrap();
        let content = content(id, extent.offset, extent.len);
        bytes[start..start + content.len()].copy_from_slice(&content);
    }
    bytes
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File { .. } => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::CharDevice { .. } => FileType::CharacterDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}
