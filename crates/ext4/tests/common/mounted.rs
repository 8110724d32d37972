//! What the kernel makes of a file system: mounted by it, and compared with the tree it was made of.

use super::{Image, content, said};
use banger_ext4::{Extent, Inode, InodeId, Kind, Time, Tree};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a test in mounts of its own, if it runs as root. However it ends, what it mounted is gone with its thread, and the
/// loop device with that.
pub fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        banger_testkit::skip("mounting needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: no memory or descriptor is unshared, only this thread's mounts and working directory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        said(Command::new("mount").args(["--make-rprivate", "/"]));
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A file system mounted by a loop device that goes with the mount.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(image: &Image, options: &str) -> Mounted {
        let at = image.path.with_extension("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        said(
            Command::new("mount")
                .args(["-t", "ext4", "-o", &options])
                .args([&image.path, &at]),
        );
        Mounted(at)
    }

    /// Unmounts, and waits until the loop device has let go of the file.
    pub fn unmount(self) {
        let at = self.0.clone();
        drop(self);
        assert!(!is_mounted(&at), "{} is still mounted", at.display());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = std::fs::read("/proc/thread-self/mounts").unwrap();
    let at = at.as_os_str().as_bytes();
    mounts.windows(at.len()).any(|window| window == at)
}

/// Asserts that what is below `root` is the tree in every attribute.
pub fn assert_equals(tree: &Tree, root: &Path) {
    let mut names = vec![0; tree.inodes.len()];
    count_names(tree, InodeId::ROOT, &mut names);
    let mut comparison = Comparison {
        tree,
        names,
        seen: BTreeMap::new(),
    };
    comparison.inode(InodeId::ROOT, root);
    let reached = comparison.names.iter().filter(|&&count| count > 0).count();
    assert_eq!(comparison.seen.len(), reached, "inodes");
}

/// Names of each inode; a directory's own and those of its subdirectories.
fn count_names(tree: &Tree, id: InodeId, names: &mut Vec<u32>) {
    names[id.0 as usize] += 1;
    if let Kind::Directory(entries) = &tree.inodes[id.0 as usize].kind {
        names[id.0 as usize] += 1;
        for entry in entries {
            count_names(tree, entry.inode, names);
            if matches!(tree.inodes[entry.inode.0 as usize].kind, Kind::Directory(_)) {
                names[id.0 as usize] += 1;
            }
        }
    }
}

struct Comparison<'a> {
    tree: &'a Tree,
    names: Vec<u32>,
    /// Which inode of the file system each of the tree's is.
    seen: BTreeMap<InodeId, u64>,
}

impl Comparison<'_> {
    fn inode(&mut self, id: InodeId, path: &Path) {
        let inode = &self.tree.inodes[id.0 as usize];
        let shown = path.display();
        let stat = rustix::fs::statx(
            CWD,
            path,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        )
        .unwrap();
        if let Some(first) = self.seen.insert(id, stat.stx_ino) {
            assert_eq!(first, stat.stx_ino, "{shown}: hard link");
            return;
        }
        let (kind, rdev, size) = expected(inode);
        let meta = &inode.meta;
        assert_eq!(stat.stx_mode, kind | meta.mode, "{shown}: mode");
        assert_eq!(stat.stx_uid, meta.uid, "{shown}: uid");
        assert_eq!(stat.stx_gid, meta.gid, "{shown}: gid");
        assert_eq!(
            (stat.stx_rdev_major, stat.stx_rdev_minor),
            rdev,
            "{shown}: rdev"
        );
        for time in [
            stat.stx_mtime,
            stat.stx_atime,
            stat.stx_ctime,
            stat.stx_btime,
        ] {
            let time = Time {
                seconds: time.tv_sec,
                nanos: time.tv_nsec,
            };
            assert_eq!(time, meta.mtime, "{shown}: times");
        }
        let names = self.names[id.0 as usize];
        let (mut links, directory) = (names, matches!(inode.kind, Kind::Directory(_)));
        let added = id == InodeId::ROOT && !self.has_lost_and_found();
        links += u32::from(added);
        if directory && links > 65_000 {
            links = 1;
        }
        assert_eq!(stat.stx_nlink, links, "{shown}: links");
        if let Some(size) = size {
            assert_eq!(stat.stx_size, size, "{shown}: size");
        }
        assert_eq!(xattrs_of(path), xattrs(inode), "{shown}: attributes");
        match &inode.kind {
            Kind::Directory(_) => self.directory(id, path, added),
            Kind::File { size, data } => file(id, *size, data, path),
            Kind::Symlink(target) => {
                let found = std::fs::read_link(path).unwrap();
                assert_eq!(found.as_os_str().as_bytes(), &target[..], "{shown}: target");
            }
            _ => {}
        }
    }

    fn has_lost_and_found(&self) -> bool {
        let Kind::Directory(entries) = &self.tree.inodes[0].kind else {
            return false;
        };
        entries.iter().any(|entry| *entry.name == *b"lost+found")
    }

    fn directory(&mut self, id: InodeId, path: &Path, added: bool) {
        let Kind::Directory(entries) = &self.tree.inodes[id.0 as usize].kind else {
            return;
        };
        let mut listed: Vec<OsString> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        listed.sort();
        let mut expected: Vec<OsString> = entries
            .iter()
            .map(|entry| OsStr::from_bytes(&entry.name).to_owned())
            .collect();
        expected.extend(added.then(|| "lost+found".into()));
        expected.sort();
        assert_eq!(listed, expected, "{}: entries", path.display());
        for entry in entries {
            self.inode(entry.inode, &path.join(OsStr::from_bytes(&entry.name)));
        }
        assert!(!path.join("a name that is not there").exists());
    }
}

