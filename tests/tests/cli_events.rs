//! What happens is told as it happens: to programs and people, over the ends of daemons, never at anybody's cost.

#![allow(
    clippy::disallowed_types,
    reason = "a reader that is ended, as a user would"
)]

mod api;

use api::{Lines, import_header, post, tar};
use banger_testkit::Home;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

/// Longest that so many requests may take on a machine under load.
const SOON: Duration = Duration::from_secs(60);

/// `banger events`, read line by line.
struct Reader {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Reader {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("banger events");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Reader { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "it ended");
        line
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line()).expect("JSON");
            if wanted(&event) {
                return event;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |value| value["event"] == event
}

#[test]
fn what_happens_is_told_to_programs_and_people() {
    let home = Home::bare();
    // The first of them starts the daemon.
    let mut program = Reader::start(&home, &["events", "--json"]);
    program.until(is("listening"));
    let mut person = Reader::start(&home, &["events"]);
    let listening = person.line();
    assert!(
        listening.contains("Z  listening to the daemon (pid "),
        "{listening}"
    );
    let tar = tar(&home);
    let made = post(&home, "image.import", &import_header(&["mine"]), &tar).lines();
    assert_eq!(made.last(), Some(&json!({ "event": "done" })));
    let began = program.until(is("operation.began"));
    assert_eq!(
        (&began["method"], &began["outcome"]),
        (&json!("image.import"), &json!("running"))
    );
    let created = program.until(is("image.created"));
    assert_eq!(created["names"], json!(["mine"]));
    let ended = program.until(is("operation.ended"));
    assert_eq!(
        (&ended["op_id"], &ended["outcome"]),
        (&began["op_id"], &json!("succeeded"))
    );
    home.banger(&["image", "delete", "mine"]).exits(0);
    let deleted = program.until(is("image.deleted"));
    assert_eq!(deleted["id"], created["id"]);
    home.banger(&["image", "delete", "nobody"]).exits(125);
    let failed = program.until(|e| e["outcome"] == "failed");
    assert!(
        failed["error"]
            .as_str()
            .is_some_and(|e| e.contains("nobody")),
        "{failed}"
    );
    for part in [
        "began: image.import",
        "image mine (",
        "succeeded: image.import",
        "began: image.delete",
    ] {
        let line = person.line();
        assert!(line.contains(part), "{line} for {part}");
    }
    home.finish();
}

/// It goes on with the next daemon, says so, and starts none: who stopped the daemon wanted that.
#[test]
fn a_reader_outlives_daemons() {
    let home = Home::bare();
    let mut reader = Reader::start(&home, &["events", "--json"]);
    let first = reader.until(is("listening"))["pid"].clone();
    home.banger(&["daemon", "stop"]).exits(0);
    assert_eq!(reader.until(is("daemon.stopping"))["operations"], 0);
    std::thread::sleep(Duration::from_millis(500));
    home.banger(&["daemon", "status"]).exits(3);
    home.banger(&["vm", "list"]).exits(0);
    let again = reader.until(is("reconnected"))["pid"].clone();
    assert_ne!(again, first);
    // A daemon that is killed says nothing.
    home.kill_daemon();
    home.banger(&["vm", "list"]).exits(0);
    assert_ne!(reader.until(is("reconnected"))["pid"], again);
    home.banger(&["image", "delete", "nobody"]).exits(125);
    reader.until(is("operation.ended"));
    home.finish();
}

/// Bounded: a reader that does not read holds up nobody, and is told how much it has missed.
#[test]
fn a_reader_that_does_not_read_loses_and_is_told() {
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    let mut stalled = Lines::ask(&home, "events", "", b"{}");
    stalled.until("the beginning", is("listening"));
    const ASKED: u64 = 1500;
    let begun = Instant::now();
    for _ in 0..ASKED {
        let gone = post(&home, "image.delete", "", br#"{"image":"nobody"}"#);
        assert_eq!(gone.status, 404);
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let (mut lost, mut heard) = (0, 0);
    // Each of them began and ended.
    while lost + heard < 2 * ASKED {
        let notice = stalled.next().expect("what is kept");
        match notice["count"].as_u64() {
            Some(count) => lost += count,
            None => heard += 1,
        }
    }
    assert_eq!(lost + heard, 2 * ASKED, "nothing twice");
    assert!(lost > 0 && heard > 200, "{lost} lost, {heard} heard");
    // Who has caught up hears everything.
    home.banger(&["image", "delete", "nobody"]).exits(125);
    assert_eq!(
        stalled.next().expect("a notice")["event"],
        "operation.began"
    );
    home.finish();
}

/// The log can be followed, over the ends of daemons.
#[test]
fn the_log_is_followed() {
    let home = Home::bare();
    let mut log = Reader::start(&home, &["daemon", "logs", "-f", "--json"]);
    home.banger(&["vm", "list"]).exits(0);
    log.until(|line| line["message"] == "listening");
    home.banger(&["image", "delete", "nobody"]).exits(125);
    let failed = log.until(|line| line["level"] == "WARN");
    assert_eq!(failed["span"]["method"], "image.delete");
    home.banger(&["daemon", "stop"]).exits(0);
    log.until(|line| line["message"] == "ended");
    home.banger(&["vm", "list"]).exits(0);
    log.until(|line| line["message"] == "listening");
    home.finish();
}

/// R-OPS-2: Prometheus can read the metrics, and they count what happened.
#[test]
fn metrics_are_what_prometheus_reads() {
    let home = Home::bare();
    home.banger(&["daemon", "metrics"]).exits(125);
    home.banger(&["vm", "list"]).exits(0);
    let metrics = || api::metrics(&home.banger(&["daemon", "metrics"]).exits(0).out());
    assert_eq!(metrics()[r#"banger_vms{state="running"}"#], 0.0);
    home.banger(&["image", "delete", "nobody"]).exits(125);
    post(&home, "vm.fly", "", b"{}");
    let now = metrics();
    for (sample, value) in [
        (
            r#"banger_operations_total{method="image.delete",outcome="failed"}"#,
            1.0,
        ),
        (
            r#"banger_api_requests_total{method="image.delete",code="404"}"#,
            1.0,
        ),
        (
            r#"banger_api_requests_total{method="unknown",code="404"}"#,
            1.0,
        ),
        ("banger_operations_running", 0.0),
        ("banger_read_only", 0.0),
    ] {
        assert_eq!(now.get(sample), Some(&value), "{sample} in {now:#?}");
    }
    assert!(
        now["banger_disk_free_bytes"] > 0.0
            && now["banger_disk_free_bytes"] < now["banger_disk_size_bytes"]
    );
    let memory = now["process_resident_memory_bytes"];
    assert!((1e6..25.0 * 1024.0 * 1024.0).contains(&memory), "{memory}");
    let head = api::exchange(
        &home,
        b"GET /metrics HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n\r\n",
    );
    assert!(
        head.head.contains("text/plain; version=0.0.4"),
        "{}",
        head.head
    );
    assert_eq!(api::promtool(&head.body), Ok(()));
    home.finish();
}
