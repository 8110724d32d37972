//! What a VMM says before it ends (QMP, docs/interop/qmp-spec.txt of QEMU): whether its guest powered off or reset.

use banger_model::ReasonKind;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Listens on a control socket until the VMM ends; `None` if it says nothing of its guest. Holds the socket: a monitor
/// serves one client at a time.
pub async fn last_word(socket: &Path) -> Option<ReasonKind> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream
        .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
        .await
        .ok()?;
    let mut lines = BufReader::with_capacity(1024, stream).lines();
    let mut word = None;
    while let Ok(Some(line)) = lines.next_line().await {
        word = said(&line).or(word);
    }
    word
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
    }
}
