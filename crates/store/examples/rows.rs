//! `rows DATABASE NAME COUNT`: writes COUNT stopped copies of a VM's row, for measuring with many rows. The daemon
//! must not be running. `./bench` uses it.
#![allow(
    clippy::unwrap_used,
    reason = "a tool for developers: the panic says what failed"
)]

use banger_model::{Generation, Goal, Lease, MacAddress, Phase, Vm, VmId};
use banger_store::Store;
use std::net::Ipv4Addr;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, name, count] = arguments.as_slice() else {
        eprintln!("usage: rows DATABASE NAME COUNT");
        std::process::exit(2);
    };
    let store = Store::open(database).unwrap();
    let original = store.by_name(&name.parse().unwrap()).unwrap().unwrap();
    for n in 0..count.parse().unwrap() {
        store.insert_vm(&copy(&original, n)).unwrap();
    }
}

/// The n-th copy: name, id and leases of its own, everything else as it was.
fn copy(original: &Vm, n: u32) -> Vm {
    let [_, _, high, low] = n.to_be_bytes();
    let id = VmId::from_bytes([0xfe, 0xed, 0, 0, high, low]);
    Vm {
        id,
        name: format!("row-{n}").parse().unwrap(),
        goal: Goal::Stopped,
        phase: Phase::Stopped,
        generation: Generation::FIRST,
        lease: Lease {
            // Addresses of tests (RFC 2544): no pool has them.
            ip: Ipv4Addr::new(198, 18, high, low),
            mac: MacAddress::of_vm(id),
            cid: 0x1000_0000 + n,
        },
        ..original.clone()
    }
}
