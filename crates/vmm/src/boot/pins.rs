//! Who is reading a kernel that no row, no image and no directory of a VM names yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Who reads the kernel of each name: as long as anybody does, what all of them share is there.
type Readers = BTreeMap<String, Weak<()>>;

/// The lock of kernels' names: held while a name is looked at and given or taken away; and who is reading the kernel of
/// each.
#[derive(Debug, Default)]
pub struct KernelNames(Mutex<Readers>);

impl KernelNames {
    /// Keeps what this name stands for from being deleted or replaced as long as the result lives. There need be no such
    /// kernel: look after this whether there is. Blocks while a name is given or taken away.
    pub fn pin(&self, name: &str) -> PinnedKernel {
        let mut names = self.lock();
        names.0.retain(|_, readers| readers.strong_count() > 0);
        let readers = names.0.get(name).and_then(Weak::upgrade);
        let readers = readers.unwrap_or_default();
        names.0.insert(name.to_owned(), Arc::downgrade(&readers));
        PinnedKernel { _readers: readers }
    }

    /// Takes the lock. Whoever begins a pin waits for it, and may be starting a VM.
    pub fn lock(&self) -> HeldNames<'_> {
        HeldNames(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lock of kernels' names, held.
#[derive(Debug)]
pub struct HeldNames<'a>(MutexGuard<'a, Readers>);

impl HeldNames<'_> {
    /// Whether somebody is reading the kernel of this name.
    pub fn pinned(&self, name: &str) -> bool {
        let readers = self.0.get(name);
        readers.is_some_and(|readers| readers.strong_count() > 0)
    }
}

/// Keeps a kernel in its place until it is dropped, which waits for nobody: it is dropped where nothing may block.
#[derive(Debug)]
pub struct PinnedKernel {
    _readers: Arc<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_pinned_until_the_last_pin_is_gone() {
        let names = KernelNames::default();
        let (one, two) = (names.pin("k"), names.pin("k"));
        drop(one);
        assert!(names.lock().pinned("k") && !names.lock().pinned("other"));
        drop(two);
        assert!(!names.lock().pinned("k"));
    }

    /// A daemon serves everybody with one thread; who deletes a kernel holds the lock over disks and the database.
    #[test]
    fn who_ends_a_pin_waits_for_no_lock() {
        let names = KernelNames::default();
        let pinned = names.pin("k");
        let held = names.lock();
        assert!(held.pinned("k"));
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                drop(pinned);
                let _ = done.send(());
            });
            let waited = ended.recv_timeout(std::time::Duration::from_secs(20));
            let free = !held.pinned("k");
            drop(held);
            assert!(waited.is_ok() && free);
        });
    }

    #[test]
    fn names_that_nobody_reads_are_not_kept() {
        let names = KernelNames::default();
        for i in 0..100 {
            drop(names.pin(&i.to_string()));
        }
        let _last = names.pin("last");
        assert_eq!(names.lock().0.len(), 1);
    }
}
