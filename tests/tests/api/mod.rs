//! The daemon's HTTP as any client would speak it, and the published schemas that its words must fit.

#![allow(
    dead_code,
    reason = "each test binary that shares this module uses a part of it"
)]

pub mod doc;

use banger_testkit::Home;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest a single answer may take.
const ANSWER: Duration = Duration::from_secs(180);

/// The repository's root.
pub fn root() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir
}

/// The text of a file of the repository.
pub fn file(path: &str) -> String {
    let path: PathBuf = root().join(Path::new(path));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An answer of the daemon.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Head, status line included.
    pub head: String,
    /// The body with its chunks joined.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body's lines as JSON.
    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body);
        let line = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"));
        text.lines().map(line).collect()
    }

    /// The one JSON value of the body.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// `POST /v1/<method>` and the whole answer.
pub fn post(home: &Home, method: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/{method} HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(home, &[head.as_bytes(), body].concat())
}

/// Sends a request and reads the answer to its end.
pub fn exchange(home: &Home, request: &[u8]) -> Answer {
    let mut stream = connect(home);
    stream.write_all(request).expect("a request");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer in time");
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.expect("the end of the head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = &bytes[end + 4..];
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Answer {
        status: status.expect("a status"),
        body: if chunked {
            joined(body)
        } else {
            body.to_owned()
        },
        head,
    }
}

/// A connection to the daemon of a home.
pub fn connect(home: &Home) -> UnixStream {
    let stream = UnixStream::connect(home.runtime().join("bangerd.sock")).expect("a daemon");
    stream.set_read_timeout(Some(ANSWER)).expect("a time limit");
    stream
}

/// A chunked body as one.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").expect("a chunk");
        let length = std::str::from_utf8(&rest[..end]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        if length == 0 {
            return all;
        }
        all.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

/// `docs/openapi.json`.
pub struct Document(pub Value);

impl Document {
    /// As it is in the repository.
    pub fn read() -> Self {
        Document(serde_json::from_str(&file("docs/openapi.json")).expect("JSON"))
    }

    /// Asserts that a value fits the schema at a JSON pointer into the document.
    #[track_caller]
    pub fn fits_at(&self, pointer: &str, value: &Value) {
        assert!(self.0.pointer(pointer).is_some(), "no schema at {pointer}");
        let mut schema = self.0.clone();
        schema["$ref"] = json!(format!("#{pointer}"));
        let wrong = errors(&schema, value);
        assert!(wrong.is_empty(), "{pointer}: {wrong:#?}\n{value:#}");
    }

    /// Asserts that a value fits a named schema, or an array of it if the name ends with `[]`.
    #[track_caller]
    pub fn fits(&self, name: &str, value: &Value) {
        match name.strip_suffix("[]") {
            None => self.fits_at(&format!("/components/schemas/{name}"), value),
            Some(item) => {
                let items = value
                    .as_array()
                    .unwrap_or_else(|| panic!("no array: {value}"));
                items.iter().for_each(|v| self.fits(item, v));
            }
        }
    }

    /// Asserts that the answer to a method is one that the document knows.
    #[track_caller]
    pub fn fits_answer(&self, method: &str, answer: &Answer) {
        let status = answer.status;
        let pointer = format!("/paths/~1v1~1{method}/post/responses/{status}");
        let said = self
            .0
            .pointer(&pointer)
            .unwrap_or_else(|| panic!("{method} never answers {status}: {answer:?}"));
        let shared = said["$ref"]
            .as_str()
            .map(|r| r.trim_start_matches('#').to_owned());
        let pointer = shared.unwrap_or(pointer);
        let lines = answer.head.contains("application/x-ndjson");
        let kind = if lines {
            "application~1x-ndjson"
        } else {
            "application~1json"
        };
        let schema = format!("{pointer}/content/{kind}/schema");
        let values = if lines {
            answer.lines()
        } else {
            vec![answer.json()]
        };
        values.iter().for_each(|value| self.fits_at(&schema, value));
    }

    /// Calls a method with a request that fits, and gives the answer, which fits as well.
    #[track_caller]
    pub fn call(&self, home: &Home, method: &str, request: &Value) -> Answer {
        let schema =
            format!("/paths/~1v1~1{method}/post/requestBody/content/application~1json/schema");
        self.fits_at(&schema, request);
        let answer = post(
            home,
            method,
            "banger-api: 1\r\n",
            request.to_string().as_bytes(),
        );
        self.fits_answer(method, &answer);
        answer
    }
}

fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .build(schema)
        .expect("a schema");
    validator
        .iter_errors(value)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect()
}

/// Methods that answer with JSON or events, and that `vm_api` calls because they need a VM.
pub const WITH_A_VM: &[&str] = &[
    "vm.create",
    "vm.show",
    "vm.start",
    "vm.stop",
    "vm.kill",
    "vm.delete",
    "vm.logs",
    "vm.health",
    "vm.ports",
    "vm.stats",
    "vm.restart",
    "vm.wait",
    "vm.rename",
    "vm.set",
    "vm.ssh",
    "vm.prune",
];

/// Commands and schemas of the table whose head is `| command | schema |`.
pub fn json_table(text: &str) -> Vec<(String, String)> {
    let rows = text
        .lines()
        .skip_while(|l| !l.starts_with("| command | schema |"));
    let rows: Vec<(String, String)> = rows
        .skip(2)
        .map_while(|line| {
            let mut words = line.strip_prefix("| ")?.split('`');
            Some((words.nth(1)?.to_owned(), words.nth(1)?.to_owned()))
        })
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    rows
}

/// An answer that comes line by line.
pub struct Lines {
    reader: BufReader<UnixStream>,
}

impl Lines {
    /// Asks, and reads nothing of the answer yet.
    pub fn ask(home: &Home, method: &str, headers: &str, body: &[u8]) -> Self {
        let mut stream = connect(home);
        let head = format!(
            "POST /v1/{method} HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body).expect("a request");
        Lines {
            reader: BufReader::new(stream),
        }
    }

    /// The next line as JSON; `None` at the end. Chunks hold whole lines, and what frames them is no JSON object.
    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        while self.reader.read_line(&mut line).expect("a line in time") > 0 {
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).expect("JSON"));
            }
            line.clear();
        }
        None
    }

    /// The next line that is wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        while let Some(line) = self.next() {
            if wanted(&line) {
                return line;
            }
            seen.push(line);
        }
        panic!("the stream ended without {what}: {seen:#?}")
    }

    /// All that is left.
    pub fn rest(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A tar of a root file system, good enough to be an image.
#[allow(clippy::disallowed_methods, reason = "a tar as a user would make it")]
pub fn tar(home: &Home) -> Vec<u8> {
    let tree = home.scratch().join("tree");
    std::fs::create_dir_all(tree.join("etc")).expect("a tree");
    // Longer than what waits for a reader on the way.
    std::fs::write(tree.join("etc/zeros"), vec![7_u8; 1 << 20]).expect("a file");
    let tar = std::process::Command::new("tar")
        .args(["-C", &tree.display().to_string(), "-c", "."])
        .output()
        .expect("tar");
    assert!(tar.status.success());
    tar.stdout
}

/// The head of an import under these names.
pub fn import_header(names: &[&str]) -> String {
    format!("banger-request: {}\r\n", json!({ "names": names }))
}

/// The samples of a text in Prometheus's exposition format, which is read strictly: a family is announced once, with
/// help and type, before its samples, and no sample comes twice.
pub fn metrics(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut families) = (BTreeMap::new(), Vec::new());
    let mut helped = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').expect("a help").0;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, helped, "help, then type");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample");
            let name = sample.split('{').next().unwrap_or(sample);
            let good = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(good), "{line}");
            assert_eq!(
                families.last(),
                Some(&name),
                "{line} stands below its family"
            );
            check_labels(&sample[name.len()..]);
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "{line} twice"
            );
        }
    }
    assert!(samples.len() > 10, "{text}");
    samples
}

fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}'));
    for label in inner.expect("labels").split(',') {
        let (name, value) = label.split_once('=').expect("a label");
        assert!(name.chars().all(|c| c.is_ascii_lowercase()), "{label}");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        assert!(value.is_some_and(|v| !v.contains('"')), "{label}");
    }
}

/// Asks Prometheus's own checker, where there is one.
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "another program's judgement"
)]
pub fn promtool(text: &[u8]) -> Result<(), String> {
    let mut command = std::process::Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return Ok(());
    };
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(text));
    written.expect("its input").expect("its input");
    match child.wait().expect("promtool").success() {
        true => Ok(()),
        false => Err("promtool refuses it".to_owned()),
    }
}
