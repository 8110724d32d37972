//! Fields of `/proc/<pid>/stat` (proc(5)), by the numbers that they have there.

/// What the kernel says of a process.
#[derive(Debug)]
pub struct Stat(Vec<String>);

/// The first field behind the name, which may hold anything but ends at the last `)`.
const BEHIND_NAME: usize = 3;

impl Stat {
    /// Of the process that has this number now, if there is one.
    pub fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(") ")?;
        Some(Stat(rest.split(' ').map(str::to_owned).collect()))
    }

    fn field(&self, number: usize) -> Option<u64> {
        self.0.get(number - BEHIND_NAME)?.trim().parse().ok()
    }

    /// When it started, in clock ticks since boot.
    pub fn start_time(&self) -> Option<u64> {
        self.field(22)
    }

    /// Processor time since it started, its own and the kernel's for it, in clock ticks.
    pub fn cpu(&self) -> Option<u64> {
        Some(self.field(14)?.saturating_add(self.field(15)?))
    }

    /// Memory it holds, in pages.
    pub fn resident(&self) -> Option<u64> {
        self.field(24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_a_nasty_name() {
        let text = "77 (a) 1 b) S 1 77 77 0 -1 4194560 900 0 1 0 12 34 0 0 20 0 3 0 5555 1000 2000 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.start_time(), Some(5555));
        assert_eq!(stat.cpu(), Some(46));
        assert_eq!(stat.resident(), Some(2000));
        let cut = Stat::parse("77 (x) S 1 77 77 0 -1 4194560 900 0 1 0 x 34").unwrap();
        assert_eq!((cut.cpu(), cut.start_time()), (None, None));
        assert!(Stat::parse("").is_none() && Stat::parse("77 (x").is_none());
    }
}
