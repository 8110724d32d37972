//! The sockets of this machine that wait for others, with their processes.

use banger_wire::guest::{Ports, Protocol};

use super::{owners, sockets, text};

/// Most rows of an answer.
const MAX_ROWS: usize = 1000;

/// Looks once.
pub fn listening() -> Ports {
    let mut bound = Vec::new();
    for (protocol, table) in [
        (Protocol::Tcp, "/proc/net/tcp"),
        (Protocol::Tcp, "/proc/net/tcp6"),
        (Protocol::Udp, "/proc/net/udp"),
        (Protocol::Udp, "/proc/net/udp6"),
    ] {
        bound.extend(sockets::parse(protocol, &text(table)));
    }
    sockets::sort(&mut bound, &|a, b| a.inode.cmp(&b.inode));
    let given_up = owners::find(&mut bound);
    let (sockets, cut) = sockets::rows(bound, MAX_ROWS, process_name);
    Ports {
        sockets,
        truncated: given_up || cut,
    }
}

fn process_name(pid: u32) -> Option<String> {
    let name = text(&format!("/proc/{pid}/comm"));
    let name = name.trim_end_matches('\n');
    (!name.is_empty()).then(|| name.to_owned())
}
