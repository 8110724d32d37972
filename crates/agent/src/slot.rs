//! How many of a kind may run at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use banger_wire::guest::copy::TOO_MANY;
use hyper::StatusCode;

use crate::serve::Refusal;

/// One of so many that may run at once; given back when it is dropped.
pub struct Slot(&'static AtomicUsize);

impl Slot {
    /// Takes one of `most`, of which `taken` counts those that are taken; refuses with the name of the kind.
    pub fn take(taken: &'static AtomicUsize, most: usize, kind: &str) -> Result<Self, Refusal> {
        let one_more = |count| (count < most).then(|| count + 1);
        match taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            // Made only if it was taken: dropping one gives it back.
            Ok(_) => Ok(Self(taken)),
            Err(_) => Err(Refusal(
                StatusCode::from_u16(TOO_MANY).unwrap_or_default(),
                format!("{most} {kind} run already; wait for one to end"),
            )),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
