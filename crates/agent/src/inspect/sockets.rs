//! `/proc/net/{tcp,tcp6,udp,udp6}` → sockets that wait for others → the rows that are shown. Pure.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use banger_wire::guest::{ListeningSocket, Protocol};

/// A bound socket, as one line of a table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    pub uid: u32,
    pub inode: u64,
    /// A process that holds it, once one is found.
    pub pid: Option<u32>,
}

/// The sockets of a table that wait for others. The first line is the heading; so is everything that cannot be read.
pub fn parse(protocol: Protocol, table: &str) -> impl Iterator<Item = Bound> {
    table.lines().filter_map(move |line| bound(protocol, line))
}

fn bound(protocol: Protocol, line: &str) -> Option<Bound> {
    // net/tcp_states.h: TCP_LISTEN; a UDP socket without a peer is TCP_CLOSE.
    let waits = match protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    // After the state: queues, timer, retransmissions.
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    (state == waits).then_some(Bound {
        protocol,
        address: ip(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        uid,
        inode,
        pid: None,
    })
}

/// Each 32 bits of an address are written as the number they are in memory.
fn ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let part = digits.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(part, 16).ok()?.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, to) in bytes.chunks_exact_mut(4).enumerate() {
                to.copy_from_slice(&word(at)?);
            }
            // A socket for both families that was bound to an IPv4 address.
            Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// Sorts. One function for every order: a sort per order would take kilobytes of an initramfs each.
pub fn sort(bound: &mut [Bound], order: &dyn Fn(&Bound, &Bound) -> Ordering) {
    bound.sort_unstable_by(order);
}

/// The rows that are shown: each once, in order, the two wildcards of one process as one; at most `limit`, and whether
/// there were more.
pub fn rows(
    mut bound: Vec<Bound>,
    limit: usize,
    name: impl Fn(u32) -> Option<String>,
) -> (Vec<ListeningSocket>, bool) {
    // The wildcards of one process stand side by side: an IPv4 address is less than one of IPv6.
    sort(&mut bound, &|a, b| {
        let key = |b: &Bound| {
            (
                b.port,
                b.protocol,
                !b.address.is_unspecified(),
                b.pid,
                b.address,
            )
        };
        key(a).cmp(&key(b))
    });
    bound.dedup_by(|a, b| same(a, b) && a.address == b.address);
    let mut rows: Vec<(Bound, bool)> = Vec::with_capacity(bound.len());
    for socket in bound {
        let wildcards = |b: &Bound| b.address.is_ipv4() && b.address.is_unspecified();
        let second = socket.address.is_unspecified() && socket.address.is_ipv6();
        match rows.last_mut() {
            Some((first, both)) if second && wildcards(first) && same(first, &socket) => {
                *both = true
            }
            _ => rows.push((socket, false)),
        }
    }
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let shown = rows.into_iter().map(|(b, both)| ListeningSocket {
        protocol: b.protocol,
        address: if both {
            "*".to_owned()
        } else {
            b.address.to_string()
        },
        port: b.port,
        uid: b.uid,
        pid: b.pid,
        process: b.pid.and_then(&name),
    });
    (shown.collect(), truncated)
}

