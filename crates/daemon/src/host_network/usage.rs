//! What a process uses: proc(5), for one that is known by number and start time.

use banger_model::ProcessHandle;

/// A tick of `/proc/<pid>/stat` in milliseconds: USER_HZ is 100 on x86.
const TICK_MS: u64 = 10;
/// A page on x86.
const PAGE: u64 = 4096;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory it holds, in bytes.
    pub memory: u64,
    /// Processor time since it started, its own and the kernel's for it, in milliseconds.
    pub cpu_ms: u64,
}

/// What this process uses; `None` if it is not that process any more.
pub fn usage(process: ProcessHandle) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    of(&stat, process.start_time)
}

/// Fields 14, 15, 22 and 24; the name before them may hold anything but ends at the last `)`.
fn of(stat: &str, start_time: u64) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    if field(22)? != start_time {
        return None;
    }
    Some(Usage {
        memory: field(24)?.saturating_mul(PAGE),
        cpu_ms: field(14)?
            .saturating_add(field(15)?)
            .saturating_mul(TICK_MS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_a_nasty_name() {
        let stat = "77 (a) 1 b) S 1 77 77 0 -1 4194560 900 0 1 0 12 34 0 0 20 0 3 0 5555 1000 2000 18446744073709551615";
        let usage = Usage {
            memory: 2000 * 4096,
            cpu_ms: 460,
        };
        assert_eq!(of(stat, 5555), Some(usage));
        assert_eq!(of(stat, 5556), None, "another process of that number");
        for junk in [
            "",
            "77 (x",
            "77 (x) S 1",
            "77 (x) S 1 77 77 0 -1 4194560 900 0 1 0 x 34",
        ] {
            assert_eq!(of(junk, 5555), None);
        }
    }

    #[test]
    fn this_process_uses_memory() {
        let pid = std::process::id();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let start_time = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(19)
            .unwrap();
        let me = ProcessHandle {
            pid,
            start_time: start_time.parse().unwrap(),
        };
        assert!(usage(me).unwrap().memory > 0);
    }
}
