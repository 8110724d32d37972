//! The part of `differential.rs` that needs device-mapper: in the test host, where no device is
//! anybody else's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "differential/mod.rs"]
#[allow(dead_code, reason = "the other groups need no test host")]
mod differential;

use differential::{devices::DeviceGroup, run};

#[test]
fn devices_answer_alike() {
    if std::env::var_os("BANGER_TEST_HOST").is_none() {
        common::skip("devices_answer_alike: needs the test host: cargo xtask testhost run");
        return;
    }
    run("devices", 6, 80, || DeviceGroup::new(true));
}
