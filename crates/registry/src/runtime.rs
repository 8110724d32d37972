//! The asynchronous part of a talk with a server, for a thread that may wait.

use crate::session::Watch;
use crate::{Error, Result};
use std::{future::Future, time::Duration};
use tokio::runtime::{self, Builder};

/// How often it is looked whether the work is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A runtime for this thread alone. Its end waits for nobody: the system may look for a name for half a minute. What else
/// has a thread of its own here changes nothing that anybody sees.
pub(crate) struct Runtime(Option<runtime::Runtime>);

impl Runtime {
    /// # Errors
    /// The machine has no more of what it takes.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Machine(Box::new(error)))?;
        Ok(Runtime(Some(runtime)))
    }

    /// Waits for work that has its own timeouts, as long as it is wanted.
    pub(crate) fn wait<T>(
        &self,
        watch: &dyn Watch,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(runtime) = &self.0 else {
            return Err(Error::Cancelled);
        };
        runtime.block_on(async {
            let unwanted = async {
                while !watch.cancelled() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                done = work => done,
                () = unwanted => Err(Error::Cancelled),
            }
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Blob;
    use std::{cell::Cell, time::Instant};

    /// Leaves at the second look.
    struct Gone(Cell<bool>);

    impl Watch for Gone {
        fn moved(&self, _: &[u64]) {}
        fn arrived(&self, _: &Blob, _: usize) {}
        fn cancelled(&self) -> bool {
            self.0.replace(true)
        }
    }

    #[test]
    fn its_end_waits_for_no_thread() {
        let began = Instant::now();
        let runtime = Runtime::new().unwrap();
        let done = runtime.wait(&Gone(Cell::new(false)), async {
            // As the system's resolver does it.
            let resolver = || std::thread::sleep(Duration::from_secs(20));
            let _ = tokio::task::spawn_blocking(resolver).await;
            Ok(())
        });
        drop(runtime);
        assert!(matches!(done, Err(Error::Cancelled)));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
