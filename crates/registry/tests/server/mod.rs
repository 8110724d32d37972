//! A server whose every answer the test writes, byte by byte.

#![allow(
    dead_code,
    reason = "each test binary that shares this module uses a part of it"
)]

use banger_registry::{Blob, Watch};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Heads of requests, in their order.
pub type Heads = Arc<Mutex<Vec<String>>>;

/// Answers the n-th request, whose head is in small letters; each in a thread of its own. The port, and the heads.
pub fn serve(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heads, answer) = (Heads::default(), Arc::new(answer));
    let seen = heads.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (heads, answer) = (heads.clone(), answer.clone());
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.push(byte[0]);
                    // TLS, which nobody speaks here.
                    if head[0] == 0x16 {
                        return;
                    }
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let n = {
                    let mut heads = heads.lock().expect("the list");
                    heads.push(head.clone());
                    heads.len()
                };
                // Whoever has left needs no answer.
                let _ = stream.write_all(&answer(n, &head));
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut byte);
            });
        }
    });
    (port, seen)
}

/// An answer with this length in its head, which may be a lie.
pub fn answer(status: &str, headers: &str, len: usize, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {len}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Where the range that a head asks for begins.
pub fn from(head: &str) -> usize {
    let range = head.lines().find_map(|l| l.strip_prefix("range: bytes="));
    range.map_or(0, |range| {
        range.trim_end_matches('-').parse().expect("a range")
    })
}

pub fn blob(bytes: &[u8]) -> Blob {
    let digest = Sha256::digest(bytes);
    Blob {
        sha256: digest.iter().map(|b| format!("{b:02x}")).collect(),
        size: bytes.len() as u64,
    }
}

/// Bytes that are all at their place.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n * 7 + n / 251).to_le_bytes()[0])
        .collect()
}

/// Who wants it for so long, from the first look on.
pub struct Patience(pub Duration, pub Mutex<Option<Instant>>);

impl Patience {
    pub fn of(seconds: u64) -> Self {
        Patience(Duration::from_secs(seconds), Mutex::default())
    }
}

impl Watch for Patience {
    fn moved(&self, _: &[u64]) {}
    fn arrived(&self, _: &Blob, _: usize) {}
    fn cancelled(&self) -> bool {
        let mut since = self.1.lock().expect("a time");
        since.get_or_insert_with(Instant::now).elapsed() > self.0
    }
}
