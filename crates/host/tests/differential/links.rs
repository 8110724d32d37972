//! Taps, bridges and our nftables table; runs in a network namespace of its own.

use super::{Answer, Group, Pair, Rng, VMS, done, labels};
use banger_host::{ErrorKind, Firewall, LinkSeen, Links};
use banger_model::{Instance, Label, Owner, Role, TapName};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
};

/// A namespace of its own: no need to be anybody else's.
const INSTANCES: [Instance; 2] = [
    Instance::from_bytes([0xd1; 4]),
    Instance::from_bytes([0xd2; 4]),
];

#[derive(Debug)]
pub enum Op {
    TapCreate(usize, usize),
    SetMaster(usize, usize, usize),
    ClearMaster(usize, usize),
    LinkDelete(usize, usize),
    BridgeCreate(usize, usize),
    BridgeDelete(usize, usize),
    Ruleset(usize, usize),
    RulesetSwap(usize, usize, usize),
}

pub struct LinkGroup {
    pair: Pair,
    labels: Vec<Label>,
    /// Names of bridges; the last two are also those of taps.
    names: Vec<String>,
    tables: Vec<String>,
    with_nft: bool,
    /// Links that were there before.
    before: Vec<String>,
    /// What each daemon swapped to: it knows these texts again.
    swapped: [BTreeMap<usize, BTreeSet<String>>; 2],
}

impl LinkGroup {
    pub fn new(with_nft: bool) -> Self {
        let mut labels = labels(&INSTANCES, &[Role::Tap]);
        labels.extend(INSTANCES.map(|instance| Label {
            instance,
            owner: Owner::Pool,
            role: Role::BridgePort,
        }));
        let mut names = vec!["br-one".to_owned(), "br-two".to_owned()];
        names.extend(VMS.map(|vm| TapName::of_vm(vm).to_string()));
        let mut tables: Vec<_> = INSTANCES.map(|i| format!("banger1_{i}")).to_vec();
        tables.push("filter".to_owned());
        let pair = Pair::new(Path::new("/"), Path::new("/"));
        let before: Vec<String> = (pair.real[0].links().unwrap().into_iter())
            .map(|link| link.name)
            .collect();
        assert!(before.iter().all(|name| !names.contains(name)));
        LinkGroup {
            pair,
            labels,
            names,
            tables,
            with_nft,
            before,
            swapped: Default::default(),
        }
    }

    /// None, two tables, and a text that is not of this table.
    fn text(&self, table: usize, text: usize) -> String {
        let name = match text {
            0 => return String::new(),
            3 => "another",
            _ => &self.tables[table],
        };
        format!(
            "table ip {name} {{\n\tset guests {{ type ipv4_addr; elements = {{ 172.16.0.{text} }} }}\n}}\n"
        )
    }

    fn apply<H: Links + Firewall>(&self, host: &H, op: &Op) -> Answer {
        let tap = |n: usize| TapName::of_vm(VMS[n]);
        let label = |n: usize| &self.labels[n];
        let gateway = Ipv4Addr::new(172, 16, 0, 1);
        match *op {
            Op::TapCreate(n, l) => done(host.tap_create(&tap(n), label(l), 0)),
            Op::SetMaster(n, l, b) => done(host.set_master(&tap(n), label(l), &self.names[b])),
            Op::ClearMaster(n, l) => done(host.clear_master(&tap(n), label(l))),
            Op::LinkDelete(n, l) => done(host.link_delete(&tap(n), label(l))),
            Op::BridgeCreate(b, l) => {
                done(host.bridge_create(&self.names[b], label(l), gateway, 24))
            }
            Op::BridgeDelete(b, l) => done(host.bridge_delete(&self.names[b], label(l))),
            Op::Ruleset(_, t) => host
                .ruleset(&self.tables[t])
                .map(|text| text.unwrap_or_default())
                .map_err(|e| e.kind),
            Op::RulesetSwap(_, t, text) => {
                done(host.ruleset_swap(&self.tables[t], &self.text(t, text)))
            }
        }
    }

    fn seen(&self, links: Vec<LinkSeen>) -> Vec<String> {
        let ours = links.into_iter().filter(|l| !self.before.contains(&l.name));
        ours.map(|l| format!("{l:?}")).collect()
    }
}

impl Op {
    const fn host(&self) -> usize {
        match self {
            Op::Ruleset(host, _) | Op::RulesetSwap(host, ..) => *host,
            _ => 0,
        }
    }
}

impl Group for LinkGroup {
    type Op = Op;

    fn draw(&mut self, rng: &mut Rng) -> Op {
        let tap = rng.below(VMS.len());
        // Mostly the label that one would give it.
        let label = match rng.once_in(4) {
            true => rng.below(self.labels.len()),
            false => tap,
        };
        let bridge = if rng.once_in(5) {
            2 + rng.below(2)
        } else {
            rng.below(2)
        };
        let pool = match rng.once_in(4) {
            true => rng.below(self.labels.len()),
            false => self.labels.len() - 2 + bridge % 2,
        };
        let (host, table) = (rng.below(2), rng.pick(&[0, 0, 0, 1, 1, 1, 2]));
        match rng.below(if self.with_nft { 22 } else { 20 }) {
            0..=3 => Op::TapCreate(tap, label),
            4..=8 => Op::SetMaster(tap, label, bridge),
            9..=10 => Op::ClearMaster(tap, label),
            11..=12 => Op::LinkDelete(tap, label),
            13..=17 => Op::BridgeCreate(bridge, pool),
            18..=19 => Op::BridgeDelete(bridge, pool),
            20 => Op::Ruleset(host, table),
            _ => Op::RulesetSwap(host, table, rng.below(4)),
        }
    }

    fn sim(&mut self, op: &Op) -> Answer {
        self.apply(&self.pair.sim[op.host()], op)
    }

    fn real(&mut self, op: &Op, sim: &Answer) -> Answer {
        let answer = self.apply(&self.pair.real[op.host()], op);
        match (op, sim, &answer) {
            (Op::RulesetSwap(host, table, text), _, Ok(_)) => {
                let text = self.text(*table, *text);
                self.swapped[*host].entry(*table).or_default().insert(text);
            }
            // A daemon that did not swap to this text only knows that there is one.
            (Op::Ruleset(host, table), Ok(text), Ok(listing))
                if !listing.is_empty()
                    && !self.swapped[*host]
                        .get(table)
                        .is_some_and(|s| s.contains(text)) =>
            {
                return sim.clone();
            }
            _ => {}
        }
        answer
    }

    fn seen_sim(&mut self) -> Vec<String> {
        self.seen(self.pair.sim[0].links().unwrap())
    }

    fn seen_real(&mut self) -> Vec<String> {
        self.seen(self.pair.real[0].links().unwrap())
    }
}

impl Drop for LinkGroup {
    fn drop(&mut self) {
        // The namespace outlives a script, not the test.
        let Ok(links) = self.pair.real[0].links() else {
            return;
        };
        for link in links.iter().filter(|l| !self.before.contains(&l.name)) {
            let Ok(label) = link.alias.parse() else {
                continue;
            };
            let deleted = self.pair.real[0].bridge_delete(&link.name, &label);
            if deleted.is_err_and(|e| e.kind != ErrorKind::NotFound) {
                for vm in VMS {
                    let _ = self.pair.real[0].link_delete(&TapName::of_vm(vm), &label);
                }
            }
        }
        for table in &self.tables {
            let _ = self.pair.real[0].ruleset_swap(table, "");
        }
    }
}