fn same(a: &Bound, b: &Bound) -> bool {
    (a.protocol, a.port, a.pid, a.uid) == (b.protocol, b.port, b.pid, b.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0\n   \
        1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000000000000000 20 4 30 10 -1\n   \
        2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0000000000000000 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23 1 0000000000000000 100 0 0 10 0\n   \
        1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 80 1 0000000000000000 100 0 0 10 0\n   \
        2: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 631 1 0000000000000000 100 0 0 10 0\n";
    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
        101: 0F02000A:0044 0202000A:0043 01 00000000:00000000 00:00000000 00000000     0        0 68 2 0000000000000000 0\n  \
        102: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 5353 2 0000000000000000 0\n";

    fn by(bound: Bound, pid: u32) -> Bound {
        Bound {
            pid: Some(pid),
            ..bound
        }
    }

    fn said(protocol: Protocol, table: &str) -> Vec<(String, u16, u32, u64)> {
        parse(protocol, table)
            .map(|b| (b.address.to_string(), b.port, b.uid, b.inode))
            .collect()
    }

    #[test]
    fn tables_of_the_kernel() {
        let row = |address: &str, port, uid, inode| (address.to_owned(), port, uid, inode);
        assert_eq!(
            said(Protocol::Tcp, TCP),
            [
                row("127.0.0.1", 8080, 1000, 4711),
                row("0.0.0.0", 22, 0, 22)
            ]
        );
        assert_eq!(
            said(Protocol::Tcp, TCP6),
            [
                row("::", 22, 0, 23),
                row("127.0.0.1", 80, 33, 80),
                row("::1", 631, 0, 631)
            ]
        );
        assert_eq!(said(Protocol::Udp, UDP), [row("0.0.0.0", 5353, 101, 5353)]);
    }

    /// sshd's pair is one row; two processes of one port are two; a forked worker's copy is one.
    #[test]
    fn one_row_for_each_thing_that_listens() {
        let sshd = parse(Protocol::Tcp, TCP).chain(parse(Protocol::Tcp, TCP6));
        let mut all: Vec<_> = sshd.map(|b| by(b, 7)).collect();
        all.extend(parse(Protocol::Udp, UDP));
        all.push(all[0]);
        let other = Bound {
            inode: 99,
            ..all[0]
        };
        all.push(by(other, 3));
        let name = |pid| (pid == 7).then(|| "sshd".to_owned());
        let (rows, truncated) = rows(all, 10, name);
        let said: Vec<_> = rows
            .iter()
            .map(|r| {
                (
                    r.protocol.to_string(),
                    r.address.as_str(),
                    r.port,
                    r.pid,
                    r.process.as_deref(),
                )
            })
            .collect();
        let row = |protocol: &str, address, port, pid, name| {
            (protocol.to_owned(), address, port, pid, name)
        };
        assert_eq!(
            said,
            [
                row("tcp", "*", 22, Some(7), Some("sshd")),
                row("tcp", "127.0.0.1", 80, Some(7), Some("sshd")),
                row("tcp", "::1", 631, Some(7), Some("sshd")),
                row("udp", "0.0.0.0", 5353, None, None),
                row("tcp", "127.0.0.1", 8080, Some(3), None),
                row("tcp", "127.0.0.1", 8080, Some(7), Some("sshd")),
            ]
        );
        assert!(!truncated);
    }

    #[test]
    fn wildcards_of_different_processes_stay_apart() {
        let v4 = parse(Protocol::Tcp, TCP).nth(1).unwrap();
        let v6 = parse(Protocol::Tcp, TCP6).next().unwrap();
        let (apart, _) = rows(vec![by(v4, 1), by(v6, 2)], 10, |_| None);
        let addresses: Vec<_> = apart.iter().map(|r| r.address.as_str()).collect();
        assert_eq!(addresses, ["0.0.0.0", "::"]);
        let (cut, truncated) = rows(vec![by(v4, 1), by(v6, 2)], 1, |_| None);
        assert!(truncated && cut.len() == 1);
    }

    proptest! {
        /// Whatever a table holds, what is read from it is no more than its lines, and nothing panics.
        #[test]
        fn junk_is_passed_over(text in "(?s).{0,400}", cut in 0usize..600) {
            for table in [TCP, TCP6, UDP] {
                let half: String = table.chars().take(cut).chain(text.chars()).collect();
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let found: Vec<_> = parse(protocol, &half).collect();
                    prop_assert!(found.len() <= half.lines().count());
                    let _ = rows(found, 5, |_| None);
                }
            }
        }

        /// Every address comes back from the form the kernel writes it in.
        #[test]
        fn addresses(v4: [u8; 4], v6: [u8; 16]) {
            let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes(bytes.try_into().unwrap()));
            prop_assert_eq!(ip(&word(&v4)), Some(IpAddr::from(v4)));
            let text: String = v6.chunks(4).map(word).collect();
            prop_assert_eq!(ip(&text), Some(IpAddr::from(v6).to_canonical()));
        }
    }
}
