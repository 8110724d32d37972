//! The instance's nftables table, rendered whole from (guest address, tap) pairs.

use banger_model::{Goal, Instance, NetworkDriver, Phase, TapName, Vm};
use std::{collections::BTreeSet, fmt::Write, net::Ipv4Addr};

/// A guest that may reach beyond the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatPair {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its tap, named beside the address for whoever reads the table.
    pub tap: TapName,
}

/// The pairs the rows ask for. Rows alone decide, so that the view is the same whoever renders it:
/// a VM is in it from *starting* until something else is asked of it or it is seen dead.
pub fn nat_pairs<'a>(vms: impl IntoIterator<Item = &'a Vm>) -> BTreeSet<NatPair> {
    vms.into_iter()
        .filter(|vm| in_view(vm))
        .map(|vm| NatPair {
            ip: vm.lease.ip,
            tap: TapName::of_vm(vm.id),
        })
        .collect()
}

fn in_view(vm: &Vm) -> bool {
    vm.spec.nat
        && vm.spec.drivers.network == NetworkDriver::Bridge
        && vm.goal == Goal::Running
        && matches!(vm.phase, Phase::Starting | Phase::Running)
}

/// Name of an instance's table.
pub fn table_name(instance: Instance) -> String {
    format!("banger1_{instance}")
}

/// The table's text (nft(8) syntax) without the flush that a swap puts before it; empty if there is
/// nobody to serve, and then there is to be no table.
///
/// Packets from the bridge pass only with the address of a guest that may reach beyond the host;
/// answers pass back; guests do not reach each other (their ports are isolated as well).
pub fn ruleset(table: &str, bridge: &str, pairs: &BTreeSet<NatPair>) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let guests: Vec<_> = pairs
        .iter()
        .map(|pair| format!("{} comment \"{}\"", pair.ip, pair.tap))
        .collect();
    let guests = guests.join(", ");
    let mut text = String::new();
    let mut line = |content: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{content}");
    };
    line(&format!("table ip {table} {{"));
    line(&format!(
        "\tset guests {{ type ipv4_addr; elements = {{ {guests} }} }}"
    ));
    line("\tchain forward {");
    line("\t\ttype filter hook forward priority filter; policy accept;");
    line(&format!(
        "\t\tiifname \"{bridge}\" oifname \"{bridge}\" drop"
    ));
    line(&format!("\t\tiifname \"{bridge}\" ip saddr @guests accept"));
    line(&format!("\t\tiifname \"{bridge}\" drop"));
    line(&format!(
        "\t\toifname \"{bridge}\" ct state established,related accept"
    ));
    line(&format!("\t\toifname \"{bridge}\" drop"));
    line("\t}");
    line("\tchain postrouting {");
    line("\t\ttype nat hook postrouting priority srcnat; policy accept;");
    line(&format!(
        "\t\tip saddr @guests oifname != \"{bridge}\" masquerade"
    ));
    line("\t}");
    line("}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{EVERYTHING, INSTANCE, vm};
    use banger_model::Drivers;

    #[test]
    fn the_rows_decide_who_is_in_it() {
        let up = vm(1, EVERYTHING);
        let user = vm(2, Drivers::EVERYWHERE);
        let mut offline = vm(3, EVERYTHING);
        offline.spec.nat = false;
        let stopping = Vm {
            goal: Goal::Stopped,
            phase: Phase::Stopping,
            ..vm(4, EVERYTHING)
        };
        let dead = Vm {
            phase: Phase::Stopped,
            ..vm(5, EVERYTHING)
        };
        let pairs = nat_pairs([&up, &user, &offline, &stopping, &dead]);
        let ips: Vec<_> = pairs.iter().map(|pair| pair.ip).collect();
        assert_eq!(ips, [up.lease.ip]);
    }

    #[test]
    fn the_table_as_nft_reads_it() {
        let table = table_name(INSTANCE);
        assert_eq!(ruleset(&table, "br-fc", &BTreeSet::new()), "");
        let text = ruleset(
            &table,
            "br-fc",
            &nat_pairs([&vm(1, EVERYTHING), &vm(2, EVERYTHING)]),
        );
        assert_eq!(
            text,
            "\
table ip banger1_aaaaaaaa {
\tset guests { type ipv4_addr; elements = { 172.16.0.1 comment \"bgr010000000001\", 172.16.0.2 comment \"bgr020000000002\" } }
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname \"br-fc\" oifname \"br-fc\" drop
\t\tiifname \"br-fc\" ip saddr @guests accept
\t\tiifname \"br-fc\" drop
\t\toifname \"br-fc\" ct state established,related accept
\t\toifname \"br-fc\" drop
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr @guests oifname != \"br-fc\" masquerade
\t}
}
"
        );
    }
}
