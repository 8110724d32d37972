//! How fast something moves, and when it will be there.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What a rate is measured over: what was before says nothing of the network now.
const WINDOW: Duration = Duration::from_secs(5);
/// Shorter than this is no measurement.
const SHORTEST: Duration = Duration::from_secs(1);

/// Bytes over time. What was there before the first look is nobody's speed.
#[derive(Debug, Default)]
pub struct Pace {
    seen: VecDeque<(Instant, u64)>,
    total: Option<u64>,
}

impl Pace {
    /// Notes how much is done now, and tells it: `12.0 of 340.0 MiB, 8.5 MiB/s, 39 s left`.
    pub fn at(&mut self, now: Instant, done: u64, total: Option<u64>) -> String {
        let other = total != self.total || self.seen.back().is_some_and(|last| last.1 > done);
        if other {
            self.seen.clear();
            self.total = total;
        }
        self.seen.push_back((now, done));
        // The newest that is older than the window stays: the rate is over all of it.
        while self
            .seen
            .get(1)
            .is_some_and(|second| now - second.0 >= WINDOW)
        {
            self.seen.pop_front();
        }
        let amount = match total {
            Some(total) => of(done, total),
            None => size(done),
        };
        let Some(rate) = self.rate() else {
            return amount;
        };
        let speed = format!("{amount}, {}/s", size(rate as u64));
        match total.map(|total| total.saturating_sub(done)) {
            Some(left) if left > 0 && rate >= 1.0 => {
                format!("{speed}, {} left", time(left as f64 / rate))
            }
            _ => speed,
        }
    }

    /// Bytes a second; `None` as long as there is too little to tell.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.seen.front()?, self.seen.back()?);
        let took = last.0 - first.0;
        (took >= SHORTEST).then(|| (last.1 - first.1) as f64 / took.as_secs_f64())
    }
}

/// `12.0 of 340.0 MiB`
pub fn of(done: u64, total: u64) -> String {
    format!("{:.1} of {}", mib(done), size(total))
}

/// `340.0 MiB`
fn size(bytes: u64) -> String {
    format!("{:.1} MiB", mib(bytes))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `39 s`, `4 min 10 s`, `2 h 5 min`
fn time(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is told after these looks: seconds from the first, and MiB.
    fn told(looks: &[(f64, u64)], total: Option<u64>) -> String {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let tell = |(after, mib): &(f64, u64)| {
            let now = began + Duration::from_secs_f64(*after);
            pace.at(now, mib * MIB, total.map(|total| total * MIB))
        };
        looks.iter().map(tell).last().unwrap_or_default()
    }

    #[test]
    fn a_rate_is_of_the_last_seconds_and_not_of_what_was_there() {
        // 100 MiB of an earlier pull.
        let resumed = [(0.0, 100), (0.5, 101)];
        assert_eq!(told(&resumed, Some(200)), "101.0 of 200.0 MiB");
        let two = [(0.0, 100), (2.0, 120)];
        let text = "120.0 of 200.0 MiB, 10.0 MiB/s, 8 s left";
        assert_eq!(told(&two, Some(200)), text);
        // Fast once, slow for the last ten seconds.
        let slower: Vec<_> = (0..=10)
            .map(|s| (f64::from(s) + 1.0, 500 + s as u64))
            .collect();
        let slower = [&[(0.0, 0)], slower.as_slice()].concat();
        let text = "510.0 of 1110.0 MiB, 1.0 MiB/s, 10 min 0 s left";
        assert_eq!(told(&slower, Some(1110)), text);
    }

    #[test]
    fn what_stands_still_has_no_end_and_another_stage_begins_anew() {
        let still = [(0.0, 5), (3.0, 5), (8.0, 5)];
        assert_eq!(told(&still, Some(9)), "5.0 of 9.0 MiB, 0.0 MiB/s");
        assert_eq!(told(&[(0.0, 8), (9.0, 2)], None), "2.0 MiB");
        assert_eq!(told(&[(0.0, 0), (2.0, 2)], None), "2.0 MiB, 1.0 MiB/s");
        assert_eq!(
            told(&[(0.0, 0), (2.0, 2)], Some(2)),
            "2.0 of 2.0 MiB, 1.0 MiB/s"
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(0.2), "1 s");
        assert_eq!(time(250.0), "4 min 10 s");
        assert_eq!(time(7500.0), "2 h 5 min");
    }
}
