//! What a process uses: proc(5), for one that is known by number and start time.

use super::stat::Stat;
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
    let stat = Stat::of(process.pid)?;
    (stat.start_time()? == process.start_time).then(|| of(&stat))?
}

/// What the daemon itself uses.
pub fn own_usage() -> Option<Usage> {
    of(&Stat::of(std::process::id())?)
}

fn of(stat: &Stat) -> Option<Usage> {
    Some(Usage {
        memory: stat.resident()?.saturating_mul(PAGE),
        cpu_ms: stat.cpu()?.saturating_mul(TICK_MS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_that_number_is_not_it() {
        let pid = std::process::id();
        let start_time = Stat::of(pid).unwrap().start_time().unwrap();
        assert!(usage(ProcessHandle { pid, start_time }).unwrap().memory > 0);
        let start_time = start_time + 1;
        assert_eq!(usage(ProcessHandle { pid, start_time }), None);
        assert!(own_usage().unwrap().memory > 0);
    }
}
