//! What this machine uses: counts of the kernel, as they stand.

use banger_wire::guest::{DiskUse, GuestStats, NetworkUse};
use rustix::fs::{stat, statvfs};

use super::{processes, text};
use crate::guest::uptime_ms;

/// A tick of `/proc/stat` in milliseconds: USER_HZ is 100 on x86.
const TICK_MS: u64 = 10;
/// Most interfaces of an answer; container engines make one per container.
const MAX_INTERFACES: usize = 256;

/// Looks once.
pub fn now() -> GuestStats {
    let cpu = cpu(&text("/proc/stat"));
    let memory = text("/proc/meminfo");
    let memory = |field| memory_field(&memory, field).unwrap_or(0);
    let swap_total = memory("SwapTotal:");
    GuestStats {
        uptime_ms: uptime_ms(),
        cpus: cpu.count,
        cpu_busy_ms: cpu.busy_ticks.saturating_mul(TICK_MS),
        cpu_total_ms: cpu.total_ticks.saturating_mul(TICK_MS),
        load_hundredths: load(&text("/proc/loadavg")),
        processes: u32::try_from(processes().count()).unwrap_or(u32::MAX),
        memory_total: memory("MemTotal:"),
        memory_available: memory("MemAvailable:"),
        swap_total,
        swap_used: swap_total.saturating_sub(memory("SwapFree:")),
        disks: disks(),
        network: network(&text("/proc/net/dev")),
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Cpu {
    count: u32,
    busy_ticks: u64,
    total_ticks: u64,
}

/// `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. Guests of the guest are in user and nice. Time
/// that the host took away (steal) is no work of this machine.
fn cpu(stat: &str) -> Cpu {
    let mut cpu = Cpu::default();
    for line in stat.lines() {
        let Some(rest) = line.strip_prefix("cpu") else {
            continue;
        };
        if !rest.starts_with(' ') {
            cpu.count += 1;
            continue;
        }
        let ticks = rest.split_ascii_whitespace().take(8);
        for (at, ticks) in ticks.enumerate() {
            let ticks = ticks.parse().unwrap_or(0_u64);
            cpu.total_ticks = cpu.total_ticks.saturating_add(ticks);
            if !matches!(at, 3 | 4 | 7) {
                cpu.busy_ticks = cpu.busy_ticks.saturating_add(ticks);
            }
        }
    }
    cpu
}

/// A field of `/proc/meminfo`, in bytes.
fn memory_field(meminfo: &str, field: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// `/proc/loadavg`: always two digits after the point.
fn load(loadavg: &str) -> [u32; 3] {
    let mut load = [0; 3];
    for (to, from) in load.iter_mut().zip(loadavg.split_ascii_whitespace()) {
        let hundredths = from.split_once('.').and_then(|(whole, part)| {
            let part: u32 = part.get(..2)?.parse().ok()?;
            whole
                .parse::<u32>()
                .ok()?
                .checked_mul(100)?
                .checked_add(part)
        });
        *to = hundredths.unwrap_or(0);
    }
    load
}

/// `/proc/net/dev`: `name: 8 counts received, 8 counts sent`, bytes first.
fn network(dev: &str) -> Vec<NetworkUse> {
    let interfaces = dev.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let mut counts = counts.split_ascii_whitespace().map(str::parse);
        Some(NetworkUse {
            name: name.trim().to_owned(),
            rx_bytes: counts.next()?.ok()?,
            tx_bytes: counts.nth(7)?.ok()?,
        })
    });
    interfaces
        .filter(|interface| interface.name != "lo")
        .take(MAX_INTERFACES)
        .collect()
}

/// The system's file system, and that at `/root` if it is one of its own.
fn disks() -> Vec<DiskUse> {
    let device = |path: &str| stat(path).map(|found| found.st_dev).ok();
    let mut disks: Vec<_> = disk("/").into_iter().collect();
    if device("/root").is_some_and(|root| Some(root) != device("/")) {
        disks.extend(disk("/root"));
    }
    disks
}

fn disk(path: &str) -> Option<DiskUse> {
    let found = statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(DiskUse {
        path: path.to_owned(),
        total: bytes(found.f_blocks),
        used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        available: bytes(found.f_bavail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "cpu  100 5 50 1000 20 3 2 40 7 0\ncpu0 60 5 30 500 10 3 2 20 7 0\n\
        cpu1 40 0 20 500 10 0 0 20 0 0\nintr 5 1 2\nctxt 9\nbtime 1\nprocesses 77\n";
    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:18446744073709551615 30 0 0 0 0 0 0 900 10 0 0 0 0 0 0\n";

    #[test]
    fn texts_of_the_kernel() {
        let expected = Cpu {
            count: 2,
            busy_ticks: 160,
            total_ticks: 1220,
        };
        assert_eq!(cpu(STAT), expected);
        let meminfo = "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     250 kB\nHugePages_Total: 3\n";
        assert_eq!(memory_field(meminfo, "MemTotal:"), Some(1_024_000));
        assert_eq!(memory_field(meminfo, "MemAvailable:"), Some(256_000));
        assert_eq!(memory_field(meminfo, "HugePages_Total:"), None);
        assert_eq!(memory_field(meminfo, "SwapTotal:"), None);
        assert_eq!(load("0.05 1.50 12.34 2/123 4567\n"), [5, 150, 1234]);
        let interfaces = network(DEV);
        assert_eq!(interfaces.len(), 1);
        let eth0 = &interfaces[0];
        assert_eq!(
            (eth0.name.as_str(), eth0.rx_bytes, eth0.tx_bytes),
            ("eth0", u64::MAX, 900)
        );
    }

    proptest! {
        #[test]
        fn junk_is_passed_over(junk in "(?s).{0,300}", cut in 0usize..500) {
            for text in [STAT, DEV, "MemTotal: 5 kB\n", "0.05 1.5"] {
                let half: String = text.chars().take(cut).chain(junk.chars()).collect();
                let seen = cpu(&half);
                prop_assert!(seen.busy_ticks <= seen.total_ticks);
                let _ = (memory_field(&half, "MemTotal:"), load(&half), network(&half));
            }
        }
    }
}
