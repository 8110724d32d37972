//! The machine's clock follows the host's (R-GUEST-9), and its random numbers get what the host gives.
//!
//! The clock is stepped when it is off by more than 250 ms, or the machine has just booted; else slewed, by adjtime's way (ADJ_OFFSET_SINGLESHOT): the
//! kernel then lets it go 500 ppm faster or slower until the rest is gone. It never goes backwards, unlike with small
//! steps (ADJ_SETOFFSET), and nothing stays behind if this program ends, unlike with a changed length of the tick. The
//! next message replaces what is left of the last one's.

use std::mem::size_of;

use banger_wire::guest::clock::{MAX_ENTROPY, STEP_ABOVE_NS};
use banger_wire::guest::{ClockDone, ClockReading, ClockSet, Correction, Entropy};
use hyper::StatusCode;
use hyper::body::Incoming;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Setter, ioctl, opcode};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::guest::{Guest, Place};
use crate::serve::{Answer, Refusal, json, read_json};

/// An offset this small is not worth a correction.
const GOOD_ENOUGH_NS: u64 = 1_000_000;
/// Longest request: the entropy as numbers with commas, and the times.
const MAX_REQUEST: usize = 4 * 1024;
const SECOND_NS: i128 = 1_000_000_000;

/// The method that reads the clock.
pub fn read() -> Answer {
    json(&ClockReading { unix_ns: now_ns() })
}

