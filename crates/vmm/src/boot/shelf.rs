//! The directory of kernels: what is on it, and how one comes to be there or goes.

use std::io::Read;
use std::path::{Path, PathBuf};

use banger_host::tree::{Attributes, Tree};
use banger_host::{ErrorKind, Files};

use super::kernel::{Kernel, KernelError, KernelManifest, MANIFEST, MODULES_DISK, Pack};
use super::package::{KernelParts, NewKernel, TreeSink};
use super::pins::{HeldNames, KernelNames};
use super::publish::publish;
use super::source::{KernelSource, LARGEST_TREE};
use super::unpack::Cancelled;
use crate::tree;

/// The most that is received before it is looked at.
pub const LARGEST_UPLOAD: u64 = LARGEST_TREE;

/// Where new kernels are made and put.
pub struct Shelf<'a> {
    /// Directory of kernels.
    pub kernels: &'a Path,
    /// What tells the files of one maker from another's; each maker has its own.
    pub tag: &'a str,
    /// How the disk of modules is made.
    pub pack: &'a Pack<'a>,
    /// Held by whoever gives names or takes them away.
    pub names: &'a KernelNames,
    /// Whether a kernel that has the name already makes place.
    pub replace: bool,
    /// Whether whoever asked for the kernel has changed their mind.
    pub cancelled: &'a Cancelled<'a>,
    /// Removes a directory that is no one's any more, now or later: it may be a tree of many files.
    pub discard: &'a dyn Fn(&Path),
}

impl Shelf<'_> {
    /// A path that no other maker uses and no kernel has; [`recover`](super::publish::recover) finds it when its maker has died.
    pub fn private(&self, what: &str) -> PathBuf {
        self.kernels.join(format!(".{what}-{}", self.tag))
    }
}

/// Refuses names that cannot be a kernel's directory.
///
/// # Errors
/// It cannot name a kernel.
pub fn check_name(name: &str) -> Result<(), KernelError> {
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(legal)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    match good {
        true => Ok(()),
        false => Err(KernelError::BadName {
            name: name.to_owned(),
        }),
    }
}

/// A name on the shelf, and the kernel: none of another format, an error where it is damaged.
pub type Shelved = (String, Result<Option<Kernel>, KernelError>);

/// The kernels that are there, by name, and those whose manifest is damaged or of another format.
///
/// # Errors
/// The directory cannot be read.
pub fn list<F: Files>(files: &F, kernels: &Path) -> Result<Vec<Shelved>, KernelError> {
    let names = match files.list(kernels) {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        names => names.map_err(|source| KernelError::Files { source })?,
    };
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort();
    let load = |name: String| {
        let kernel = Kernel::load(files, kernels, &name);
        (name, kernel)
    };
    Ok(names.into_iter().map(load).collect())
}

/// Bytes that a kernel's files take.
pub fn disk_usage(kernel: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(kernel).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Takes a kernel off the shelf: with this rename it is gone, and the lock is given back before the disk is waited for.
/// What is left of it is to be [`clear`]ed; who does not come to that leaves it to the next start of the daemon.
///
/// # Errors
/// An effect fails.
pub fn take_away<F: Files>(
    files: &F,
    kernels: &Path,
    name: &str,
    names: HeldNames<'_>,
) -> Result<PathBuf, KernelError> {
    check_name(name)?;
    let failed = |source| KernelError::Files { source };
    let mut tries = 0;
    loop {
        // One of the same name may have been taken away before, and be being removed.
        let aside = kernels.join(format!(".trash-{name}-{tries}"));
        let renamed = files.rename(&kernels.join(name), &aside);
        match renamed {
            Err(error) if error.kind == ErrorKind::Exists && tries < 1000 => tries += 1,
            other => {
                other.map_err(failed)?;
                drop(names);
                files.sync_dir(kernels).map_err(failed)?;
                return Ok(aside);
            }
        }
    }
}

/// Removes a file or directory of [`recover`](super::publish::recover) or [`take_away`].
///
/// # Errors
/// The effect that failed.
pub fn clear<F: Files>(files: &F, rest: &Path) -> Result<(), banger_host::Error> {
    tree::remove(files, rest)
}

/// Receives a source, makes a kernel of it and puts it on the shelf, whole or not at all.
///
/// # Errors
/// See [`KernelError`]; nothing is left.
pub fn import<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    stream: &mut dyn Read,
    new: &NewKernel<'_>,
    progress: &mut dyn FnMut(&str),
    moved: &mut dyn FnMut(u64),
) -> Result<Kernel, KernelError> {
    check_name(new.name)?;
    let spool = shelf.private("import");
    let made = receive(&spool, stream, moved).and_then(|()| {
        progress("unpacking");
        let source = KernelSource::of_file(&spool, shelf.cancelled)
            .map_err(|source| KernelError::Source { source })?;
        make(files, shelf, &source, new)
    });
    // What cannot be removed now is removed when the daemon next starts.
    let _ = tree::remove(files, &spool);
    made
}

