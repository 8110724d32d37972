//! The frames after an upgrade, as the document tells them.

use super::SCHEMAS;
use serde_json::{Value, json};

/// One type of frame.
pub struct FrameKind {
    /// The first byte.
    pub number: u8,
    /// Who sends it.
    pub from: &'static str,
    /// What it carries.
    pub payload: &'static str,
    /// The schema of a payload that is JSON.
    pub schema: Option<&'static str>,
}

const fn frame(number: u8, from: &'static str, payload: &'static str) -> FrameKind {
    FrameKind {
        number,
        from,
        payload,
        schema: None,
    }
}

const fn of_json(number: u8, payload: &'static str, schema: &'static str) -> FrameKind {
    FrameKind {
        schema: Some(schema),
        ..frame(number, "daemon", payload)
    }
}

/// Every frame that a client may send or be sent.
pub const FRAMES: &[FrameKind] = &[
    frame(
        0,
        "client",
        "bytes for the command's standard input, or a forwarded connection",
    ),
    frame(
        1,
        "daemon",
        "bytes from its standard output, or its terminal",
    ),
    frame(2, "daemon", "bytes from its standard error"),
    of_json(3, "how the command ended", "ExitStatus"),
    frame(
        4,
        "both",
        "nothing; the standard input ends here, or one direction of a forwarded connection",
    ),
    frame(
        5,
        "client",
        "rows u16, columns u16; the terminal has this size now",
    ),
    frame(
        6,
        "client",
        "u8; send this signal to the command's process group",
    ),
    frame(
        9,
        "daemon",
        "received u64, consumed u64; how much of the standard input has arrived",
    ),
    frame(
        10,
        "client",
        "u64; so many bytes of output have arrived for good",
    ),
    frame(
        11,
        "client",
        "nothing; nobody will come for this command again",
    ),
    frame(
        12,
        "daemon",
        "nothing; both directions of a connection ended in order; the last frame",
    ),
    of_json(16, "what happens around the command", "Event"),
    of_json(17, "banger failed; the last frame", "ApiError"),
    frame(33, "both", "bytes of the tar stream of a copy"),
    frame(
        34,
        "client",
        "bytes u64, check u64; the tar stream ends here",
    ),
    frame(
        35,
        "daemon",
        "one sentence; something was left out of the copy",
    ),
    frame(
        36,
        "daemon",
        "bytes u64, check u64, entries u64; the copy is done, the last frame",
    ),
    frame(
        37,
        "daemon",
        "one sentence; the copy failed, the last frame",
    ),
];

/// The table as the document has it.
pub fn table() -> Value {
    FRAMES
        .iter()
        .map(|frame| {
            let mut row =
                json!({ "type": frame.number, "from": frame.from, "payload": frame.payload });
            if let Some(schema) = frame.schema {
                row["schema"] = json!({ "$ref": format!("{SCHEMAS}{schema}") });
            }
            row
        })
        .collect()
}
