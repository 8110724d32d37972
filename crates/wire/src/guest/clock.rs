//! The guest's clock and its entropy (R-GUEST-9): what the host says of the time, and what the agent does about it.

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::client::{ClientError, GuestClient};

/// Path of the clock: GET reads it, POST corrects it.
pub const CLOCK_PATH: &str = "/v1/clock";

/// Above this the guest's clock is stepped, below it is slewed.
pub const STEP_ABOVE_NS: u64 = 250_000_000;

/// Most bytes of entropy in one message.
pub const MAX_ENTROPY: usize = 512;

/// What the guest's clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Unix time in nanoseconds.
    pub unix_ns: u64,
}

/// The host's time.
///
/// There are two ways to say it. With `guest_ns` it is a pair that was measured before: the host's clock showed
/// `unix_ns` when the guest's showed `guest_ns`; a message that arrives late is as good as one that arrives at once.
/// Without, `unix_ns` is the time at which the message was sent: one message is enough, and what it takes to arrive is
/// an error, but for the half of `rtt_ns` that is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSet {
    /// The host's time: Unix time in nanoseconds.
    pub unix_ns: u64,
    /// What the guest's clock showed at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_ns: Option<u64>,
    /// The round trip that was measured; half of it is what the host cannot know about the guest's clock.
    #[serde(default)]
    pub rtt_ns: u64,
    /// Bytes nobody else has, for the guest's random numbers: two guests that went on from one state must not draw the
    /// same ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entropy: Vec<u8>,
}

/// What is done about a clock that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// It is as right as can be known.
    Nothing,
    /// It goes faster or slower for a while.
    Slew,
    /// It jumps.
    Step,
}

/// What the agent did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockDone {
    /// The host's time less the guest's, in nanoseconds.
    pub offset_ns: i64,
    /// What that asks for.
    pub correction: Correction,
    /// Whether it was done: an agent that is not its machine's init never touches the machine's clock.
    pub applied: bool,
    /// What became of the entropy, if some came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
}

/// What became of entropy that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entropy {
    /// Mixed in, counted, and in effect at once.
    Credited,
    /// Mixed in only.
    Mixed,
    /// Not used: the agent is not its machine's init, or the kernel refused.
    Unused,
}

impl GuestClient {
    /// Reads the guest's clock.
    ///
    /// # Errors
    /// The session ended, or the agent refused.
    pub async fn clock(&self) -> Result<ClockReading, ClientError> {
        self.call(Method::GET, CLOCK_PATH).await
    }

    /// Tells the guest the time, and gives it entropy.
    ///
    /// # Errors
    /// The session ended, or the agent could not do it.
    pub async fn set_clock(&self, set: &ClockSet) -> Result<ClockDone, ClientError> {
        self.call_with(Method::POST, CLOCK_PATH, set).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_message_is_the_time() {
        let set: ClockSet = serde_json::from_str(r#"{"unix_ns":5}"#).unwrap();
        assert_eq!((set.unix_ns, set.guest_ns, set.rtt_ns), (5, None, 0));
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"{"unix_ns":5,"rtt_ns":0}"#
        );
        assert!(serde_json::from_str::<ClockSet>(r#"{"unix_ns":5,"x":1}"#).is_err());
    }
}
