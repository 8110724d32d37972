//! What the host has, and what of it a VM gets where nobody says otherwise (R-CLI-7).

use banger_model::ByteSize;

/// What this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSize {
    /// CPUs, at least 1.
    pub cpus: u32,
    /// Memory.
    pub memory: ByteSize,
}

impl HostSize {
    /// This machine.
    pub fn of_this_machine() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        HostSize {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory: total_memory(&meminfo).unwrap_or(ByteSize::gib(2)),
        }
    }

    /// A quarter of the CPUs, 1 to 4.
    pub fn vcpus(self) -> u32 {
        (self.cpus / 4).clamp(1, 4)
    }

    /// An eighth of the memory in whole MiB, 512 MiB to 8 GiB.
    pub fn guest_memory(self) -> ByteSize {
        let eighth = ByteSize::mib(self.memory.as_mib() / 8);
        eighth.clamp(ByteSize::mib(512), ByteSize::gib(8))
    }
}

/// `MemTotal` of `/proc/meminfo` (proc(5)); its unit is KiB whatever it says.
fn total_memory(meminfo: &str) -> Option<ByteSize> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(ByteSize(kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_derived_values_stay_in_bounds() {
        let small = HostSize {
            cpus: 1,
            memory: ByteSize::gib(1),
        };
        assert_eq!(
            (small.vcpus(), small.guest_memory()),
            (1, ByteSize::mib(512))
        );
        let large = HostSize {
            cpus: 128,
            memory: ByteSize::gib(512),
        };
        assert_eq!((large.vcpus(), large.guest_memory()), (4, ByteSize::gib(8)));
        let text = "MemTotal:       16303416 kB\nMemFree: 1 kB\n";
        assert_eq!(total_memory(text), Some(ByteSize(16_303_416 * 1024)));
    }
}
