//! The daemon's answers about VMs, and what `--json` prints of them, fit the published schemas.

mod api;

use api::{Document, WITH_A_VM, file, json_table};
use banger_testkit::Home;
use serde_json::json;

#[test]
fn answers_about_a_vm_fit_the_published_schemas() {
    let home = Home::new();
    let document = Document::read();
    home.banger(&["vm", "list"]).exits(0);
    let mut called = Vec::new();
    let vm = json!({ "vm": "dev" });
    let mut call = |method: &'static str, request: serde_json::Value| {
        called.push(method);
        let answer = document.call(&home, method, &request);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer
    };
    let shape = json!({ "name": "dev", "memory": 256 << 20 });
    let created = call("vm.create", json!({ "shape": shape })).lines();
    let told: Vec<&str> = created.iter().filter_map(|e| e["event"].as_str()).collect();
    for event in ["accepted", "spec", "progress", "done"] {
        assert!(told.contains(&event), "{told:?}");
    }
    call("vm.list", json!({ "running": true }));
    for method in ["vm.show", "vm.health", "vm.ports", "vm.logs", "vm.stats"] {
        call(method, vm.clone());
    }
    call("vm.stop", vm.clone());
    call("vm.show", vm.clone());
    let started = call("vm.start", vm.clone()).lines();
    assert_eq!(started.last().expect("an event")["vm"]["state"], "running");
    let waits = json!({ "vm": "dev", "for": "healthy", "timeout_ms": 30_000 });
    call("vm.wait", waits);
    let restarted = call("vm.restart", vm.clone()).lines();
    assert_eq!(
        restarted.last().expect("an event")["vm"]["state"],
        "running"
    );
    call("vm.rename", json!({ "vm": "dev", "name": "other" }));
    call("vm.rename", json!({ "vm": "other", "name": "dev" }));
    call("vm.kill", vm);
    call("vm.prune", json!({ "dry_run": true }));
    call("vm.list", json!({}));
    call("vm.delete", json!({ "vm": "dev" }));
    for method in WITH_A_VM {
        assert!(called.contains(method), "{method}");
    }
    home.finish();
}

/// The rows of the table of `docs/api.md` that name a VM.
#[test]
fn json_about_a_vm_fits_the_published_schemas() {
    let home = Home::new();
    let document = Document::read();
    let mut tried = 0;
    for (command, schema) in json_table(&file("docs/api.md")) {
        let words: Vec<&str> = command
            .split_whitespace()
            .skip(1)
            .map(|w| match w {
                "VM" | "[NAME]" | "NAME" => "dev",
                other => other,
            })
            .collect();
        if !command.contains("VM") && !command.contains("vm create") {
            continue;
        }
        let said = home.banger(&words).exits(0).json();
        document.fits(&schema, &said);
        tried += 1;
    }
    assert!(tried >= 10, "{tried}");
    home.finish();
}
