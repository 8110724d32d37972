//! The host's time stamp counter frequency, which a guest under emulation must be told.
//!
//! QEMU's emulation hands the guest the host's counter, and the guest's own calibration against an emulated timer
//! fails by chance when the machine is busy: 20 to 80 % of boots then hang (docs/design/boot.md).

use std::path::Path;
use std::time::{Duration, Instant};

use banger_host::Files;
use banger_model::BootId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Long enough for an error of a few parts in a million, short enough to go unnoticed once per boot.
const WINDOW: Duration = Duration::from_millis(50);

/// Why the frequency is not known.
#[derive(Debug, Error)]
pub enum TscError {
    /// Other processors have no such counter.
    #[error("this machine is no x86-64: it has no time stamp counter to tell a guest about")]
    NoTsc,
    /// The counter stood still or ran at a rate that no processor has.
    #[error(
        "the time stamp counter ran at {khz} kHz, which no processor does: its guests' clocks cannot be set"
    )]
    Absurd {
        /// What was measured.
        khz: u64,
    },
}

/// What is remembered of a measurement.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    khz: u64,
}

/// The frequency in kHz, from `cache` if it was measured since this boot, else measured (50 ms) and put there.
///
/// A cache that cannot be read or written costs the measurement again, nothing else.
///
/// # Errors
/// See [`TscError`].
pub fn khz<F: Files>(files: &F, cache: &Path, boot_id: &BootId) -> Result<u64, TscError> {
    let remembered = files.read(cache).ok().flatten();
    if let Some(r) = remembered.and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok())
        && r.boot_id == boot_id.0
        && plausible(r.khz)
    {
        return Ok(r.khz);
    }
    let khz = measure()?;
    if let Ok(bytes) = serde_json::to_vec(&Remembered {
        boot_id: boot_id.0.clone(),
        khz,
    }) {
        // Half a file does not parse, and then it is measured again: no temporary file is needed.
        let _ = files.write(cache, &bytes);
    }
    Ok(khz)
}

/// Measures the frequency in kHz; takes 50 ms.
///
/// # Errors
/// See [`TscError`].
pub fn measure() -> Result<u64, TscError> {
    let (from, from_at) = sample()?;
    std::thread::sleep(WINDOW);
    let (to, to_at) = sample()?;
    let nanos = to_at.duration_since(from_at).as_nanos().max(1);
    let khz = u128::from(to.wrapping_sub(from)) * 1_000_000 / nanos;
    let khz = u64::try_from(khz).unwrap_or(u64::MAX);
    if plausible(khz) {
        Ok(khz)
    } else {
        Err(TscError::Absurd { khz })
    }
}

fn plausible(khz: u64) -> bool {
    (100_000..20_000_000).contains(&khz)
}

/// Counter and clock read together: of several tries the one in which least time passed between two clock reads, so
/// that being descheduled in between spoils nothing.
fn sample() -> Result<(u64, Instant), TscError> {
    let tries = (0..16).map(|_| {
        let before = Instant::now();
        let counter = counter();
        let took = before.elapsed();
        (took, counter, before + took / 2)
    });
    let (_, counter, at) = tries.min_by_key(|t| t.0).ok_or(TscError::NoTsc)?;
    Ok((counter.ok_or(TscError::NoTsc)?, at))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: rdtsc exists on every x86-64 processor and touches no memory.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_to_one_in_a_thousand() {
        let (a, b) = (measure().unwrap(), measure().unwrap());
        assert!(a.abs_diff(b) * 1000 < a, "{a} and {b} kHz");
    }
}
