//! What follows a boot that said nothing.
//!
//! The agent's first hello comes before any disk is mounted for writing, so that a boot without one lost nothing and
//! can be tried again. Bounded, and every try is told.

use std::time::Duration;

/// How long and how often a guest may stay silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPolicy {
    /// A boot without a hello by then is given up.
    pub hello_within: Duration,
    /// Further tries after the first.
    pub retries: u32,
}

/// How a boot attempt ended without a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// The VMM lives, the guest says nothing.
    NoHello,
    /// The VMM ended by itself before the hello (a kernel panic does that).
    VmmExited,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterSilence {
    /// Kill what is left, and boot again.
    Retry {
        /// Which try comes now, from 2.
        attempt: u32,
        /// How many there may be in all.
        of: u32,
    },
    /// Give up; the text says what was seen, for the VM's reason and the error.
    GiveUp {
        /// What was seen.
        why: String,
    },
}

impl BootPolicy {
    /// Two retries (docs/design/boot.md). Under emulation a boot takes 1 to 2 s, on a machine whose processors are
    /// shared by many several times that.
    pub const DEFAULT: BootPolicy = BootPolicy {
        hello_within: Duration::from_secs(30),
        retries: 2,
    };

    /// What follows the attempt `attempt` (from 1) that ended like `silence`.
    pub fn after(&self, attempt: u32, silence: &Silence) -> AfterSilence {
        let of = self.retries.saturating_add(1);
        if attempt < of {
            return AfterSilence::Retry {
                attempt: attempt + 1,
                of,
            };
        }
        let why = match silence {
            Silence::NoHello => format!(
                "the guest's agent said nothing within {} s, {of} boots in a row",
                self.hello_within.as_secs()
            ),
            Silence::VmmExited => {
                format!("the VM ended before its agent said anything, {of} boots in a row")
            }
        };
        AfterSilence::GiveUp { why }
    }

    /// The longest that all attempts together wait for a hello.
    pub fn worst_case(&self) -> Duration {
        self.hello_within * self.retries.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_boots_then_the_truth() {
        let policy = BootPolicy::DEFAULT;
        let mut attempt = 1;
        let mut told = Vec::new();
        let why = loop {
            match policy.after(attempt, &Silence::NoHello) {
                AfterSilence::Retry { attempt: next, of } => {
                    told.push((next, of));
                    attempt = next;
                }
                AfterSilence::GiveUp { why } => break why,
            }
        };
        assert_eq!(told, [(2, 3), (3, 3)]);
        assert_eq!(
            why,
            "the guest's agent said nothing within 30 s, 3 boots in a row"
        );
        assert_eq!(policy.worst_case(), Duration::from_secs(90));
    }

    #[test]
    fn no_retries_means_one_boot() {
        let policy = BootPolicy {
            retries: 0,
            ..BootPolicy::DEFAULT
        };
        assert!(matches!(
            policy.after(1, &Silence::VmmExited),
            AfterSilence::GiveUp { .. }
        ));
        assert!(matches!(
            policy.after(u32::MAX, &Silence::NoHello),
            AfterSilence::GiveUp { .. }
        ));
    }
}