fn receive(
    spool: &Path,
    stream: &mut dyn Read,
    moved: &mut dyn FnMut(u64),
) -> Result<(), KernelError> {
    let mut bounded = Bounded {
        inner: stream,
        seen: 0,
        moved,
    };
    let received = banger_host::tree::spool(spool, &mut bounded);
    match received {
        _ if bounded.seen > LARGEST_UPLOAD => Err(KernelError::TooLarge {
            limit: LARGEST_UPLOAD,
        }),
        Err(source) => Err(KernelError::Receive { source }),
        Ok(_) => Ok(()),
    }
}

/// Ends behind the largest source that is taken.
struct Bounded<'a> {
    inner: &'a mut dyn Read,
    seen: u64,
    moved: &'a mut dyn FnMut(u64),
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.seen > LARGEST_UPLOAD {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        let before = self.seen >> 20;
        self.seen += n as u64;
        if self.seen >> 20 > before {
            (self.moved)(self.seen);
        }
        Ok(n)
    }
}

/// Makes a kernel of a source and puts it on the shelf; one of the same name is replaced.
///
/// # Errors
/// See [`KernelError`]; nothing is left.
pub fn make<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    source: &KernelSource,
    new: &NewKernel<'_>,
) -> Result<Kernel, KernelError> {
    fill_and_publish(files, shelf, &mut |tree| {
        KernelParts::of(source, new, tree, shelf.cancelled)
    })
}

/// What makes the parts of a kernel, given where the files of its modules' tree go.
pub(super) type MakeParts<'a> =
    dyn FnMut(&mut TreeSink<'_>) -> Result<KernelParts, KernelError> + 'a;

pub(super) fn fill_and_publish<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    parts: &mut MakeParts<'_>,
) -> Result<Kernel, KernelError> {
    let stage = shelf.private("stage");
    let manifest = fill_stage(files, &stage, shelf, parts);
    // Nothing of it is anyone's.
    let manifest = manifest.inspect_err(|_| (shelf.discard)(&stage))?;
    publish(files, shelf, &stage, manifest)
}

/// Makes the stage directory with all that belongs into it, durable but for its name.
fn fill_stage<F: Files>(
    files: &F,
    stage: &Path,
    shelf: &Shelf<'_>,
    parts: &mut MakeParts<'_>,
) -> Result<KernelManifest, KernelError> {
    let failed = |source| KernelError::Files { source };
    tree::remove(files, stage).map_err(failed)?;
    files.mkdir(stage).map_err(failed)?;
    let unpacked = stage.join("tree");
    files.mkdir(&unpacked).map_err(failed)?;
    let mut sink = tree_sink(&unpacked).map_err(|source| KernelError::Tree { source })?;
    let parts = parts(&mut sink)?;
    if parts.manifest.modules_disk {
        let disk = stage.join(MODULES_DISK);
        (shelf.pack)(&unpacked, &disk).map_err(|source| KernelError::Pack { source })?;
        files.sync_file(&disk).map_err(failed)?;
    }
    if (shelf.cancelled)() {
        return Err(KernelError::Cancelled);
    }
    // It may be of many files: whoever waits for the kernel does not wait for their removal.
    let aside = shelf.private("tree");
    files.rename(&unpacked, &aside).map_err(failed)?;
    (shelf.discard)(&aside);
    write_parts(files, stage, &parts).map_err(failed)?;
    Ok(parts.manifest)
}

/// Files for everyone to read. Their owner is who runs this: the disk they go to is never written again.
fn tree_sink(
    dir: &Path,
) -> std::io::Result<impl FnMut(&str, &[u8]) -> std::io::Result<()> + use<>> {
    let mut tree = Tree::open(dir)?;
    let attributes = Attributes {
        mode: 0o644,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Attributes::default()
    };
    Ok(move |path: &str, bytes: &[u8]| {
        let file = tree.file(path.as_bytes())?;
        file.write_at(bytes, 0)?;
        file.finish(bytes.len() as u64, &attributes)
    })
}

fn write_parts<F: Files>(
    files: &F,
    stage: &Path,
    parts: &KernelParts,
) -> Result<(), banger_host::Error> {
    let modules = stage.join("modules");
    files.mkdir(&modules)?;
    let put = |path: PathBuf, bytes: &[u8]| {
        files.write(&path, bytes)?;
        files.sync_file(&path)
    };
    for (file, bytes) in &parts.modules {
        put(modules.join(file), bytes)?;
    }
    put(stage.join("vmlinux"), &parts.vmlinux)?;
    if let Some(config) = &parts.config {
        put(stage.join("config"), config.as_bytes())?;
    }
    put(
        stage.join("modules.builtin"),
        parts.modules_builtin.as_bytes(),
    )?;
    let manifest = serde_json::to_vec_pretty(&parts.manifest).unwrap_or_default();
    put(stage.join(MANIFEST), &manifest)?;
    files.sync_dir(&modules)?;
    files.sync_dir(stage)
}
