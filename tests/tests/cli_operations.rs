//! Operations (R-SVC-6): begun and left alone, asked for again with a key, watched by several, cancelled.

mod api;

use api::{Lines, connect, import_header, post, tar};
use banger_testkit::{Home, wait_until};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// Longest a test waits for something the daemon does by itself.
const SOON: Duration = Duration::from_secs(30);

fn started() -> Home {
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    home
}

fn operation(home: &Home, id: &str) -> Value {
    let shown = home.banger(&["operation", "show", id, "--json"]).exits(0);
    shown.json()[0].clone()
}

fn ended(home: &Home, id: &str) -> Value {
    wait_until("the operation to end", SOON, || {
        let shown = operation(home, id);
        match shown["outcome"] == "running" {
            true => Err(shown.to_string()),
            false => Ok(shown),
        }
    })
}

/// An import of which half has been sent, and the rest.
fn half_import<'a>(home: &Home, headers: &str, tar: &'a [u8]) -> (UnixStream, &'a [u8]) {
    let mut stream = connect(home);
    let (sent, rest) = tar.split_at(tar.len() / 2);
    let head = format!(
        "POST /v1/image.import HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        tar.len()
    );
    stream
        .write_all(&[head.as_bytes(), sent].concat())
        .expect("half of an import");
    (stream, rest)
}

fn running_id(home: &Home) -> String {
    wait_until("an operation to run", SOON, || {
        let listed = home
            .banger(&["operation", "list", "--json"])
            .exits(0)
            .json();
        let all = listed.as_array().expect("a list").clone();
        let running = all.iter().find(|op| op["outcome"] == "running");
        running
            .and_then(|op| op["id"].as_str().map(str::to_owned))
            .ok_or_else(|| listed.to_string())
    })
}

