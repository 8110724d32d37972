//! The daemon's answers about VMs, and what `--json` prints of them, fit the published schemas.

mod api;

use api::{Document, Lines, WITH_A_VM, file, json_table, metrics, post};
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
    for method in [
        "vm.show",
        "vm.health",
        "vm.ports",
        "vm.logs",
        "vm.stats",
        "vm.ssh",
    ] {
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
    call("vm.set", json!({ "vm": "dev", "vcpus": 1, "nat": true }));
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

/// R-SVC-6 with a VM: begun and left, watched, repeated; and its life as `events` tells it.
#[test]
fn a_create_is_begun_left_watched_and_told() {
    let home = Home::new();
    home.banger(&["vm", "list"]).exits(0);
    let mut events = Lines::ask(&home, "events", "", b"{}");
    let headers = "prefer: respond-async\r\nidempotency-key: one\r\n";
    let request = br#"{"shape":{"name":"dev","memory":268435456}}"#;
    let begun = post(&home, "vm.create", headers, request);
    assert_eq!(begun.status, 202, "{begun:?}");
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(post(&home, "vm.create", headers, request).json()["id"], id);
    let watched = home.banger(&["operation", "watch", &id]).exits(0).err();
    assert!(watched.contains("boot: booting"), "{watched}");
    let shown = home
        .banger(&["operation", "show", &id, "--json"])
        .exits(0)
        .json();
    assert_eq!(shown[0]["result"]["state"], "running", "{shown}");
    let again = post(&home, "vm.create", "idempotency-key: one\r\n", request).lines();
    assert_eq!(again.last().expect("an event")["vm"]["name"], "dev");
    let mut changes = |last: &str| {
        let mut seen = Vec::new();
        loop {
            let told = events.until("a VM", |e| e["event"] == "vm" && e["name"] == "dev");
            seen.push(told["change"].as_str().expect("a change").to_owned());
            if seen.last().is_some_and(|change| change == last) {
                return (seen, told);
            }
        }
    };
    assert_eq!(changes("running").0, ["created", "starting", "running"]);

    let metrics = metrics(&home.banger(&["daemon", "metrics"]).exits(0).out());
    assert_eq!(metrics[r#"banger_vms{state="running"}"#], 1.0);
    let of_vm = |family: &str| {
        metrics
            .iter()
            .find(|(name, _)| name.starts_with(family))
            .map(|(_, v)| *v)
    };
    assert_eq!(of_vm("banger_vm_memory_bytes{"), Some(268_435_456.0));
    assert!(of_vm("banger_vmm_resident_memory_bytes{") > Some(2e7));
    assert!(of_vm("banger_vmm_cpu_seconds_total{") > Some(0.0));

    home.guest_sh("dev", "kill -USR2 1 || poweroff").exits(0);
    let (seen, stopped) = changes("stopped");
    assert_eq!(
        stopped["reason"]["kind"], "guest-power-off",
        "{seen:?} {stopped}"
    );
    home.banger(&["vm", "delete", "dev"]).exits(0);
    let (seen, deleted) = changes("deleted");
    assert_eq!(
        (seen, &deleted["state"]),
        (
            vec!["deleting".to_owned(), "deleted".to_owned()],
            &serde_json::Value::Null
        )
    );
    home.finish();
}

/// Who gives a key means to come back: the create goes on when its client leaves, one without a key does not.
#[test]
fn a_create_with_a_key_goes_on_without_its_client() {
    let home = Home::new();
    home.banger(&["vm", "list"]).exits(0);
    let create = |name: &str, headers: &str| {
        let shape = json!({ "shape": { "name": name, "memory": 256 << 20 } }).to_string();
        let mut events = Lines::ask(&home, "vm.create", headers, shape.as_bytes());
        let accepted = events.until("acceptance", |e| e["event"] == "accepted");
        accepted["op_id"].as_str().expect("an id").to_owned()
    };
    let left = create("left", "");
    let kept = create("kept", "idempotency-key: \"two\"\r\n");
    home.banger(&["operation", "watch", &kept]).exits(0);
    home.banger(&["operation", "watch", &left]).exits(125);
    let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&json!("kept"), &json!("running"))
    );
    // R-OPS-2: and the log has all of it under its id.
    let log = home
        .banger(&["daemon", "logs", "--operation", &kept])
        .exits(0)
        .out();
    for words in ["began", "created name=kept", "the VMM was started", "done"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    home.finish();
}

/// `docs/api.md`, where it needs a VM.
#[test]
fn the_document_shows_what_happens_to_a_vm() {
    let home = Home::new();
    home.banger(&["vm", "list"]).exits(0);
    api::doc::run(&home, "```console vm");
    home.finish();
}
