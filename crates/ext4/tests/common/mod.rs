//! File systems made from trees, and the independent judges of them.
#![allow(dead_code, reason = "each test file uses its part")]

use banger_ext4::{Entry, Extent, Inode, InodeId, Kind, Layout, Meta, Options, Time, Tree, Xattr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The time of everything that a test does not care about: 2020-09-13.
pub const TIME: Time = Time {
    seconds: 1_600_000_000,
    nanos: 123_456_789,
};

/// Options of a test: never all zeros, always the same.
pub fn options() -> Options {
    let mut options = Options::new(*b"banger-ext4-test");
    options.hash_seed = *b"seed of a hash!!";
    options.label[..4].copy_from_slice(b"test");
    options.time = TIME;
    options
}

/// A tree being put together.
pub struct Builder(pub Tree);

impl Builder {
    pub fn new() -> Builder {
        Builder(Tree {
            inodes: vec![inode(Kind::Directory(Vec::new()), 0o755)],
        })
    }

    /// Adds an inode under a name.
    pub fn add(&mut self, parent: InodeId, name: impl AsRef<[u8]>, inode: Inode) -> InodeId {
        let id = InodeId(u32::try_from(self.0.inodes.len()).unwrap());
        self.0.inodes.push(inode);
        self.link(parent, name, id);
        id
    }

    /// Adds a name.
    pub fn link(&mut self, parent: InodeId, name: impl AsRef<[u8]>, inode: InodeId) {
        let Kind::Directory(entries) = &mut self.0.inodes[parent.0 as usize].kind else {
            panic!("{parent:?} is no directory");
        };
        entries.push(Entry {
            name: name.as_ref().into(),
            inode,
        });
    }

    pub fn directory(&mut self, parent: InodeId, name: impl AsRef<[u8]>) -> InodeId {
        self.add(parent, name, inode(Kind::Directory(Vec::new()), 0o755))
    }

    /// A file full of data.
    pub fn file(&mut self, parent: InodeId, name: impl AsRef<[u8]>, size: u64) -> InodeId {
        self.add(parent, name, inode(full(size), 0o644))
    }
}

/// The content of a file without holes.
pub fn full(size: u64) -> Kind {
    let whole = Extent {
        offset: 0,
        len: size,
    };
    let data = if size == 0 { vec![] } else { vec![whole] };
    Kind::File { size, data }
}

/// A file with data in places only.
pub fn sparse(size: u64, data: &[(u64, u64)]) -> Kind {
    let data = data
        .iter()
        .map(|&(offset, len)| Extent { offset, len })
        .collect();
    Kind::File { size, data }
}

pub fn inode(kind: Kind, mode: u16) -> Inode {
    let meta = Meta {
        mode,
        mtime: TIME,
        ..Meta::default()
    };
    Inode { meta, kind }
}

pub fn xattr(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Xattr {
    Xattr {
        name: name.as_ref().into(),
        value: value.as_ref().into(),
    }
}

/// What a file's data holds: none of it zero, and different in every file and place.
pub fn content(id: InodeId, offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len)
        .map(|at| {
            let mixed = (at / 8 + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(u64::from(id.0).wrapping_mul(0xbf58_476d_1ce4_e5b9));
            (mixed >> (at % 8 * 7)) as u8 | 1
        })
        .collect()
}

/// A file system in a file that goes away with it.
pub struct Image {
    dir: tempfile::TempDir,
    pub path: PathBuf,
    pub layout: Layout,
}

impl Image {
    /// Makes it, with the bytes of files placed in pieces and backwards, for the order must not matter.
    pub fn new(tree: &Tree, options: &Options) -> Image {
        let layout = Layout::new(tree, options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(layout.size()).unwrap();
        for (id, inode) in tree.inodes.iter().enumerate().rev() {
            let id = InodeId(u32::try_from(id).unwrap());
            if let Kind::File { data, .. } = &inode.kind {
                for extent in data.iter().rev() {
                    place(&layout, &file, id, *extent);
                }
            }
        }
        layout.write_metadata(tree, &file).unwrap();
        Image { dir, path, layout }
    }

    /// `e2fsck -fn` has nothing to say.
    pub fn check(&self) -> &Image {
        let output = e2fsck(&self.path);
        assert!(output.status.success(), "{}", self.complaint(&output));
        // Its passes and its last line are all it says of a file system without a fault.
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().count(), 6, "{}", self.complaint(&output));
        self
    }

    fn complaint(&self, output: &Output) -> String {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        format!("e2fsck -fn: {}\n{stdout}{stderr}", output.status)
    }

    /// One of debugfs' answers.
    pub fn debugfs(&self, request: &str) -> String {
        said(
            Command::new("/usr/sbin/debugfs")
                .args(["-R", request])
                .arg(&self.path),
        )
    }

    /// What dumpe2fs says.
    pub fn dumpe2fs(&self) -> String {
        said(Command::new("/usr/sbin/dumpe2fs").arg(&self.path))
    }

    /// Bytes it takes on the disk.
    pub fn used(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&self.path).unwrap().blocks() * 512
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

fn place(layout: &Layout, file: &std::fs::File, id: InodeId, extent: Extent) {
    const PIECE: u64 = 1_000_003;
    for done in (0..extent.len).step_by(PIECE as usize) {
        let offset = extent.offset + done;
        let bytes = content(id, offset, PIECE.min(extent.len - done));
        layout.place(id, offset, &bytes, file).unwrap();
    }
}

/// `e2fsck -fn`.
pub fn e2fsck(path: &Path) -> Output {
    Command::new("/usr/sbin/e2fsck")
        .arg("-fn")
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

/// What a program says that must succeed.
pub fn said(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