/// The method that corrects it.
pub async fn set(guest: &Guest, body: Incoming) -> Answer {
    let set: ClockSet = read_json(body, MAX_REQUEST).await?;
    if set.entropy.len() > MAX_ENTROPY {
        let message = format!("more than {MAX_ENTROPY} bytes of entropy");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let offset_ns = offset(&set, now_ns());
    let ours = guest.place != Place::Local;
    let correction = decide(offset_ns, set.rtt_ns, ours && guest.is_young());
    if ours {
        correct(offset_ns, correction).map_err(|error| {
            let message = format!("the kernel refused to correct the clock: {error}");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
    }
    let entropy = (!set.entropy.is_empty()).then(|| match ours {
        true => mix_in(&set.entropy),
        false => Entropy::Unused,
    });
    json(&ClockDone {
        offset_ns,
        correction,
        applied: ours,
        entropy,
    })
}

/// The host's time less ours.
fn offset(set: &ClockSet, now_ns: u64) -> i64 {
    let (host, guest) = match set.guest_ns {
        Some(guest) => (set.unix_ns, guest),
        None => (set.unix_ns.saturating_add(set.rtt_ns / 2), now_ns),
    };
    let offset = i128::from(host) - i128::from(guest);
    i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX })
}

/// What an offset asks for. What lies within half of the round trip may be the way the message took. A young
/// machine's clock is stepped in any case, as time daemons do with their first measurements: a real-time clock gives a
/// kernel whole seconds only, and to slew one away takes half an hour.
fn decide(offset_ns: i64, rtt_ns: u64, young: bool) -> Correction {
    let off = offset_ns.unsigned_abs();
    if off <= GOOD_ENOUGH_NS.max(rtt_ns / 2) {
        Correction::Nothing
    } else if off > STEP_ABOVE_NS || young {
        Correction::Step
    } else {
        Correction::Slew
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let ns = i128::from(now.tv_sec) * SECOND_NS + i128::from(now.tv_nsec);
    // A clock before 1970 reads as 1970, and is stepped all the same.
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

fn correct(offset_ns: i64, correction: Correction) -> Result<(), Errno> {
    match correction {
        Correction::Nothing => Ok(()),
        Correction::Step => {
            let now = clock_gettime(ClockId::Realtime);
            let ns = i128::from(now.tv_sec) * SECOND_NS
                + i128::from(now.tv_nsec)
                + i128::from(offset_ns);
            let seconds = i64::try_from(ns.div_euclid(SECOND_NS)).map_err(|_| Errno::INVAL)?;
            let rest = i64::try_from(ns.rem_euclid(SECOND_NS)).map_err(|_| Errno::INVAL)?;
            // The kernel drops what is left of a slew.
            clock_settime(
                ClockId::Realtime,
                Timespec {
                    tv_sec: seconds,
                    tv_nsec: rest,
                },
            )
        }
        Correction::Slew => slew(offset_ns),
    }
}

fn slew(offset_ns: i64) -> Result<(), Errno> {
    // SAFETY: a `timex` is numbers only.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_OFFSET_SINGLESHOT;
    timex.offset = offset_ns / 1000;
    // SAFETY: the structure lives through the call.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        let number = std::io::Error::last_os_error().raw_os_error();
        return Err(Errno::from_raw_os_error(number.unwrap_or(0)));
    }
    Ok(())
}

/// `struct rand_pool_info` of linux/random.h.
#[repr(C)]
struct PoolInfo {
    /// Bits that are worth something.
    entropy_count: i32,
    buffer_size: i32,
    buffer: [u8; MAX_ENTROPY],
}

// linux/random.h; the size in the number is that of two ints.
const RNDADDENTROPY: u32 = opcode::write::<[i32; 2]>(b'R', 3);
const RNDRESEEDCRNG: u32 = opcode::none(b'R', 7);

/// Gives bytes to the kernel's random numbers.
fn mix_in(bytes: &[u8]) -> Entropy {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(device) = rustix::fs::open("/dev/urandom", flags, Mode::empty()) else {
        return Entropy::Unused;
    };
    let mut info = PoolInfo {
        entropy_count: 0,
        buffer_size: 0,
        buffer: [0; MAX_ENTROPY],
    };
    let count = bytes.len().min(info.buffer.len());
    info.buffer[..count].copy_from_slice(&bytes[..count]);
    info.buffer_size = i32::try_from(count).unwrap_or(0);
    info.entropy_count = info.buffer_size * 8;
    const { assert!(size_of::<PoolInfo>() == 8 + MAX_ENTROPY) };
    // SAFETY: `PoolInfo` is what the kernel reads for that number: as many bytes of the buffer as its size says.
    let credited = unsafe { ioctl(&device, Setter::<RNDADDENTROPY, _>::new(info)) };
    if credited.is_ok() {
        // What was mixed in counts from the next reseeding on; that is now.
        // SAFETY: this number takes no argument.
        let _ = unsafe { ioctl(&device, NoArg::<RNDRESEEDCRNG>::new()) };
        return Entropy::Credited;
    }
    match rustix::io::write(&device, &bytes[..count]) {
        Ok(_) => Entropy::Mixed,
        Err(_) => Entropy::Unused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn stepped_above_a_quarter_second_else_slewed() {
        for (offset_ms, rtt_ms, wanted) in [
            (0, 0, Correction::Nothing),
            (1, 0, Correction::Nothing),
            (-1, 0, Correction::Nothing),
            (2, 0, Correction::Slew),
            (-2, 0, Correction::Slew),
            (250, 0, Correction::Slew),
            (-250, 0, Correction::Slew),
            (251, 0, Correction::Step),
            (-251, 0, Correction::Step),
            // Half of the way is not known.
            (10, 20, Correction::Nothing),
            (11, 20, Correction::Slew),
            (400, 800, Correction::Nothing),
            (401, 800, Correction::Step),
            (3_600_000, 3, Correction::Step),
        ] {
            let rtt = u64::try_from(rtt_ms * MS).unwrap();
            assert_eq!(
                decide(offset_ms * MS, rtt, false),
                wanted,
                "{offset_ms} ms, {rtt_ms} ms"
            );
        }
        assert_eq!(decide(i64::MIN, 0, false), Correction::Step);
        assert_eq!(decide(i64::MAX, u64::MAX / 4, false), Correction::Step);
    }

    #[test]
    fn the_clock_of_a_young_machine_is_stepped() {
        assert_eq!(decide(-2 * MS, 0, true), Correction::Step);
        assert_eq!(decide(2 * MS, 4_000_000, true), Correction::Nothing);
    }

    #[test]
    fn what_a_message_says_of_our_clock() {
        let set = |unix_ns, guest_ns, rtt_ns| ClockSet {
            unix_ns,
            guest_ns,
            rtt_ns,
            entropy: vec![],
        };
        assert_eq!(
            offset(&set(100, None, 20), 50),
            60,
            "half of the way is added"
        );
        assert_eq!(
            offset(&set(100, Some(130), 20), 5000),
            -30,
            "whenever it arrives"
        );
        assert_eq!(offset(&set(u64::MAX, None, 9), 0), i64::MAX);
        assert_eq!(offset(&set(0, Some(u64::MAX), 0), 0), i64::MIN);
    }
}
