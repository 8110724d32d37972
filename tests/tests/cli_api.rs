//! The daemon's answers, and what `--json` prints, fit the published schemas: everything that needs no VM.

mod api;

use api::{Document, Lines, file, import_header, post, tar};
use banger_testkit::{
    Home,
    kernel::{config, vmlinux},
};
use banger_wire::api::{METHODS, Shape};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Methods that answer with JSON or events and that are called below.
const HERE: &[&str] = &[
    "ping",
    "version",
    "daemon.status",
    "vm.list",
    "image.import",
    "image.pull",
    "image.list",
    "image.show",
    "image.set",
    "image.delete",
    "image.history",
    "image.build",
    "image.register",
    "image.promote",
    "image.catalog",
    "blob.prune",
    "kernel.import",
    "kernel.pull",
    "kernel.build",
    "kernel.list",
    "kernel.available",
    "kernel.show",
    "kernel.delete",
    "recover",
    "operation.list",
    "operation.show",
    "operation.watch",
    "operation.cancel",
    "events",
    "shutdown",
];

#[test]
fn every_method_that_answers_is_tried_against_its_schema() {
    let named: BTreeSet<&str> = HERE.iter().chain(api::WITH_A_VM).copied().collect();
    let table: BTreeSet<&str> = METHODS
        .iter()
        .filter(|(_, shape)| *shape != Shape::Frames)
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(named, table);
    let document = Document::read();
    let paths: BTreeSet<String> = document.0["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .filter_map(|path| path.strip_prefix("/v1/").map(str::to_owned))
        .collect();
    let all: BTreeSet<String> = METHODS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(paths, all);
}

#[test]
fn answers_fit_the_published_schemas() {
    let home = Home::bare();
    let document = Document::read();
    home.banger(&["vm", "list"]).exits(0);
    let events = Lines::ask(&home, "events", "", b"{}");
    let mut called = vec!["image.import", "kernel.import", "events"];
    let mut call = |method: &'static str, request: Value| {
        called.push(method);
        document.call(&home, method, &request)
    };
    for method in [
        "ping",
        "version",
        "daemon.status",
        "vm.list",
        "image.list",
        "operation.list",
    ] {
        assert_eq!(call(method, json!({})).status, 200, "{method}");
    }
    let nobody = json!({ "id": "0123456789ab" });
    assert_eq!(call("operation.cancel", nobody).status, 404);
    call("recover", json!({}));

    let imported = post(
        &home,
        "image.import",
        &import_header(&["mine"]),
        &tar(&home),
    );
    document.fits_answer("image.import", &imported);
    let last = imported.lines().pop().expect("an event");
    assert_eq!(last, json!({ "event": "done" }), "{imported:?}");
    let shown = call("image.show", json!({ "image": "mine" })).json();
    assert_eq!(shown["names"], json!(["mine"]));
    assert_eq!(call("image.list", json!({})).json(), json!([shown]));
    assert_eq!(
        call("image.history", json!({ "image": "mine" })).json(),
        json!([])
    );
    let listed = call("operation.list", json!({})).json();
    assert_eq!(listed[0]["method"], "image.import");
    let id = json!({ "id": listed[0]["id"] });
    let shown = call("operation.show", id.clone()).json();
    assert_eq!(shown["result"]["names"], json!(["mine"]));
    let watched = call("operation.watch", id).lines();
    assert_eq!(watched.last(), Some(&json!({ "event": "done" })));
    let pulled = call("image.pull", json!({ "reference": "127.0.0.1:1/none" }));
    let last = pulled.lines().pop().expect("an event");
    assert_eq!(last["event"], "failed", "{pulled:?}");
    for (method, request) in [
        ("image.build", json!({ "name": "x", "from": "nothing" })),
        ("image.register", json!({ "name": "x", "path": "/nowhere" })),
        ("image.promote", json!({ "image": "nope" })),
    ] {
        let last = call(method, request).lines().pop().expect("an event");
        assert_eq!(last["event"], "failed", "{method}");
    }
    // None is configured, and that is said.
    assert_eq!(call("image.catalog", json!({})).status, 412);
    assert_eq!(call("blob.prune", json!({ "all": true })).json(), json!([]));
    let (kernel, config) = (vmlinux("6.1", true), config(""));
    let header = "banger-request: {\"name\":\"mine\",\"force\":true}\r\n";
    let imported = post(&home, "kernel.import", header, &kernel);
    document.fits_answer("kernel.import", &imported);
    let made = imported.lines();
    assert_eq!(made.last(), Some(&json!({ "event": "done" })), "{made:?}");
    let shown = call("kernel.show", json!({ "kernel": "mine" })).json();
    assert_eq!(call("kernel.list", json!({})).json(), json!([shown]));
    call("kernel.available", json!({}));
    call("kernel.pull", json!({ "package": "-x", "name": "x" }));
    call("kernel.build", json!({ "name": "../x", "config": config }));
    call("image.set", json!({ "image": "mine", "kernel": "mine" }));
    assert_eq!(
        call("kernel.delete", json!({ "kernel": "mine" })).status,
        412
    );
    // A failed one has more to tell.
    call(
        "vm.create",
        json!({ "shape": { "name": "a", "image": "none" } }),
    );
    call("operation.list", json!({}));
    call("image.delete", json!({ "image": "mine", "force": true }));
    let begun = post(
        &home,
        "image.delete",
        "prefer: respond-async\r\n",
        br#"{"image":"none"}"#,
    );
    assert_eq!(begun.status, 202);
    document.fits_answer("image.delete", &begun);
    call("shutdown", json!({}));
    let events = events.rest();
    assert_eq!(events.last().expect("events")["event"], "daemon.stopping");
    events.iter().for_each(|e| document.fits("Notice", e));
    for method in HERE {
        assert!(called.contains(method), "{method}");
    }
    home.banger(&["vm", "list"]).exits(0);
    home.finish();
}

