//! When a file system counts as full (R-HOST-10).

use banger_model::ByteSize;

/// Whether there is room to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Go on.
    Enough,
    /// Creates are refused and running VMs paused.
    Full,
}

/// Full is below 1 GiB or below 2 % free, whichever comes first.
pub fn pressure(free: u64, total: u64) -> Pressure {
    const LEAST: ByteSize = ByteSize::gib(1);
    let two_percent = u128::from(total) * 2 / 100;
    if free < LEAST.bytes() || u128::from(free) < two_percent {
        Pressure::Full
    } else {
        Pressure::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_below_one_gib_or_two_percent() {
        const GIB: u64 = 1 << 30;
        for (free, total, expected) in [
            (GIB, 10 * GIB, Pressure::Enough),
            (GIB - 1, 10 * GIB, Pressure::Full),
            (2 * GIB, 100 * GIB, Pressure::Enough),
            (2 * GIB - 1, 100 * GIB, Pressure::Full),
            (0, 0, Pressure::Full),
            (u64::MAX, u64::MAX, Pressure::Enough),
        ] {
            assert_eq!(pressure(free, total), expected, "{free} of {total}");
        }
    }
}
