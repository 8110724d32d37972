//! What a VMM says by itself (QMP, docs/interop/qmp-spec.txt of QEMU): that it holds its guest still, and before it ends
//! whether its guest powered off or reset.

use banger_model::ReasonKind;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Listens on a control socket until the VMM ends; `None` if it says nothing of its guest. `held` is called whenever the
/// guest is held still, by us or by a write for which the disk has no room. Holds the socket: a monitor serves one client
/// at a time.
pub async fn last_word(socket: &Path, held: impl Fn()) -> Option<ReasonKind> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream
        .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
        .await
        .ok()?;
    let mut lines = BufReader::with_capacity(1024, stream).lines();
    let mut word = None;
    while let Ok(Some(line)) = lines.next_line().await {
        if is_stop(&line) {
            held();
        }
        word = said(&line).or(word);
    }
    word
}

fn is_stop(line: &str) -> bool {
    let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    message["event"] == "STOP"
}

/// `SHUTDOWN` with QEMU's word for who did it. With `-no-reboot` a reset, a panic's too, ends QEMU.
fn said(line: &str) -> Option<ReasonKind> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message.get("event")?.as_str()? != "SHUTDOWN" {
        return None;
    }
    match message.get("data")?.get("reason")?.as_str()? {
        "guest-shutdown" => Some(ReasonKind::GuestPowerOff),
        "guest-reset" => Some(ReasonKind::GuestReboot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_off_and_reset_are_told_apart() {
        let line = |reason: &str| {
            format!(r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#)
        };
        assert_eq!(
            said(&line("guest-shutdown")),
            Some(ReasonKind::GuestPowerOff)
        );
        assert_eq!(said(&line("guest-reset")), Some(ReasonKind::GuestReboot));
        assert_eq!(said(&line("host-signal")), None);
        assert_eq!(said(r#"{"event":"STOP"}"#), None);
        assert_eq!(said("{"), None);
        assert!(is_stop(r#"{"event":"STOP"}"#));
        assert!(!is_stop(r#"{"event":"RESUME"}"#) && !is_stop("{") && !is_stop("[]"));
    }
}
