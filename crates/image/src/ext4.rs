//! ext4 files made by `mke2fs` (e2fsprogs 1.47.0, Debian 12). The features are spelled out and
//! mke2fs.conf is shut out, so that a host's own taste does not decide what a guest's kernel must
//! understand.

use crate::error::Doing;
use crate::{Error, Result};
use banger_host::{DiskRecipe, Files, ToolCall, Tools};
use banger_model::ByteSize;
use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of an inode on disk (256 leaves room for extra timestamps and small attributes).
const INODE: u64 = 256;
/// Blocks of a group: what one bitmap block can tell.
const GROUP: u64 = 8 * BLOCK;

/// Features every kernel since 4.x mounts read-write, and every e2fsck since 1.43 repairs.
const FEATURES: &str = "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// A file system to make.
#[derive(Debug)]
pub(crate) struct Mkfs<'a> {
    /// Volume label, at most 16 bytes.
    pub label: &'a str,
    /// UUID, also the seed of directory hashes; `None`: random.
    pub uuid: Option<&'a str>,
    /// Features besides [`FEATURES`], comma-separated, may be empty.
    pub features: &'a str,
    /// Number of inodes; `None`: one for each 16 KiB.
    pub inodes: Option<u64>,
    /// Blocks it may grow to by its resize inode; `None`: no say.
    pub grow_to: Option<u64>,
    /// Directory whose content is copied in.
    pub content: Option<&'a Path>,
}

/// Runs mke2fs over a file of holes. Because the file is known to be zero, journal and inode tables
/// count as zeroed: nothing is written for them now, and no guest thread writes them later.
pub(crate) fn make<H: Files + Tools + ?Sized>(
    host: &H,
    path: &Path,
    size: u64,
    mkfs: &Mkfs<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    if size < 16 << 20 || !size.is_multiple_of(BLOCK) {
        return Err(Error::BadSize(size));
    }
    host.make_disk(
        path,
        &DiskRecipe::Sparse {
            size: ByteSize(size),
        },
    )
    .doing("make the file for a file system")?;
    let mut extended = vec![
        "nodiscard".to_owned(),
        "assume_storage_prezeroed=1".to_owned(),
        "packed_meta_blocks=1".to_owned(),
        "root_owner=0:0".to_owned(),
    ];
    extended.extend(mkfs.uuid.map(|uuid| format!("hash_seed={uuid}")));
    extended.extend(mkfs.grow_to.map(|blocks| format!("resize={blocks}")));
    let features = [FEATURES, mkfs.features].join(",");
    let mut args: Vec<OsString> = [
        "-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-i", "16384",
    ]
    .map(OsString::from)
    .to_vec();
    let mut option = |flag: &str, value: OsString| args.extend([OsString::from(flag), value]);
    option("-O", features.trim_end_matches(',').into());
    option("-E", extended.join(",").into());
    option("-L", mkfs.label.into());
    if let Some(uuid) = mkfs.uuid {
        option("-U", uuid.into());
    }
    if let Some(inodes) = mkfs.inodes {
        option("-N", inodes.to_string().into());
    }
    if let Some(content) = mkfs.content {
        option("-d", content.into());
    }
    args.push(path.into());
    let env = BTreeMap::from([("MKE2FS_CONFIG".into(), "/dev/null".into())]);
    run(
        host,
        mke2fs(host)?,
        "making an ext4 file system",
        args,
        env,
        Duration::from_secs(600),
        &mut |_| {},
        cancelled,
    )
    .map(drop)
}

/// Packs a directory into a read-only file system of just its size, whole when this returns (not durable). `label` has
/// at most 16 bytes; the same `seed` gives the same UUID.
///
/// # Errors
/// The directory cannot be read, mke2fs is missing or fails, the disk is full, cancelled.
pub fn pack<H: Files + Tools + ?Sized>(
    host: &H,
    dir: &Path,
    file: &Path,
    label: &str,
    seed: &str,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let content = Content::of(dir)?;
    let mkfs = Mkfs {
        label,
        uuid: Some(&crate::digest::uuid(seed)),
        // No journal: nothing is ever written to it.
        features: "",
        inodes: Some(content.inodes_wanted()),
        grow_to: None,
        content: Some(dir),
    };
    make(host, file, content.size(), &mkfs, cancelled)
}

