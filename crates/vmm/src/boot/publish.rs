//! How a kernel that is made gets its name, and what is done about one that was being replaced when the daemon died.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_host::{ErrorKind, Files};

use super::kernel::{Kernel, KernelError, KernelManifest};
use super::pins::HeldNames;
use super::shelf::{Shelf, check_name};
use crate::tree;

/// How long one that replaces a kernel waits for who is reading the old one: a VM that starts takes seconds.
const READERS: Duration = Duration::from_secs(120);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// Where one is put whose place another one takes, on file systems that cannot exchange two names.
const OLD: &str = ".old-";

/// Puts kernels back that were being replaced when their maker died and whose place is empty, and gives what makers that
/// died have left besides; nothing else is being made when this is asked.
///
/// # Errors
/// A kernel cannot be put back.
pub fn recover<F: Files>(files: &F, kernels: &Path) -> Result<Vec<PathBuf>, banger_host::Error> {
    let names = files.list(kernels)?;
    for hidden in &names {
        let name = hidden.strip_prefix(OLD).filter(|n| check_name(n).is_ok());
        if let Some(name) = name.filter(|name| !names.iter().any(|n| n == name)) {
            files.rename(&kernels.join(hidden), &kernels.join(name))?;
            files.sync_dir(kernels)?;
        }
    }
    let names = files.list(kernels)?;
    let hidden = names.into_iter().filter(|name| name.starts_with('.'));
    Ok(hidden.map(|name| kernels.join(name)).collect())
}

/// The lock of names when nobody reads the kernel of this one.
fn unread<'a>(shelf: &Shelf<'a>, name: &str) -> Result<HeldNames<'a>, KernelError> {
    let began = Instant::now();
    loop {
        let held = shelf.names.lock();
        if !held.pinned(name) {
            return Ok(held);
        }
        drop(held);
        let name = name.to_owned();
        if (shelf.cancelled)() {
            return Err(KernelError::Cancelled);
        }
        if began.elapsed() > READERS {
            return Err(KernelError::Pinned { name });
        }
        std::thread::sleep(LOOK);
    }
}

/// Gives a stage directory its name.
///
/// Whatever ends this in the middle leaves the old kernel or the new one under the name, whole, once [`recover`] has run.
pub(super) fn publish<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    stage: &Path,
    manifest: KernelManifest,
) -> Result<Kernel, KernelError> {
    let placed = place(files, shelf, stage, &manifest.name);
    let old = placed.inspect_err(|_| (shelf.discard)(stage))?;
    // The old one is not touched before the new one is in its place for good.
    let synced = files.sync_dir(shelf.kernels);
    synced.map_err(|source| KernelError::Files { source })?;
    if let Some(old) = old {
        (shelf.discard)(&old);
    }
    let dir = shelf.kernels.join(&manifest.name);
    Ok(Kernel { dir, manifest })
}

/// Puts the stage in its place; where the kernel is now that was there before.
fn place<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    stage: &Path,
    name: &str,
) -> Result<Option<PathBuf>, KernelError> {
    let _names = match shelf.replace {
        true => unread(shelf, name)?,
        false => shelf.names.lock(),
    };
    if (shelf.cancelled)() {
        return Err(KernelError::Cancelled);
    }
    // One that is damaged is no one's.
    if let Ok(Some(_)) = Kernel::load(files, shelf.kernels, name)
        && !shelf.replace
    {
        let name = name.to_owned();
        return Err(KernelError::Exists { name });
    }
    let target = shelf.kernels.join(name);
    let placed = match files.rename(stage, &target) {
        Err(e) if e.kind == ErrorKind::Exists => match files.exchange(stage, &target) {
            Err(e) if e.kind == ErrorKind::Unsupported => replace(files, shelf, stage, name),
            exchanged => exchanged.map(|()| Some(stage.to_owned())),
        },
        renamed => renamed.map(|()| None),
    };
    placed.map_err(|source| KernelError::Files { source })
}

