//! Which lease a new VM gets.

use banger_model::{Lease, MacAddress, VmId};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The guest network: the bridge's own address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The host's address on the bridge; never leased.
    pub host: Ipv4Addr,
    /// Prefix length in bits, at most 30.
    pub prefix: u8,
}

/// What is leased, and what was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseBook {
    /// Addresses of every row, tombstones included: a dying VM still holds its own.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// vsock context ids of every row.
    pub cids: BTreeSet<u32>,
    /// Addresses that were leased once and are free again, longest free first.
    pub released: Vec<Ipv4Addr>,
}

/// There is nothing left to lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Every address is taken.
    #[error(
        "all {0} guest addresses are taken; delete a VM or set a shorter `cidr` in the configuration"
    )]
    Addresses(u32),
    /// Every context id is taken.
    #[error("all vsock context ids are taken")]
    Cids,
}

/// linux/vm_sockets.h: 0 to 2 are reserved, the last one means "any".
const CIDS: std::ops::Range<u32> = 3..u32::MAX;

/// The next lease: the address that has been free the longest (one never leased before any that
/// was), so that a stale cache somewhere has had the most time to forget it.
pub fn lease(pool: &Pool, vm: VmId, book: &LeaseBook) -> Result<Lease, LeaseError> {
    Ok(Lease {
        ip: free_address(pool, book)?,
        mac: MacAddress::of_vm(vm),
        cid: CIDS
            .into_iter()
            .find(|cid| !book.cids.contains(cid))
            .ok_or(LeaseError::Cids)?,
    })
}

fn free_address(pool: &Pool, book: &LeaseBook) -> Result<Ipv4Addr, LeaseError> {
    let free = |ip: &Ipv4Addr| pool.leases(*ip) && !book.addresses.contains(ip);
    let used_before: BTreeSet<_> = book.released.iter().copied().collect();
    let fresh = pool
        .hosts()
        .find(|ip| free(ip) && !used_before.contains(ip));
    fresh
        .or_else(|| book.released.iter().copied().find(free))
        .ok_or(LeaseError::Addresses(pool.size()))
}

impl Pool {
    fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
    }

    /// First and last address between the network's and the broadcast's.
    fn bounds(&self) -> (u32, u32) {
        let network = u32::from(self.host) & self.mask();
        (
            network.saturating_add(1),
            (network | !self.mask()).saturating_sub(1),
        )
    }

    /// Addresses that could be leased, the host's own excepted, lowest first.
    fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let (first, last) = self.bounds();
        let host = self.host;
        (first..=last)
            .map(Ipv4Addr::from)
            .filter(move |ip| *ip != host)
    }

    /// Whether an address is one of this network's guests'.
    pub fn leases(&self, ip: Ipv4Addr) -> bool {
        let (first, last) = self.bounds();
        ip != self.host && (first..=last).contains(&u32::from(ip))
    }

    fn size(&self) -> u32 {
        let (first, last) = self.bounds();
        let addresses = (last + 1).saturating_sub(first);
        addresses.saturating_sub(u32::from((first..=last).contains(&u32::from(self.host))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POOL: Pool = Pool {
        host: Ipv4Addr::new(172, 16, 0, 1),
        prefix: 29,
    };

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 0, last)
    }

    fn next(pool: &Pool, book: &LeaseBook) -> Result<Lease, LeaseError> {
        lease(pool, VmId::from_bytes([1; 6]), book)
    }

    #[test]
    fn never_leased_before_released_and_the_longest_free_first() {
        let mut book = LeaseBook {
            addresses: [ip(2), ip(4)].into(),
            released: vec![ip(6), ip(3)],
            ..LeaseBook::default()
        };
        assert_eq!(next(&POOL, &book).unwrap().ip, ip(5));
        book.addresses.insert(ip(5));
        assert_eq!(next(&POOL, &book).unwrap().ip, ip(6));
        book.addresses.insert(ip(6));
        assert_eq!(next(&POOL, &book).unwrap().ip, ip(3));
        book.addresses.insert(ip(3));
        assert_eq!(next(&POOL, &book), Err(LeaseError::Addresses(5)));
    }

    #[test]
    fn odd_networks_have_no_surprises() {
        let at = |host: Ipv4Addr, prefix| Pool { host, prefix };
        let book = LeaseBook::default();
        for full in [32, 31] {
            assert!(next(&at(ip(1), full), &book).is_err(), "/{full}");
        }
        assert_eq!(next(&at(ip(1), 30), &book).unwrap().ip, ip(2));
        assert_eq!(next(&at(ip(2), 30), &book).unwrap().ip, ip(1));
        let whole = at(Ipv4Addr::new(10, 0, 0, 1), 0);
        assert_eq!(next(&whole, &book).unwrap().ip, Ipv4Addr::new(0, 0, 0, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The generator knows which addresses it leased: the next is none of them, nor the
        /// network's, the host's or the broadcast.
        #[test]
        fn a_lease_is_free_and_inside(
            taken in prop::collection::btree_set(2..7_u8, 0..5),
            released in prop::collection::vec(0..=255_u8, 0..6),
            cids in prop::collection::btree_set(3..9_u32, 0..6),
        ) {
            let book = LeaseBook {
                addresses: taken.iter().map(|n| ip(*n)).collect(),
                cids: cids.clone(),
                released: released.into_iter().map(ip).collect(),
            };
            match next(&POOL, &book) {
                Ok(lease) => {
                    prop_assert!((2..=6).contains(&lease.ip.octets()[3]));
                    prop_assert!(!book.addresses.contains(&lease.ip));
                    prop_assert!(lease.cid >= 3 && !cids.contains(&lease.cid));
                }
                Err(error) => {
                    prop_assert_eq!(error, LeaseError::Addresses(5));
                    prop_assert_eq!(taken.len(), 5);
                }
            }
        }
    }
}