/// `e2fsck -fn`: whole, without changing anything.
pub(crate) fn check<H: Tools + ?Sized>(
    host: &H,
    path: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let args = vec!["-fn".into(), path.into()];
    let doing = "checking the new file system";
    work(host, e2fsck(host)?, doing, args, cancelled)
}

/// Makes a file system as large as its file. It was checked, or made here, and never mounted for writing since.
pub(crate) fn grow<H: Tools + ?Sized>(
    host: &H,
    path: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    // Without -f it wants to see a check that is younger than the last change.
    let args = vec!["-f".into(), path.into()];
    let doing = "growing a root file system";
    work(host, resize2fs(host)?, doing, args, cancelled)
}

/// MiB of journal beside so many bytes of room, as mke2fs gives an empty disk of that size. No more: on the disk of the
/// host a journal that is added is there from the beginning.
const fn journal_mib(room: u64) -> u64 {
    match room >> 20 {
        0..256 => 4,
        256..1024 => 16,
        _ => 64,
    }
}

/// Gives a file system with so many bytes of room a journal, unless it has one.
pub(crate) fn add_journal<H: Tools + ?Sized>(
    host: &H,
    path: &Path,
    room: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    if has_journal(path)? {
        return Ok(());
    }
    let size = format!("size={}", journal_mib(room));
    let args = vec!["-J".into(), size.into(), path.into()];
    let doing = "giving a root file system a journal";
    work(host, tune2fs(host)?, doing, args, cancelled)
}

/// The feature's bit (Documentation/filesystems/ext4/super.rst, `s_feature_compat`).
fn has_journal(path: &Path) -> Result<bool> {
    const COMPATIBLE: u64 = 1024 + 0x5c;
    const HAS_JOURNAL: u32 = 0x4;
    let mut word = [0; 4];
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.read_exact_at(&mut word, COMPATIBLE));
    read.map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(u32::from_le_bytes(word) & HAS_JOURNAL != 0)
}

/// The path of a program; one that is missing is told with the package that has it.
pub(crate) fn tool<H: Tools + ?Sized>(
    host: &H,
    program: &'static str,
    package: &'static str,
) -> Result<PathBuf> {
    host.find_tool(Path::new(program))
        .ok_or(Error::ToolMissing { program, package })
}

/// What makes file systems.
pub(crate) fn mke2fs<H: Tools + ?Sized>(host: &H) -> Result<PathBuf> {
    tool(host, "mke2fs", "e2fsprogs")
}

/// What grows file systems.
pub(crate) fn resize2fs<H: Tools + ?Sized>(host: &H) -> Result<PathBuf> {
    tool(host, "resize2fs", "e2fsprogs")
}

/// What gives a file system a journal.
pub(crate) fn tune2fs<H: Tools + ?Sized>(host: &H) -> Result<PathBuf> {
    tool(host, "tune2fs", "e2fsprogs")
}

/// What checks file systems.
pub(crate) fn e2fsck<H: Tools + ?Sized>(host: &H) -> Result<PathBuf> {
    tool(host, "e2fsck", "e2fsprogs")
}

/// Has a program of e2fsprogs work on a file system.
fn work<H: Tools + ?Sized>(
    host: &H,
    program: PathBuf,
    doing: &'static str,
    args: Vec<OsString>,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let (env, limit) = (BTreeMap::new(), Duration::from_secs(600));
    run(
        host,
        program,
        doing,
        args,
        env,
        limit,
        &mut |_| {},
        cancelled,
    )
    .map(drop)
}

/// Runs a program that was found; `Cancelled` when it was that.
#[allow(clippy::too_many_arguments)] // one call site per program; a struct would name each field twice
pub(crate) fn run<H: Tools + ?Sized>(
    host: &H,
    program: PathBuf,
    doing: &'static str,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    timeout: Duration,
    line: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>> {
    let call = ToolCall {
        program,
        args,
        env,
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout,
    };
    match host.run_tool(&call, line, cancelled) {
        Ok(output) => Ok(output.stdout),
        Err(_) if cancelled() => Err(Error::Cancelled),
        Err(source) => Err(Error::Tool { doing, source }),
    }
}

/// What a directory tree takes up as ext4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Content {
    /// Blocks of files, directories, long symlinks.
    pub blocks: u64,
    /// Inodes; a file with several names counts once.
    pub inodes: u64,
}