/// Puts the stage in the place of a kernel by two renames; where the old one is now.
fn replace<F: Files>(
    files: &F,
    shelf: &Shelf<'_>,
    stage: &Path,
    name: &str,
) -> Result<Option<PathBuf>, banger_host::Error> {
    let target = shelf.kernels.join(name);
    let aside = shelf.kernels.join(format!("{OLD}{name}"));
    let trash = shelf.private("trash");
    // There is one in its place: this one is older still.
    tree::remove(files, &aside)?;
    files.rename(&target, &aside)?;
    let placed = files
        .sync_dir(shelf.kernels)
        .and_then(|()| files.rename(stage, &target))
        .and_then(|()| files.sync_dir(shelf.kernels));
    if let Err(error) = placed {
        // The first rename undone, unless the second one was done: then this one finds its place taken. If it fails for
        // another reason the daemon's next start does it.
        let _ = files.rename(&aside, &target);
        return Err(error);
    }
    // While it has this name it is put back where there is no other one.
    files.rename(&aside, &trash)?;
    Ok(Some(trash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::{KERNEL_FORMAT, MANIFEST};
    use crate::boot::pins::KernelNames;
    use banger_host::sim::{Nature, SimHost, World};
    use banger_host::{DiskRecipe, Effect, Error, FileSeen};
    use banger_model::ByteSize;
    use std::cell::Cell;

    type Done<T> = Result<T, Error>;

    /// A machine that can be killed before any of its effects, and whose file system may not exchange names.
    struct Mortal {
        host: SimHost,
        exchanges: bool,
        left: Cell<usize>,
    }

    impl Mortal {
        fn live<T>(&self, act: impl FnOnce(&SimHost) -> Done<T>) -> Done<T> {
            let left = self.left.get().checked_sub(1);
            let Some(left) = left else {
                return Err(no(ErrorKind::Crashed));
            };
            self.left.set(left);
            act(&self.host)
        }
    }

    fn no(kind: ErrorKind) -> Error {
        Error::new(Effect::Rename, "touch", "it", kind, "the test says so")
    }

    impl Files for Mortal {
        fn read(&self, path: &Path) -> Done<Option<Vec<u8>>> {
            self.host.read(path)
        }
        fn stat(&self, path: &Path) -> Done<Option<FileSeen>> {
            self.host.stat(path)
        }
        fn list(&self, dir: &Path) -> Done<Vec<String>> {
            self.host.list(dir)
        }
        fn disk_space(&self, path: &Path) -> Done<(u64, u64)> {
            self.host.disk_space(path)
        }
        fn mkdir(&self, dir: &Path) -> Done<()> {
            self.live(|host| host.mkdir(dir))
        }
        fn write(&self, path: &Path, bytes: &[u8]) -> Done<()> {
            self.live(|host| host.write(path, bytes))
        }
        fn sync_file(&self, path: &Path) -> Done<()> {
            self.live(|host| host.sync_file(path))
        }
        fn sync_dir(&self, dir: &Path) -> Done<()> {
            self.live(|host| host.sync_dir(dir))
        }
        fn rename(&self, from: &Path, to: &Path) -> Done<()> {
            self.live(|host| host.rename(from, to))
        }
        fn exchange(&self, one: &Path, other: &Path) -> Done<()> {
            match self.exchanges {
                true => self.live(|host| host.exchange(one, other)),
                false => Err(no(ErrorKind::Unsupported)),
            }
        }
        fn unlink(&self, path: &Path) -> Done<()> {
            self.live(|host| host.unlink(path))
        }
        fn rmdir(&self, dir: &Path) -> Done<()> {
            self.live(|host| host.rmdir(dir))
        }
        fn make_disk(&self, path: &Path, recipe: &DiskRecipe) -> Done<()> {
            self.live(|host| host.make_disk(path, recipe))
        }
        fn grow_disk(&self, path: &Path, size: ByteSize) -> Done<()> {
            self.live(|host| host.grow_disk(path, size))
        }
    }

    fn kernels() -> &'static Path {
        Path::new("/s/kernels")
    }

    fn manifest(version: &str) -> KernelManifest {
        KernelManifest {
            format: KERNEL_FORMAT,
            name: "k".to_owned(),
            version: version.to_owned(),
            ..KernelManifest::default()
        }
    }

    fn put(host: &impl Files, dir: &Path, version: &str) {
        host.mkdir(dir).unwrap();
        let manifest = serde_json::to_vec(&manifest(version)).unwrap();
        for (file, bytes) in [
            (MANIFEST, &manifest[..]),
            ("vmlinux", version.as_bytes()),
            ("modules.dep", version.as_bytes()),
        ] {
            host.write(&dir.join(file), bytes).unwrap();
            host.sync_file(&dir.join(file)).unwrap();
        }
        host.sync_dir(dir).unwrap();
    }

    fn machine(exchanges: bool) -> Mortal {
        let mut world = World::new(Nature::default());
        world.given_dir(kernels());
        let host = Mortal {
            host: SimHost::new(world),
            exchanges,
            left: Cell::new(usize::MAX),
        };
        put(&host, &kernels().join("k"), "old");
        put(&host, &kernels().join(".stage-t"), "new");
        host.sync_dir(kernels()).unwrap();
        host
    }

    fn published(
        host: &Mortal,
        names: &KernelNames,
        replace: bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Kernel, KernelError> {
        let shelf = Shelf {
            kernels: kernels(),
            tag: "t",
            pack: &|_, _| Ok(()),
            names,
            replace,
            cancelled,
            discard: &|dir| drop(tree::remove(host, dir)),
        };
        publish(host, &shelf, &kernels().join(".stage-t"), manifest("new"))
    }

    /// The version of the one kernel that there is, all of which is there.
    fn version(host: &impl Files) -> String {
        let rests = recover(host, kernels()).unwrap();
        for rest in rests {
            tree::remove(host, &rest).unwrap();
        }
        assert_eq!(host.list(kernels()).unwrap(), ["k"]);
        let kernel = Kernel::load(host, kernels(), "k").unwrap().unwrap();
        let version = kernel.manifest.version;
        for file in ["vmlinux", "modules.dep"] {
            let bytes = host.read(&kernel.dir.join(file)).unwrap().unwrap();
            assert_eq!(bytes, version.as_bytes());
        }
        version
    }

    /// R-IMG-7: killed before any effect, or the machine without power then, the old kernel or the new one is there.
    #[test]
    fn a_kernel_that_is_being_replaced_is_the_old_or_the_new_one() {
        for exchanges in [true, false] {
            let mut seen = Vec::new();
            for left in 0.. {
                let host = machine(exchanges);
                host.left.set(left);
                let made = published(&host, &KernelNames::default(), true, &|| false);
                let died = host.left.get() == 0;
                let fs = host.host.snapshot().fs;
                for survival in fs.survivals(500) {
                    let mut world = host.host.snapshot();
                    world.reboot(&survival);
                    let after = version(&SimHost::new(world));
                    assert!(
                        made.is_err() || after == "new",
                        "{left}: what was told is lost"
                    );
                    seen.push(after);
                }
                // Without a reboot: only the daemon was killed.
                seen.push(version(&host.host));
                if !died {
                    break;
                }
            }
            assert!(seen.iter().any(|v| v == "old") && seen.last().unwrap() == "new");
        }
    }

    #[test]
    fn a_kernel_that_is_read_is_not_replaced_until_it_is_free() {
        let host = machine(true);
        let names = KernelNames::default();
        let pinned = names.pin("k");
        let asked = Cell::new(0);
        // The reader leaves after the third look.
        let pinned = Cell::new(Some(pinned));
        let looks = || {
            asked.set(asked.get() + 1);
            let there = Kernel::load(&host, kernels(), "k").unwrap().unwrap();
            if asked.get() <= 3 {
                assert_eq!(there.manifest.version, "old");
            }
            if asked.get() == 3 {
                pinned.take();
            }
            false
        };
        published(&host, &names, true, &looks).unwrap();
        assert!(asked.get() > 3);
        assert_eq!(version(&host), "new");

        let host = machine(true);
        let _pinned = names.pin("k");
        let gives_up = published(&host, &names, true, &|| true).unwrap_err();
        assert!(matches!(gives_up, KernelError::Cancelled));
        assert_eq!(version(&host), "old");
        let host = machine(true);
        let taken = published(&host, &names, false, &|| false).unwrap_err();
        assert!(matches!(taken, KernelError::Exists { .. }));
        assert_eq!(version(&host), "old");
    }
}
