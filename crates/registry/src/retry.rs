//! How often, and after how long, what failed in passing is tried again.

use crate::fault::{Fault, Kind};
use std::{future::Future, time::Duration};

/// Failures in a row, without a byte between them, that are the last.
const TRIES: u32 = 5;
/// The wait after the first failure; it doubles.
const FIRST: Duration = Duration::from_millis(250);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failed: u32,
}

impl Retry {
    /// Something came: what fails next is the first failure.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// How long to wait after one more failure, as long as its server says at least; `None` if that was the last.
    pub(crate) fn failed(&mut self, fault: &Fault) -> Option<Duration> {
        self.failed += 1;
        let wait = |n: u32| (FIRST * (1 << n)).max(fault.after());
        (self.failed < TRIES).then(|| wait(self.failed - 1))
    }
}

/// Asks until there is an answer, or a failure that does not pass.
///
/// # Errors
/// The last failure.
pub(crate) async fn until_answered<T, F>(ask: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut retry = Retry::default();
    loop {
        let fault = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        match retry
            .failed(&fault)
            .filter(|_| fault.kind() == Kind::Passing)
        {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_ends_and_begins_anew_with_progress() {
        let mut retry = Retry::default();
        let waits: Vec<_> = std::iter::from_fn(|| retry.failed(&Fault::Cut)).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.windows(2).all(|w| w[1] == w[0] * 2), "{waits:?}");
        retry.progress();
        assert_eq!(retry.failed(&Fault::Cut), Some(FIRST));
        let told = Duration::from_secs(7);
        assert_eq!(retry.failed(&Fault::Wait(429, told)), Some(told));
    }
}
