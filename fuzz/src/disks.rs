//! A guest's disks, put together as they are for `vm cp` when it is down.

use crate::ext4::{changed, inode, options, tree_of, written};
use banger_disks::{Disks, RootDisks, View, What, pack};
use banger_ext4::{Entry, InodeId, Kind, Layout, Tree, Xattr};
use banger_tree::Output;
use std::{io, sync::OnceLock};

/// Bytes of a stream that are taken: a file may say that it is of any size.
const MOST: usize = 1 << 21;

/// Disks in which the bytes say which bytes are others, of the changes and of the work disk by turns: a copy ends, in an order
/// of entries or in words.
pub fn damaged(data: &[u8]) {
    static WHOLE: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let [base, changes, work] = WHOLE.get_or_init(|| {
        let steps: Vec<u8> = (0..40).flat_map(|at| [at, at / 9, b'a', at * 4]).collect();
        let base = tree_of(&steps);
        [
            disk(&base),
            disk(&below("upper", base.clone())),
            disk(&below("root", base)),
        ]
    });
    let (of_changes, of_work) = data.split_at(data.len() / 2);
    let root = RootDisks::Overlay {
        base: base.clone(),
        changes: changed(changes, of_changes),
    };
    let disks = Disks {
        root,
        work: Some(changed(work, of_work)),
        modules: None,
    };
    match View::open(disks) {
        Err(why) => assert!(!why.to_string().is_empty()),
        Ok(view) => {
            for path in ["/", "/root/", "/a0/../a9"] {
                let what = What {
                    path: path.as_bytes(),
                    name: b"",
                    follow: true,
                };
                let mut sink = Sink::default();
                if let Err(why) = pack(&view, &what, &mut sink, &|| false) {
                    assert!(!why.to_string().is_empty());
                }
            }
        }
    }
}

/// A file system of a tree, without the flag of checksums: damage is met where it is used.
fn disk(tree: &Tree) -> Vec<u8> {
    let layout = Layout::new(tree, &options()).expect("a good tree");
    let mut image = written(tree, &layout);
    image[1024 + 0x65] &= !0x4;
    image
}

/// The same tree in a directory at the top, one directory of which has come from another place and one of which hides what is
/// below.
fn below(name: &str, mut tree: Tree) -> Tree {
    let top = InodeId(u32::try_from(tree.inodes.len()).unwrap_or(0));
    let entry = Entry {
        name: name.as_bytes().into(),
        inode: top,
    };
    let at_top = std::mem::replace(&mut tree.inodes[0], inode(Kind::Directory(vec![entry]), 0));
    tree.inodes.push(at_top);
    let directories = tree.inodes.iter_mut().skip(1);
    let directories = directories.filter(|inode| matches!(inode.kind, Kind::Directory(_)));
    let marks: [(&[u8], &[u8]); 2] = [
        (b"trusted.overlay.redirect", b"/a0"),
        (b"trusted.overlay.opaque", b"y"),
    ];
    for (inode, (name, value)) in directories.zip(marks) {
        inode.meta.xattrs.push(Xattr {
            name: name.into(),
            value: value.into(),
        });
    }
    tree
}

/// Counts what it is given.
#[derive(Default)]
struct Sink {
    room: Vec<u8>,
    taken: usize,
}

impl Output for Sink {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.taken > MOST {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.room.resize(5000, 0);
        Ok(&mut self.room)
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.taken += count;
        Ok(())
    }

    fn warn(&mut self, _: String) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damage of what cannot be read when it is whole would tell nothing.
    #[test]
    fn whole_disks_are_copied_in_full() {
        let steps: Vec<u8> = (0..40).flat_map(|at| [at, at / 9, b'a', at * 4]).collect();
        let base = tree_of(&steps);
        let root = RootDisks::Overlay {
            base: disk(&base),
            changes: disk(&below("upper", base.clone())),
        };
        let work = Some(disk(&below("root", base)));
        let view = View::open(Disks {
            root,
            work,
            modules: None,
        })
        .expect("a view");
        let what = What {
            path: b"/",
            name: b"",
            follow: false,
        };
        let packed = pack(&view, &what, &mut Sink::default(), &|| false).expect("a copy");
        assert!(packed.entries > 25, "{} entries", packed.entries);
    }
}