fn rest_of(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// Who does not wait is told the operation, and asks later what came of it.
#[test]
fn an_operation_is_begun_and_left_alone() {
    let home = started();
    let tar = tar(&home);
    let headers = format!("{}prefer: respond-async\r\n", import_header(&["mine"]));
    let begun = post(&home, "image.import", &headers, &tar);
    assert_eq!(begun.status, 202, "{begun:?}");
    let begun = begun.json();
    assert_eq!(
        (&begun["method"], &begun["detached"]),
        (&json!("image.import"), &json!(true))
    );
    let id = begun["id"].as_str().expect("an id");
    let made = ended(&home, id);
    assert_eq!(made["outcome"], "succeeded", "{made}");
    assert_eq!(made["result"]["names"], json!(["mine"]));

    // One that fails is no failure of its beginning.
    let leave = "prefer: foo, respond-async; wait=10\r\n";
    let begun = post(&home, "image.delete", leave, br#"{"image":"nobody"}"#);
    assert_eq!(begun.status, 202);
    let begun = begun.json();
    let id = begun["id"].as_str().expect("an id");
    let failed = ended(&home, id);
    assert_eq!(failed["outcome"], "failed");
    assert_eq!(failed["error"]["code"], "not_found");
    assert_eq!(failed["error"]["op_id"], json!(id));
    let text = home.banger(&["operation", "show", id]).exits(0).out();
    assert!(
        text.contains("outcome  failed") && text.contains("nobody"),
        "{text}"
    );
    // A preference that no method has is left aside.
    assert_eq!(post(&home, "vm.list", leave, b"{}").status, 200);
    home.finish();
}

/// The same key and request is the same operation; another request is refused, and so is a key where none belongs.
#[test]
fn a_key_makes_a_request_safe_to_repeat() {
    let home = started();
    let tar = tar(&home);
    let key = "idempotency-key: \"k-1\"\r\n";
    let mine = format!("{}{key}", import_header(&["mine"]));
    let first = post(&home, "image.import", &mine, &tar);
    assert_eq!(first.lines().last(), Some(&json!({ "event": "done" })));
    let again = post(&home, "image.import", &mine, &tar);
    let image = |events: &[Value]| events.iter().find(|e| e["event"] == "image").cloned();
    assert_eq!(image(&again.lines()), image(&first.lines()), "{again:?}");
    let other = format!("{}{key}", import_header(&["yours"]));
    let refused = post(&home, "image.import", &other, &tar);
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (409, &json!("conflict"))
    );
    // Without it the names are taken.
    assert_eq!(
        post(&home, "image.import", &import_header(&["mine"]), &tar).status,
        409
    );

    // However the request is written.
    let delete = |body: &[u8]| post(&home, "image.delete", "idempotency-key: k-2\r\n", body);
    let deleted = delete(br#"{"image":"mine","force":true}"#);
    assert_eq!(
        (deleted.status, &deleted.json()["gone"]),
        (200, &json!(true))
    );
    assert_eq!(
        delete(br#"{ "force": true, "image": "mine" }"#).json(),
        deleted.json()
    );
    assert_eq!(delete(br#"{"image":"mine"}"#).status, 409);
    assert_eq!(
        post(&home, "image.delete", "", br#"{"image":"mine"}"#).status,
        404
    );
    let failed = |_| {
        let header = "idempotency-key: k-3\r\n";
        post(&home, "image.delete", header, br#"{"image":"nobody"}"#)
    };
    let [first, second] = [0, 1].map(failed);
    assert_eq!(
        (first.status, first.json()),
        (404, second.json()),
        "one failure, told twice"
    );

    let keys = home
        .banger(&["operation", "list", "--json"])
        .exits(0)
        .json();
    let all = keys.as_array().expect("a list");
    assert_eq!(
        all.iter().filter(|op| op["key"] == "k-2").count(),
        1,
        "{keys}"
    );
    for (method, header) in [
        ("vm.list", key.to_owned()),
        ("image.delete", "idempotency-key: a b\r\n".to_owned()),
        (
            "image.delete",
            format!("idempotency-key: {}\r\n", "k".repeat(256)),
        ),
    ] {
        assert_eq!(
            post(&home, method, &header, b"{}").status,
            400,
            "{method} {header}"
        );
    }
    home.finish();
}

/// Several watch; who reads nothing stops nobody, and hears of the end all the same.
#[test]
fn an_operation_is_watched_by_several_to_its_end() {
    let home = started();
    let tar = tar(&home);
    let (mut import, rest) = half_import(&home, &import_header(&["mine"]), &tar);
    let id = running_id(&home);
    let body = json!({ "id": id }).to_string();
    let slow = Lines::ask(&home, "operation.watch", "", body.as_bytes());
    let mut quick = Lines::ask(&home, "operation.watch", "", body.as_bytes());
    let stands = quick.next().expect("how it stands");
    assert_eq!(stands["event"], "progress", "{stands}");
    let people = home.start(&["operation", "watch", &id[..6]], b"");
    let program = home.start(&["operation", "watch", &id, "--json"], b"");
    import.write_all(rest).expect("the rest");
    assert!(rest_of(import).contains(r#"{"event":"done"}"#));
    let done = json!({ "event": "done" });
    assert_eq!(quick.rest().last(), Some(&done));
    assert_eq!(slow.rest().last(), Some(&done));
    people.finish().exits(0);
    let lines = program.finish().exits(0).out();
    assert!(lines.ends_with(r#"{"event":"done"}"#), "{lines}");
    // And whoever comes late.
    home.banger(&["operation", "watch", &id]).exits(0);
    home.finish();
}

/// R-OPS-2, R-SVC-6: cancelled, its client, its watchers and the list say so.
#[test]
fn an_operation_is_cancelled() {
    let home = started();
    let tar = tar(&home);
    let (import, _rest) = half_import(&home, &import_header(&["mine"]), &tar);
    let id = running_id(&home);
    let watcher = home.start(&["operation", "watch", &id], b"");
    let cancelled = home.banger(&["operation", "cancel", &id[..5]]).exits(0);
    assert_eq!(cancelled.out(), id);
    let told = rest_of(import);
    assert!(told.contains("the operation was cancelled"), "{told}");
    let watched = watcher.finish().exits(125).err();
    assert!(
        watched.contains("cancelled") && watched.contains(&id),
        "{watched}"
    );
    assert_eq!(ended(&home, &id)["outcome"], "cancelled");
    let table = home.banger(&["operation", "list"]).exits(0).out();
    assert!(
        table.contains("image.import") && table.contains("cancelled"),
        "{table}"
    );
    // What is not there, and what cannot be meant.
    for wrong in ["0123456789ab", "xyz", "0"] {
        for verb in ["show", "watch", "cancel"] {
            let refused = home.banger(&["operation", verb, wrong]).exits(125).err();
            assert!(refused.contains("banger operation list"), "{refused}");
        }
    }
    home.finish();
}

/// An operation belongs to its connection, unless it was begun to be left.
#[test]
fn a_client_that_leaves_takes_its_operation_along() {
    let home = started();
    let tar = tar(&home);
    let (import, _rest) = half_import(&home, &import_header(&["mine"]), &tar);
    let id = running_id(&home);
    let watcher = home.start(&["operation", "watch", &id], b"");
    drop(import);
    assert_eq!(ended(&home, &id)["outcome"], "cancelled");
    watcher.finish().exits(125);
    // A watcher that leaves takes nothing along.
    let (mut import, rest) = half_import(&home, &import_header(&["mine"]), &tar);
    let id = running_id(&home);
    let body = json!({ "id": id }).to_string();
    let mut watcher = Lines::ask(&home, "operation.watch", "", body.as_bytes());
    watcher.next().expect("an event");
    drop(watcher);
    import.write_all(rest).expect("the rest");
    assert!(rest_of(import).contains(r#"{"event":"done"}"#));
    home.finish();
}

/// R-OPS-2: every line of an operation carries its id, and can be asked for.
#[test]
fn the_log_tells_operations_apart() {
    let home = started();
    let mut ids = Vec::new();
    for image in ["nobody", "somebody"] {
        let failed = home.banger(&["image", "delete", image]).exits(125).err();
        let id = failed.lines().find_map(|l| l.strip_prefix("operation: "));
        ids.push(id.expect("its id").to_owned());
    }
    let log = |args: &[&str]| {
        home.banger(&[&["daemon", "logs"][..], args].concat())
            .exits(0)
            .out()
    };
    let first = log(&["--operation", &ids[0]]);
    assert_eq!(first.lines().count(), 2, "{first}");
    assert!(
        first.contains("WARN failed") && first.contains("nobody"),
        "{first}"
    );
    assert!(
        first
            .lines()
            .all(|l| l.ends_with(&format!("method=image.delete op={}", ids[0])))
    );
    let json = log(&["--json", "--operation", &ids[1][..8]]);
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert!(
        lines.iter().all(|l| l["span"]["op"] == json!(ids[1])),
        "{json}"
    );
    assert_eq!(
        (&lines[0]["message"], &lines[1]["level"]),
        (&json!("began"), &json!("WARN"))
    );
    assert!(log(&[]).contains("listening"));
    assert!(
        log(&["--json"])
            .lines()
            .all(|l| serde_json::from_str::<Value>(l).is_ok())
    );
    home.banger(&["daemon", "logs", "--operation", "nobody"])
        .exits(2);
    home.finish();
}
