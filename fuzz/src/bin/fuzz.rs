//! libFuzzer's program; `BANGER_FUZZ_TARGET` names the target. Run by `scripts/fuzz`.
#![no_main]

use banger_fuzz::{TARGETS, Target};
use std::sync::OnceLock;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("BANGER_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => {
            let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("BANGER_FUZZ_TARGET is none of {}", known.join(", "));
            std::process::exit(2)
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.get_or_init(chosen)(data));
