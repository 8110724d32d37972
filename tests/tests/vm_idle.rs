//! VMs that nobody uses are stopped (R-SVC-7), and only those.

use banger_testkit::{Home, wait_until};
use std::{fs, time::Duration};

fn stopped(home: &Home, vm: &str) -> Result<(), String> {
    match &home.show(vm)["state"] {
        state if state == "stopped" => Ok(()),
        state => Err(format!("it is {state}")),
    }
}

/// A VM under a long command stays although the command says nothing; a VM that is only looked at goes, in order, with
/// the reason; what it wrote is there when it is started, and the start counts as a use.
#[test]
fn a_vm_that_nobody_uses_is_stopped_with_its_data() {
    let home = Home::new();
    fs::write(home.config(), "auto_stop_stale_after = \"4s\"\n").expect("config");
    home.banger(&["vm", "create", "--name", "idle"]).exits(0);
    home.guest_sh("idle", "echo kept >/root/note").exits(0);
    home.banger(&["vm", "create", "--name", "busy"]).exits(0);
    let busy = home.start(&["vm", "exec", "busy", "--", "sleep", "20"], b"");
    wait_until("the idle VM to be stopped", Duration::from_secs(60), || {
        // Looking is no use of it.
        home.banger(&["vm", "health", "idle"]);
        stopped(&home, "idle")
    });
    let shown = home.show("idle");
    assert_eq!(shown["reason"]["kind"], "idle", "{shown}");
    let text = shown["reason"]["text"].as_str().expect("a text");
    assert!(text.contains("nobody used it for 4s"), "{text}");
    assert_eq!(home.show("busy")["state"], "running");

    home.banger(&["vm", "start", "idle"]).exits(0);
    assert_eq!(
        home.guest_sh("idle", "cat /root/note").exits(0).out(),
        "kept"
    );
    busy.finish_within(Duration::from_secs(90)).exits(0);
    wait_until(
        "the other to be stopped too",
        Duration::from_secs(60),
        || stopped(&home, "busy"),
    );
    home.banger(&["vm", "delete", "--force", "idle", "busy"])
        .exits(0);
    home.finish();
}
