//! File systems made from trees, and the independent judges of them.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod mounted;
pub mod reread;
pub mod viewed;

use banger_ext4::{
    Entry, Extent, Inode, InodeId, Kind, Layout, Meta, Options, Placer, Time, Tree, Xattr,
};
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

/// `cap_net_raw+ep`, as `setcap` stores it: version 2 with the effective bit, permitted, inheritable, and their upper halves.
pub const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// An ACL as `getxattr` gives it.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
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

/// A bit of everything.
pub fn everything() -> Tree {
    let mut tree = Builder::new();
    let root = InodeId::ROOT;
    let etc = tree.directory(root, "etc");
    tree.file(etc, "empty", 0);
    tree.file(etc, "one", 1);
    let linked = tree.file(etc, "block", 4096);
    tree.link(root, "linked", linked);
    tree.file(etc, "more", 4097);
    tree.add(
        root,
        "sparse",
        inode(
            sparse(1 << 30, &[(5000, 10), (6000, 5000), (999_999_999, 1)]),
            0o600,
        ),
    );
    let many: Vec<(u64, u64)> = (0..3000).map(|at| (at * 8192, 100)).collect();
    tree.add(root, "holes", inode(sparse(3000 * 8192, &many), 0o600));
    tree.add(
        root,
        "short",
        inode(Kind::Symlink(b"etc"[..].into()), 0o777),
    );
    tree.add(
        root,
        "fast",
        inode(Kind::Symlink([b'x'; 59][..].into()), 0o777),
    );
    tree.add(
        root,
        "slow",
        inode(Kind::Symlink([b'x'; 60][..].into()), 0o777),
    );
    tree.add(
        root,
        "slowest",
        inode(Kind::Symlink([b'x'; 4095][..].into()), 0o777),
    );
    tree.add(
        root,
        "null",
        inode(Kind::CharDevice { major: 1, minor: 3 }, 0o666),
    );
    tree.add(
        root,
        "disk",
        inode(
            Kind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
            0o660,
        ),
    );
    tree.add(root, "fifo", inode(Kind::Fifo, 0o600));
    tree.add(root, "socket", inode(Kind::Socket, 0o600));
    let mut capable = inode(full(100), 0o4755);
    capable.meta.xattrs = vec![
        xattr("security.capability", CAPABILITY),
        xattr("user.empty", ""),
    ];
    tree.add(root, "capable", capable);
    let mut large = inode(full(100), 0o644);
    large.meta.xattrs = vec![
        xattr("user.large", [b'v'; 3000]),
        xattr("trusted.b", "second"),
        xattr("user.\u{fc}ber", "name beyond ASCII"),
        xattr("user.none", ""),
        xattr("user.a", "1"),
    ];
    tree.add(root, "attributes", large);
    let big = tree.directory(root, "big");
    for at in 0..2000 {
        tree.file(big, format!("a name of some length {at}"), 10);
    }
    tree.0
}

/// A file system in a file that goes away with it.
pub struct Image {
    dir: tempfile::TempDir,
    pub path: PathBuf,
    pub layout: Layout,
}

impl Image {
    /// Makes it, with the bytes of files placed in pieces: by one thread backwards, for the order must not matter, and those of
    /// every other file by another, gathered.
    pub fn new(tree: &Tree, options: &Options) -> Image {
        let image = Image::without_content(tree, options);
        let file = std::fs::File::options()
            .write(true)
            .open(&image.path)
            .unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let pieces = pieces(tree).filter(|(id, _, _)| id.0 % 2 == 0);
                let all: Vec<_> = pieces.collect();
                for (id, offset, len) in all.into_iter().rev() {
                    let bytes = content(id, offset, len);
                    image.layout.place(id, offset, &bytes, &file).unwrap();
                }
            });
            threads.spawn(|| {
                let mut placer = Placer::new(&image.layout, &file);
                for (id, offset, len) in pieces(tree).filter(|(id, _, _)| id.0 % 2 == 1) {
                    placer.place(id, offset, &content(id, offset, len)).unwrap();
                }
                placer.finish().unwrap();
            });
        });
        image
    }

    /// Makes it without the bytes of files.
    pub fn without_content(tree: &Tree, options: &Options) -> Image {
        let layout = Layout::new(tree, options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(layout.size()).unwrap();
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

    /// The same, asked of the copies in a group; without bitmaps, as those of unused groups are not there.
    pub fn debugfs_from(&self, superblock: &str, request: &str) -> String {
        said(
            Command::new("/usr/sbin/debugfs")
                .args(["-c", "-b", "4096", "-s", superblock, "-R", request])
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

/// Pieces of the data of all files: whose, where, how long.
fn pieces(tree: &Tree) -> impl Iterator<Item = (InodeId, u64, u64)> {
    const PIECE: u64 = 1_000_003;
    let inodes = (0..).map(InodeId).zip(&tree.inodes);
    let extents = inodes.flat_map(|(id, inode)| {
        let data = match &inode.kind {
            Kind::File { data, .. } => &data[..],
            _ => &[],
        };
        data.iter().map(move |extent| (id, *extent))
    });
    extents.flat_map(|(id, extent)| {
        (0..extent.len)
            .step_by(PIECE as usize)
            .map(move |done| (id, extent.offset + done, PIECE.min(extent.len - done)))
    })
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
