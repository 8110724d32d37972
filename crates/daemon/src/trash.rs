//! Removing what is no one's any more, which may take longer than anybody wants to wait.

use crate::core::DaemonHost;
use banger_vmm::boot::shelf;
use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

/// How long is waited for a removal: most are done by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Removes a hidden directory of kernels, in a thread of its own if it takes long. A daemon that ends meanwhile does not
/// wait for it; the next one's start removes the rest.
pub fn discard(host: &Arc<DaemonHost>, dir: &Path) {
    let (host, dir) = (Arc::clone(host), dir.to_owned());
    begin(PATIENCE, move || {
        if let Err(error) = shelf::clear(&*host, &dir) {
            tracing::warn!(%error, path = %dir.display(), "what is left of a kernel stays until the daemon's next start");
        }
    });
}

/// Runs work in a thread of its own and waits for its end, so long at most.
fn begin(patience: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::Builder::new().name("trash".to_owned());
    let begun = thread.spawn(move || {
        work();
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    match begun {
        // Whether it ended in time makes no difference to who waited.
        Ok(_) => drop(ended.recv_timeout(patience)),
        Err(error) => {
            tracing::warn!(%error, "nothing can be removed now; the daemon's next start does it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_discards_a_large_tree_does_not_wait_for_its_removal() {
        let (go_on, wait) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        begin(Duration::from_millis(20), move || {
            wait.recv().unwrap();
            done.send("removed").unwrap();
        });
        // It came back before the work was done, and the work goes on.
        assert!(ended.try_recv().is_err());
        go_on.send(()).unwrap();
        let waited = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(waited, Ok("removed"));

        let (done, ended) = mpsc::channel();
        begin(Duration::from_secs(60), move || done.send(()).unwrap());
        assert_eq!(
            ended.try_recv(),
            Ok(()),
            "what is done at once is waited for"
        );
    }
}
