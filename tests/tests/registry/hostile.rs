//! A registry that gives what it likes: whatever is put at a path is what is answered there.

use super::sha256;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An answer.
#[derive(Clone)]
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    answers: BTreeMap<String, Answer>,
    asked: Vec<String>,
}

/// The server, for as long as the test lives.
#[derive(Clone)]
pub struct Hostile {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Hostile {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let hostile = Hostile {
            port: listener.local_addr().expect("a port").port(),
            shared: Arc::default(),
        };
        let shared = hostile.shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(&client, &shared));
            }
        });
        hostile
    }

    /// What it was asked since the last look.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().expect("the list").asked)
    }

    fn put(&self, path: String, answer: Answer) {
        self.shared
            .lock()
            .expect("the list")
            .answers
            .insert(path, answer);
    }

    /// Any answer at a path below a repository's.
    pub fn answer(&self, repository: &str, path: &str, answer: Answer) {
        self.put(format!("/v2/{repository}/{path}"), answer);
    }

    /// Bytes as the blob of a digest, theirs or another; the descriptor of what they are.
    pub fn blob(&self, repository: &str, bytes: &[u8], digest: Option<&str>) -> Value {
        let own = sha256(bytes);
        let hex = digest.unwrap_or(&own);
        let answer = Answer {
            status: "200 OK",
            headers: vec![],
            body: bytes.to_vec(),
        };
        self.answer(repository, &format!("blobs/sha256:{hex}"), answer);
        let kind = "application/vnd.oci.image.layer.v1.tar";
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    /// A document as what a tag and its digest mean; its descriptor.
    pub fn document(&self, repository: &str, bytes: &[u8], kind: &str) -> Value {
        let digest = format!("sha256:{}", sha256(bytes));
        let headers = vec![
            ("Content-Type", kind.to_owned()),
            ("Docker-Content-Digest", digest.clone()),
        ];
        let answer = Answer {
            status: "200 OK",
            headers,
            body: bytes.to_vec(),
        };
        for name in ["1", &digest] {
            self.answer(repository, &format!("manifests/{name}"), answer.clone());
        }
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// A whole image of these layers, each with what it unpacks to; changed by `change` before it is a document.
    pub fn image(
        &self,
        repository: &str,
        layers: &[&[u8]],
        change: &dyn Fn(&mut Value, &mut Value),
    ) {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let ids: Vec<_> = layers
            .iter()
            .map(|layer| format!("sha256:{}", sha256(layer)))
            .collect();
        let mut config = json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
        let blobs: Vec<_> = layers
            .iter()
            .map(|layer| self.blob(repository, layer, None))
            .collect();
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": blobs});
        change(&mut manifest, &mut config);
        if manifest.get("config").is_none() {
            manifest["config"] = self.blob(repository, config.to_string().as_bytes(), None);
        }
        self.document(repository, manifest.to_string().as_bytes(), MANIFEST);
    }
}

/// Header of an answer whose body comes again and again, a thousand times.
pub const ENDLESS: &str = "X-Endless";

fn serve(client: &TcpStream, shared: &Mutex<Shared>) {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|n| n > 2) {
            header.clear();
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let answer = {
            let mut shared = shared.lock().expect("the list");
            shared.asked.push(line.trim().to_owned());
            shared.answers.get(path).cloned()
        };
        let nothing = Answer {
            status: "404 Not Found",
            headers: vec![],
            body: vec![],
        };
        let hello = Answer {
            status: "200 OK",
            ..nothing.clone()
        };
        let answer = answer.unwrap_or(if path == "/v2/" { hello } else { nothing });
        let mut head = format!("HTTP/1.1 {}\r\n", answer.status);
        let told = answer
            .headers
            .iter()
            .any(|(name, _)| *name == "Content-Length");
        if !told {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "Connection: close\r\n\r\n";
        let mut out = client;
        let endless = answer.headers.iter().any(|(name, _)| *name == ENDLESS);
        let times = if endless { 1 << 10 } else { 1 };
        if out.write_all(head.as_bytes()).is_ok() && method != "HEAD" {
            // Until nobody listens any more.
            let _ = (0..times).try_for_each(|_| out.write_all(&answer.body));
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
        line.clear();
    }
}
