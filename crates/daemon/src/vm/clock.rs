//! The guest's clock follows ours (R-GUEST-9): told at the start of every session and when a guest that was held still
//! goes on, measured and corrected every 30 s.

use super::VmService;
use banger_model::VmId;
use banger_wire::guest::{ClientError, ClockDone, ClockSet, Correction, GuestClient};
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// How often a running guest's clock is measured and corrected.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long a guest may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// An answer within this is as good a measurement as is needed.
const PROMPT: Duration = Duration::from_millis(20);
/// Waits before a clock that was told the time late is measured.
const SETTLING: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Measurements of which the one with the shortest way is taken.
const MEASUREMENTS: u32 = 3;
/// Bytes of entropy sent along: as much as the kernel's generator holds.
const ENTROPY: usize = 32;

/// A guest's clock against ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// What ours showed, in Unix nanoseconds, when
    host_ns: u64,
    /// the guest's showed this.
    guest_ns: u64,
    /// From the question to the answer.
    pub round_trip: Duration,
}

impl Measured {
    /// A reading between two of ours: it was taken half way.
    fn new(asked_ns: u64, guest_ns: u64, round_trip: Duration) -> Measured {
        Measured {
            host_ns: asked_ns.saturating_add(nanoseconds(round_trip) / 2),
            guest_ns,
            round_trip,
        }
    }

    /// The guest's clock less ours, in nanoseconds.
    pub fn ahead_ns(&self) -> i128 {
        i128::from(self.guest_ns) - i128::from(self.host_ns)
    }
}

/// Measures a guest's clock: up to three times, until an answer comes promptly.
pub(super) async fn measure(guest: &GuestClient) -> Result<Measured, ClientError> {
    let mut best: Option<Measured> = None;
    for _ in 0..MEASUREMENTS {
        let (asked_ns, asked) = (now_ns(), Instant::now());
        let reading = guest.clock().await?;
        let measured = Measured::new(asked_ns, reading.unix_ns, asked.elapsed());
        if best.is_none_or(|best| measured.round_trip < best.round_trip) {
            best = Some(measured);
        }
        if measured.round_trip <= PROMPT {
            break;
        }
    }
    best.ok_or(ClientError::ConnectionLost)
}

/// Measures a guest's clock and tells it what came out. Late or not, the guest can use it. Says whether the answer came
/// promptly.
async fn correct(id: VmId, guest: &GuestClient) -> Result<bool, ClientError> {
    let measured = measure(guest).await?;
    let set = ClockSet {
        unix_ns: measured.host_ns,
        guest_ns: Some(measured.guest_ns),
        rtt_ns: nanoseconds(measured.round_trip),
        entropy: Vec::new(),
    };
    note(id, &guest.set_clock(&set).await?);
    Ok(measured.round_trip <= PROMPT)
}

/// Tells a guest the time, with fresh entropy, as its first word of a session or of its going on: one message, so that
/// it is in front of all that is asked of the guest after this call. What it took to arrive is corrected later.
pub(super) fn tell(id: VmId, guest: &GuestClient) -> JoinHandle<()> {
    let guest = guest.clone();
    tokio::spawn(async move {
        let mut entropy = vec![0; ENTROPY];
        if getrandom::fill(&mut entropy).is_err() {
            // Bytes that anyone could guess would be counted as entropy.
            entropy.clear();
        }
        let sent = Instant::now();
        let set = ClockSet {
            unix_ns: now_ns(),
            entropy,
            ..ClockSet::default()
        };
        match within_limit(guest.set_clock(&set)).await {
            Ok(done) => {
                note(id, &done);
                if sent.elapsed() > PROMPT {
                    tokio::spawn(settle(id, guest));
                }
            }
            Err(why) => tracing::info!(vm = %id, why, "its clock was not set"),
        }
    })
}

/// Corrects a clock that was told the time late: a guest that boots, or has just gone on, is too busy to be measured.
async fn settle(id: VmId, guest: GuestClient) {
    for pause in SETTLING {
        tokio::time::sleep(pause).await;
        match within_limit(correct(id, &guest)).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(why) => return tracing::debug!(vm = %id, why, "its clock was not corrected"),
        }
    }
}

/// A guest's answer within the time it may take; the error is a sentence.
async fn within_limit<T>(
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it has not answered for {} s", LIMIT.as_secs())),
    }
}

fn note(id: VmId, done: &ClockDone) {
    let offset_ms = done.offset_ns / 1_000_000;
    let (correction, entropy) = (done.correction, done.entropy);
    match correction {
        Correction::Step => {
            tracing::info!(vm = %id, offset_ms, ?entropy, "its clock was stepped");
        }
        _ => tracing::debug!(vm = %id, offset_ms, ?correction, ?entropy, "its clock was looked at"),
    }
}

impl VmService {
    /// Measures and corrects a guest's clock every 30 s; never ends by itself.
    pub(super) async fn keep_time(&self, id: VmId) {
        let entry = self.set.entry(id);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(guest) = entry.guest() else {
                continue;
            };
            if entry.is_paused() {
                continue;
            }
            if let Err(why) = within_limit(correct(id, &guest)).await {
                tracing::debug!(vm = %id, why, "its clock was not corrected");
            }
        }
    }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    nanoseconds(now.unwrap_or_default())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_was_taken_half_way() {
        let measured = Measured::new(1000, 1500, Duration::from_nanos(200));
        assert_eq!((measured.host_ns, measured.ahead_ns()), (1100, 400));
        assert_eq!(Measured::new(1000, 0, Duration::ZERO).ahead_ns(), -1000);
    }
}