/// R-CLI: a refusal is what the document says, with the status of its kind.
#[test]
fn refusals_fit_the_published_schemas() {
    let home = Home::bare();
    let document = Document::read();
    home.banger(&["vm", "list"]).exits(0);
    for (method, shape) in METHODS.iter().filter(|(name, _)| *name != "shutdown") {
        let upgrade = if *shape == Shape::Frames {
            "upgrade: banger-frames\r\n"
        } else {
            ""
        };
        let refused = post(&home, method, upgrade, br#"{"no such field":1}"#);
        assert_eq!(refused.status, 400, "{method}");
        document.fits_answer(method, &refused);
        let other = post(&home, method, "banger-api: 99\r\n", b"{}");
        assert_eq!(other.status, 426, "{method}");
        document.fits_answer(method, &other);
    }
    home.finish();
}

/// A schema that fits everything would prove nothing.
#[test]
fn the_schemas_refuse_what_is_wrong() {
    let document = Document::read();
    for (name, wrong) in [
        ("VmId", json!("xyz")),
        ("VmCreate", json!({ "shap": {} })),
        ("ApiError", json!({ "code": "sorry", "message": "x" })),
        ("Event", json!({ "event": "done", "vm": 1 })),
        ("VmView", json!({})),
    ] {
        let refused = std::panic::catch_unwind(|| document.fits(name, &wrong)).is_err();
        assert!(refused, "{name} fits {wrong}");
    }
}

/// The table of `docs/api.md`: what the command line prints with `--json`.
#[test]
fn json_of_the_command_line_fits_the_published_schemas() {
    let home = Home::bare();
    let document = Document::read();
    let table = api::json_table(&file("docs/api.md"));
    let mut tried = 0;
    home.banger(&["image", "list"]).exits(0);
    let root = home.scratch().join("root");
    std::fs::create_dir_all(root.join("etc")).expect("a tree");
    let kernel = home.scratch().join("vmlinux");
    std::fs::write(&kernel, vmlinux("6.1", true)).expect("a kernel");
    for (command, schema) in &table {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        if words.iter().any(|w| *w == "VM" || *w == "create") {
            continue;
        }
        let path = root.display().to_string();
        let kernel = kernel.display().to_string();
        let id = match words.contains(&"ID") {
            true => newest_operation(&home),
            false => String::new(),
        };
        let words: Vec<&str> = words
            .into_iter()
            .map(|w| match w {
                "SOURCE" => &path,
                "IMAGE" => "root",
                "KERNEL" => &kernel,
                "ID" => &id,
                other => other,
            })
            .collect();
        let down = schema == "NotRunning";
        if down {
            home.banger(&["daemon", "stop"]).exits(0);
        }
        let said = home.banger(&words).exits(if down { 3 } else { 0 }).json();
        document.fits(schema, &said);
        if said.as_array().is_some_and(Vec::is_empty) {
            assert!(
                matches!(
                    words[..],
                    ["vm", "list", _] | ["ps", _] | ["image", "history", ..]
                ),
                "{command}"
            );
        }
        if down {
            home.banger(&["vm", "list"]).exits(0);
        }
        tried += 1;
    }
    assert!(tried >= 8, "{tried}");
    home.finish();
}

fn newest_operation(home: &Home) -> String {
    let listed = home
        .banger(&["operation", "list", "--json"])
        .exits(0)
        .json();
    let newest = listed.as_array().and_then(|all| all.last()?["id"].as_str());
    newest.expect("an operation").to_owned()
}

/// Every method is shown in `docs/api.md`, and what is shown is what happens.
#[test]
fn the_document_shows_what_happens() {
    let shown = api::doc::commands();
    for (method, _) in METHODS {
        let shows = |end: &str| shown.contains(&format!("http://banger/v1/{method}{end}"));
        assert!([" ", "\n", ""].iter().any(|end| shows(end)), "{method}");
    }
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    api::doc::run(&home, "```console");
    home.finish();
}
