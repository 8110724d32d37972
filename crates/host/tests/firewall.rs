//! The nftables table, in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{ErrorKind, Firewall, linux::LinuxHost};
use common::{in_namespace, run};
use std::path::Path;

fn host() -> LinuxHost {
    common::host(Path::new("/"))
}

/// True, and the reason said, where there is no nft.
fn no_nft(test: &str) -> bool {
    let found = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    let missing = !found.iter().any(|path| Path::new(path).exists());
    if missing {
        common::skip(&format!("{test}: no nft (package nftables)"));
    }
    missing
}

fn text(table: &str, guest: &str) -> String {
    format!(
        "table ip {table} {{\n\
         \tset guests {{ type ipv4_addr; elements = {{ {guest} }} }}\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr @guests oifname != \"br-test\" masquerade\n\
         \t}}\n}}\n"
    )
}

#[test]
fn the_table_is_swapped_whole() {
    needs_root!("the_table_is_swapped_whole");
    if no_nft("the_table_is_swapped_whole") {
        return;
    }
    in_namespace(|| {
        let host = host();
        let table = format!("banger1_{}", common::instance());
        run(&host, "nft", &["add", "table", "ip", "theirs"]);
        assert_eq!(host.ruleset(&table).unwrap(), None);
        host.ruleset_swap(&table, "").unwrap();
        let (one, two) = (text(&table, "172.16.0.2"), text(&table, "172.16.0.3"));
        host.ruleset_swap(&table, &one).unwrap();
        assert_eq!(host.ruleset(&table).unwrap().as_ref(), Some(&one));
        host.ruleset_swap(&table, &two).unwrap();
        assert_eq!(host.ruleset(&table).unwrap().as_ref(), Some(&two));
        let listing = run(&host, "nft", &["list", "table", "ip", &table]);
        assert!(
            listing.contains("172.16.0.3") && !listing.contains("172.16.0.2"),
            "{listing}"
        );
        let instance = table.strip_prefix("banger1_").unwrap();
        assert!(
            listing.contains(&format!("banger1/{instance}/pool/nft-view ")),
            "{listing}"
        );
        // One that does not load changes nothing.
        let bad = one.replace("masquerade", "no such statement");
        let error = host.ruleset_swap(&table, &bad).unwrap_err();
        assert!(
            error.source.to_string().starts_with("run nft"),
            "{}",
            error.source
        );
        assert_eq!(host.ruleset(&table).unwrap().as_ref(), Some(&two));
        // Someone replaced it: then it is not what was rendered.
        run(&host, "nft", &["delete", "table", "ip", &table]);
        assert_eq!(host.ruleset(&table).unwrap(), None);
        host.ruleset_swap(&table, &two).unwrap();
        // A daemon that was started again does not know the text, and swaps once.
        let later = self::host();
        assert_ne!(later.ruleset(&table).unwrap().as_ref(), Some(&two));
        later.ruleset_swap(&table, &two).unwrap();
        assert_eq!(later.ruleset(&table).unwrap().as_ref(), Some(&two));
        later.ruleset_swap(&table, "").unwrap();
        assert_eq!(later.ruleset(&table).unwrap(), None);
        let tables = run(&host, "nft", &["list", "tables"]);
        assert_eq!(tables.trim(), "table ip theirs", "others' tables stay");
    });
}

#[test]
fn a_table_without_our_label_is_foreign() {
    needs_root!("a_table_without_our_label_is_foreign");
    if no_nft("a_table_without_our_label_is_foreign") {
        return;
    }
    in_namespace(|| {
        let host = host();
        let table = format!("banger1_{}", common::instance());
        run(&host, "nft", &["add", "table", "ip", &table]);
        for new in [String::new(), text(&table, "172.16.0.2")] {
            let error = host.ruleset_swap(&table, &new).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Foreign);
        }
        let other = format!("banger1_{}", common::instance());
        assert!(
            host.ruleset_swap(&table, &text(&other, "172.16.0.2"))
                .is_err()
        );
    });
}