/// Type, device and size; a directory's size is the file system's own matter.
fn expected(inode: &Inode) -> (u16, (u32, u32), Option<u64>) {
    match &inode.kind {
        Kind::Directory(_) => (0o040_000, (0, 0), None),
        Kind::File { size, .. } => (0o100_000, (0, 0), Some(*size)),
        Kind::Symlink(target) => (0o120_000, (0, 0), Some(target.len() as u64)),
        Kind::CharDevice { major, minor } => (0o020_000, (*major, *minor), Some(0)),
        Kind::BlockDevice { major, minor } => (0o060_000, (*major, *minor), Some(0)),
        Kind::Fifo => (0o010_000, (0, 0), Some(0)),
        Kind::Socket => (0o140_000, (0, 0), Some(0)),
    }
}

type Xattrs = BTreeSet<(Vec<u8>, Vec<u8>)>;

fn xattrs(inode: &Inode) -> Xattrs {
    let all = inode.meta.xattrs.iter();
    all.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec()))
        .collect()
}

fn xattrs_of(path: &Path) -> Xattrs {
    let mut names = vec![0; 1 << 16];
    let listed = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..listed]
        .split_inclusive(|&byte| byte == 0)
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let name = std::ffi::CStr::from_bytes_with_nul(name).unwrap();
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_bytes().to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Content, byte for byte, and where there are blocks.
fn file(id: InodeId, size: u64, data: &[Extent], path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    let mut end = 0;
    for extent in data {
        // What is between is zeros, of which a bounded part is looked at.
        let gap = extent.offset - end;
        assert_zeros(&file, end, gap.min(8192), path);
        assert_zeros(&file, extent.offset - gap.min(8192), gap.min(8192), path);
        compare_data(&file, id, *extent, path);
        end = extent.offset + extent.len;
        let (first, after) = (extent.offset & !4095, (end + 4095) & !4095);
        match blocks.last_mut() {
            Some(last) if last.1 >= first => last.1 = after,
            _ => blocks.push((first, after)),
        }
    }
    assert_zeros(&file, end, (size - end).min(8192), path);
    if let Some(last) = blocks.last_mut() {
        last.1 = last.1.min(size);
    }
    assert_eq!(data_of(&file, size), blocks, "{}: holes", path.display());
}

fn compare_data(file: &std::fs::File, id: InodeId, extent: Extent, path: &Path) {
    const PIECE: u64 = 1 << 20;
    for done in (0..extent.len).step_by(PIECE as usize) {
        let offset = extent.offset + done;
        let expected = content(id, offset, PIECE.min(extent.len - done));
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, offset).unwrap();
        assert!(found == expected, "{}: content at {offset}", path.display());
    }
}

fn assert_zeros(file: &std::fs::File, offset: u64, len: u64, path: &Path) {
    let mut found = vec![1; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut found, offset).unwrap();
    let zeros = found.iter().all(|&byte| byte == 0);
    assert!(zeros, "{}: zeros at {offset}", path.display());
}

/// Ranges that the kernel says hold data.
fn data_of(file: &std::fs::File, size: u64) -> Vec<(u64, u64)> {
    use rustix::fs::SeekFrom;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) else {
            break;
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        ranges.push((start, at));
    }
    ranges
}
