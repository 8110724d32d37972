//! What /proc says about a process (proc(5)).

use rustix::io::Errno;
use std::{fs, path::PathBuf};

/// The fields of `/proc/<pid>/stat` we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3: R, S, D, Z, …
    pub state: char,
    /// Field 20: threads.
    pub threads: u32,
    /// Field 22: start time in clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Dead for every purpose but its number. The first thread of a process that is still dying in
    /// another thread is also shown as a zombie, but holds its files, so it is not dead yet.
    pub(super) const fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

/// The stat line of a process; `None` if there is none. An error says nothing about the process: we
/// may be out of descriptors, and that must not make anyone dead.
pub(super) fn stat(pid: u32) -> Result<Option<Stat>, Errno> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(e) => match Errno::from_io_error(&e) {
            // Gone before it was opened, or between opening and reading.
            Some(Errno::NOENT | Errno::SRCH) => Ok(None),
            errno => Err(errno.unwrap_or(Errno::IO)),
        },
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // Field 2, the name, is in parentheses and may itself hold blanks and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        threads: fields.get(17)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Real and effective uid.
pub(super) fn uids(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut uids = line.split_ascii_whitespace().map(str::parse);
    Some((uids.next()?.ok()?, uids.next()?.ok()?))
}

/// Whether one argument is exactly this text.
pub(super) fn has_argument(pid: u32, text: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|&b| b == 0).any(|arg| arg == text.as_bytes()))
}

/// The link to the executable.
pub(super) fn exe(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Every process there is now.
pub(super) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_blanks_and_parentheses() {
        let line = "7 (a) Z (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 4711 1 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                state: 'S',
                threads: 3,
                start_time: 4711
            })
        );
        assert_eq!(parse_stat("7 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_is_not_dead() {
        let zombie = |threads| Stat {
            state: 'Z',
            threads,
            start_time: 1,
        };
        assert!(zombie(1).is_dead() && !zombie(2).is_dead());
    }
}
