//! Scripts from a seed.

use super::{
    script::{Deed, Script, Verb, When},
    site::{Profile, vm_id},
};
use banger_host::sim::Guest;

/// A small generator of random numbers (xorshift64*), the same everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A script of several VMs with overlapping requests. An id is given out once only.
    pub fn script(&mut self, n: u32) -> Script {
        let profile = self.pick(&[Profile::Everywhere, Profile::Cloned, Profile::Everything]);
        let mut made = 0;
        let mut deeds = vec![(When::Quiet, self.create(&mut made, profile))];
        for _ in 0..3 + self.below(4) {
            deeds.push((self.when(), self.deed(&mut made, profile)));
        }
        let kinds = [
            Guest::Healthy,
            Guest::Healthy,
            Guest::Stubborn,
            Guest::Mute,
            Guest::Rootless,
            Guest::Decays,
            Guest::Ends,
            Guest::Stuck(20_000),
        ];
        let guests: Vec<_> = (1..=made)
            .map(|n| (vm_id(0, n), self.pick(&kinds)))
            .collect();
        Script::new(&format!("random {n} {profile:?}"), &deeds).with_guests(&guests)
    }

    fn when(&mut self) -> When {
        match self.below(3) {
            0 => When::Quiet,
            _ => When::After(self.below(20) as u32),
        }
    }

    fn create(&mut self, made: &mut u8, profile: Profile) -> Deed {
        let name = self.pick(&["one", "two"]);
        *made += 1;
        Deed::Ask(0, *made, Verb::Create(name, profile))
    }

    fn deed(&mut self, made: &mut u8, profile: Profile) -> Deed {
        let n = 1 + self.below(u64::from(*made)) as u8;
        match self.below(12) {
            0..=2 => self.create(made, profile),
            3 | 4 => Deed::Ask(0, n, Verb::Stop),
            5 | 6 => Deed::Ask(0, n, Verb::Start),
            10 if self.below(2) == 0 => Deed::Ask(0, n, Verb::Set(2)),
            7 => Deed::Ask(0, n, Verb::Kill),
            8 | 9 => Deed::Ask(0, n, Verb::Delete),
            10 => Deed::GuestEnds(0, n),
            _ => self.pick(&[Deed::KillDaemons, Deed::PowerLoss]),
        }
    }
}
