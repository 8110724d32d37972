//! What this machine looks like from inside: its listening sockets and what it uses, read from proc(5), and the settings
//! of its sshd. The readers of texts are pure and pass over what they do not understand.

mod owners;
mod ports;
mod sockets;
mod sshd;
mod stats;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use hyper::StatusCode;

use crate::guest::{Guest, Place};
use crate::serve::{Answer, Refusal, json, ready};

/// Longest text that is read from `/proc`.
const MAX_TEXT: u64 = 8 * 1024 * 1024;

/// A method that looks at the machine once its root is there. On a thread: files of `/proc` and file systems may keep
/// their reader waiting.
pub async fn answer(guest: &Arc<Guest>, look: fn(&Guest) -> Answer) -> Answer {
    ready(guest).await?;
    let guest = Arc::clone(guest);
    tokio::task::spawn_blocking(move || look(&guest))
        .await
        .unwrap_or_else(|error| {
            let message = error.to_string();
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, message))
        })
}

/// The ports method.
pub fn ports(_: &Guest) -> Answer {
    json(&ports::listening())
}

/// The stats method.
pub fn stats(_: &Guest) -> Answer {
    json(&stats::now())
}

/// The sshd method.
pub fn sshd(guest: &Guest) -> Answer {
    json(&match guest.place {
        // The machine's own is no business of ours.
        Place::Local => Vec::new(),
        _ => sshd::complaints(&guest.reaper),
    })
}

/// A text of `/proc`; what cannot be read is empty.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MAX_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The numbers among the names in `/proc`: its processes, in ascending order as the kernel lists them.
fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
