//! Who is reading a kernel that no row, no image and no directory of a VM names yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The lock of kernels' names: held while a name is looked at and given or taken away; and how many are reading the
/// kernel of each.
#[derive(Debug, Default)]
pub struct KernelNames(Mutex<BTreeMap<String, usize>>);

impl KernelNames {
    /// Keeps what this name stands for from being deleted or replaced as long as the result lives. There need be no such
    /// kernel: look after this whether there is.
    pub fn pin(self: &Arc<Self>, name: &str) -> PinnedKernel {
        *self.lock().0.entry(name.to_owned()).or_default() += 1;
        PinnedKernel {
            name: name.to_owned(),
            names: Arc::clone(self),
        }
    }

    /// Takes the lock, for a moment: whoever ends a pin waits for it.
    pub fn lock(&self) -> HeldNames<'_> {
        HeldNames(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lock of kernels' names, held.
#[derive(Debug)]
pub struct HeldNames<'a>(MutexGuard<'a, BTreeMap<String, usize>>);

impl HeldNames<'_> {
    /// Whether somebody is reading the kernel of this name.
    pub fn pinned(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Keeps a kernel in its place until it is dropped.
#[derive(Debug)]
pub struct PinnedKernel {
    name: String,
    names: Arc<KernelNames>,
}

impl Drop for PinnedKernel {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        if let Some(count) = names.0.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.0.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_pinned_until_the_last_pin_is_gone() {
        let names = Arc::new(KernelNames::default());
        let (one, two) = (names.pin("k"), names.pin("k"));
        drop(one);
        assert!(names.lock().pinned("k") && !names.lock().pinned("other"));
        drop(two);
        assert!(!names.lock().pinned("k"));
    }
}