impl Content {
    /// Measures a tree. Symlinks are not followed, other file systems are not entered.
    pub(crate) fn of(root: &Path) -> Result<Content> {
        let mut content = Content::default();
        let mut seen = HashSet::new();
        let failed = |path: &Path, source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let device = root.symlink_metadata().map_err(|e| failed(root, e))?.dev();
        let mut stack = vec![root.to_owned()];
        while let Some(dir) = stack.pop() {
            content.inodes += 1;
            let mut name_bytes = 0;
            for entry in std::fs::read_dir(&dir).map_err(|e| failed(&dir, e))? {
                let entry = entry.map_err(|e| failed(&dir, e))?;
                let meta = entry.metadata().map_err(|e| failed(&entry.path(), e))?;
                // ext4_dir_entry_2: 8 bytes, then the name, padded to 4.
                name_bytes += 8 + (entry.file_name().len() as u64).next_multiple_of(4);
                if meta.is_dir() {
                    if meta.dev() == device {
                        stack.push(entry.path());
                    }
                    continue;
                }
                if meta.nlink() > 1 && !seen.insert(meta.ino()) {
                    continue;
                }
                content.inodes += 1;
                // A symlink shorter than 60 bytes lives in its inode.
                if meta.is_file() || (meta.is_symlink() && meta.len() >= 60) {
                    let data = match meta.is_file() && meta.blocks() * 512 < meta.len() {
                        // Holes are copied as holes.
                        true => data_in(&entry.path()).map_err(|e| failed(&entry.path(), e))?,
                        false => meta.len(),
                    };
                    content.blocks += data.div_ceil(BLOCK);
                }
            }
            // Directory blocks are filled to three quarters at worst when written in one go.
            content.blocks += (name_bytes * 4 / 3).div_ceil(BLOCK).max(1);
        }
        Ok(content)
    }

    /// Inodes to ask mke2fs for: content, the reserved ten, lost+found, and some to spare.
    pub(crate) fn inodes_wanted(self) -> u64 {
        self.inodes + 64
    }

    /// Bytes of a file system without journal that this content fits in, with 1 % and 2 MiB spare.
    pub(crate) fn size(self) -> u64 {
        let inode_blocks = (self.inodes_wanted() * INODE).div_ceil(BLOCK);
        let raw = self.blocks + inode_blocks;
        let groups = raw.div_ceil(GROUP) + 1;
        // Two bitmaps a group, one partly used inode-table block, copies of the superblock and of
        // the group descriptors (64 bytes each) in a few groups.
        let meta = groups * 3 + 16 * (1 + (groups * 64).div_ceil(BLOCK)) + self.inodes / 64;
        let blocks = raw + meta + raw / 100 + (2 << 20) / BLOCK;
        (blocks * BLOCK).max(16 << 20).next_multiple_of(1 << 20)
    }
}

/// Bytes of a file that are data, in whole blocks; what a file system keeps compressed counts as it will be.
fn data_in(path: &Path) -> std::io::Result<u64> {
    use rustix::fs::{SeekFrom, seek};
    let file = std::fs::File::open(path)?;
    let (mut data, mut at) = (0, 0);
    loop {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(data),
            Err(error) => return Err(error.into()),
        };
        at = seek(&file, SeekFrom::Hole(start))?;
        data += at.next_multiple_of(BLOCK) - start / BLOCK * BLOCK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_hard_links_once_and_short_symlinks_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 5000]).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let sparse = std::fs::File::create(dir.path().join("holes")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 1 << 30).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("short")).unwrap();
        std::os::unix::fs::symlink("x".repeat(100), dir.path().join("long")).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        // Two blocks of the file, one of that with holes, one of the long link, one for each directory.
        assert_eq!(
            Content::of(dir.path()).unwrap(),
            Content {
                blocks: 6,
                inodes: 6
            }
        );
    }
}
