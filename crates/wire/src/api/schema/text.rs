//! The words of the document: they come from the docstrings of the types, which are written for the code's readers.

use serde_json::Value;

/// What stands above everything.
pub const INTRODUCTION: &str = "HTTP/1.1 over a Unix socket, `bangerd.sock` in the runtime directory (`banger daemon status` names it). \
Every method is one `POST /v1/<method>` whose body is one JSON object; an empty body is `{}`, unknown fields are refused. \
A method answers with one JSON value, with events as lines of JSON, or, asked with `Upgrade: banger-frames`, with frames. \
A failure before the answer has begun is a status of 400 or more and an `ApiError`; after that it is the last event or frame.\n\n\
What `--json` makes the command line print has the same schemas; docs/api.md says which.";

/// Of an answer that streams events.
pub const EVENTS: &str = "One event per line, each of this schema. The last one is `done` or `failed`; a stream that just ends is a lost connection, never success.";

/// Of an answer that streams notices.
pub const NOTICES: &str =
    "One notice per line, each of this schema. The stream ends when the daemon does.";

/// Of the metrics.
pub const METRICS: &str = "VMs by state, operations by method and outcome, requests by method and status, what each VMM and the daemon use, and free space on the disk.";

/// Of the answer to who does not wait.
pub const BEGUN: &str = "With `Prefer: respond-async`: the operation as it stands; it goes on. See `operation.show`, `operation.watch` and `operation.cancel`.";

/// Of the header that asks for it.
pub const PREFER: &str = "Answer with 202 as soon as the operation has begun, and do not cancel it when the client leaves (RFC 7240).";

/// Of the header that makes a request safe to repeat.
pub const KEY: &str = "Made up by the client. A request with the key of an operation that is still listed begins nothing: it is answered for that operation, \
or refused as a conflict if it asks for something else. An operation with a key goes on when its client leaves.";

/// Of an answer that upgrades.
pub const FRAMES: &str = "Both sides speak frames from here on: type u8, length u32, payload of at most 32 KiB; numbers are big-endian. \
The extension x-banger-frames lists the types. A stream that ends without its last frame (exit, error, the end of a connection, or the outcome of a copy) is a lost connection, never success.";

/// Summary and description of a method from the docstring of its request, which begins with the method's name.
///
/// # Errors
/// It does not, or says nothing more.
pub fn of_method(name: &str, doc: &str) -> Result<(String, String), String> {
    let text = doc.strip_prefix(&format!("`{name}`: ")).ok_or_else(|| {
        format!("the docstring of the request of {name} must begin with \"`{name}`: \", not: {doc}")
    })?;
    let summary = text.split(['.', '\n']).next().unwrap_or(text);
    Ok((upper(&plain(summary)), upper(&plain(text))))
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// Makes every description one for readers of the document.
pub fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = plain(text);
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A docstring without what only the code's readers can follow: paths in links, ids of requirements, line breaks.
fn plain(doc: &str) -> String {
    let mut text = doc.replace("[`", "`").replace("`]", "`");
    for path in ["super::", "crate::", "guest::", "copy::"] {
        text = text.replace(path, "");
    }
    // Variants are called so on the wire.
    while let Some((before, after)) = text.split_once("Event::") {
        let mut chars = after.chars();
        let first = chars.next().unwrap_or_default().to_ascii_lowercase();
        text = format!("{before}{first}{}", chars.as_str());
    }
    while let Some(start) = text.find(" (R-")
        && let Some(length) = text[start..].find(')')
    {
        text.replace_range(start..=start + length, "");
    }
    let paragraphs = text.split("\n\n");
    let joined: Vec<String> = paragraphs.map(|p| p.replace('\n', " ")).collect();
    joined.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docstrings_become_sentences_for_readers_of_the_document() {
        assert_eq!(
            plain("Ends it (R-A-1, R-B-2); see [`super::Event::Done`].\nMore\n\nAnd more"),
            "Ends it; see `done`. More\n\nAnd more"
        );
        let (summary, text) = of_method("vm.x", "`vm.x`: makes it. Then ends.").unwrap();
        assert_eq!((&*summary, &*text), ("Makes it", "Makes it. Then ends."));
        assert!(of_method("vm.x", "`vm.y`: makes it").is_err());
    }
}
