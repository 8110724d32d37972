//! How a method is asked for: at once or begun and left alone, once or again with a key.

use super::dispatch::bad;
use crate::daemon::Daemon;
use crate::ops::{Begin, Begun, Key, Operation};
use banger_model::hex;
use banger_wire::api::{
    ApiError, IDEMPOTENCY_HEADER, MAX_KEY, OPERATIONS, PREFER_HEADER, RESPOND_ASYNC,
};
use hyper::header::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{ops::Deref, sync::Arc};

/// A call of a method, and the daemon it is for.
#[derive(Debug)]
pub struct Call {
    daemon: Arc<Daemon>,
    /// Who asked does not wait.
    pub leaves: bool,
    key: Option<String>,
    /// Digest of the request in one form, whatever its spaces and the order of its fields: what was asked for is told
    /// from other requests by it, and a password in it is not kept.
    request: String,
}

impl Deref for Call {
    type Target = Arc<Daemon>;
    fn deref(&self) -> &Arc<Daemon> {
        &self.daemon
    }
}

impl Call {
    /// A call of `method` with these headers.
    ///
    /// # Errors
    /// A key that is none, or for a method that is no operation.
    pub fn of(daemon: Arc<Daemon>, method: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let key = match headers.get(IDEMPOTENCY_HEADER) {
            None => None,
            Some(_) if !OPERATIONS.contains(&method) => {
                return Err(bad(&format!(
                    "{method} is no operation, it takes no {IDEMPOTENCY_HEADER}"
                )));
            }
            Some(key) => Some(key_of(key.as_bytes())?),
        };
        // Preferences are a list, and what is not understood is left aside (RFC 7240).
        let leaves = headers
            .get_all(PREFER_HEADER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split([',', ';']))
            .any(|word| word.trim().eq_ignore_ascii_case(RESPOND_ASYNC));
        Ok(Call {
            daemon,
            leaves: leaves && OPERATIONS.contains(&method),
            key,
            request: String::new(),
        })
    }

    /// The same call with its request.
    #[must_use]
    pub fn with(mut self, request: &[u8]) -> Self {
        if self.key.is_some() {
            let value: Result<Value, _> = serde_json::from_slice(request);
            self.request = value.map_or_else(|_| String::new(), |value| digest(&value));
        }
        self
    }

    /// The operation that this request, with its key, began before.
    ///
    /// # Errors
    /// The key was used for another request.
    pub fn before(&self, method: &str) -> Result<Option<Arc<Operation>>, ApiError> {
        match self.key(method) {
            Some(key) => self.registry.find(&key),
            None => Ok(None),
        }
    }

    /// Begins the operation, or finds the one that this request began before.
    ///
    /// # Errors
    /// The key was used for another request; the system gives no random id.
    pub fn begin(&self, method: &str, detached: bool) -> Result<Begun, ApiError> {
        debug_assert!(OPERATIONS.contains(&method), "{method} is an operation");
        let key = self.key(method);
        let how = Begin {
            detached: detached || self.leaves || key.is_some(),
            key,
        };
        self.registry.begin_once(method, how)
    }

    fn key(&self, method: &str) -> Option<Key> {
        let asked = || format!("{method} {}", self.request);
        self.key.clone().map(|text| Key {
            text,
            asked: asked(),
        })
    }
}

fn digest(value: &Value) -> String {
    hex::encode(&Sha256::digest(value.to_string()))
}

/// A key as text. In the draft of the header it is a quoted string; without quotes it is taken as well.
fn key_of(value: &[u8]) -> Result<String, ApiError> {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    let good = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if text.is_empty() || text.len() > MAX_KEY || !text.chars().all(good) {
        return Err(bad(&format!(
            "the header '{IDEMPOTENCY_HEADER}' has 1 to {MAX_KEY} visible characters of ASCII, no quotes or backslashes"
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii_with_or_without_quotes() {
        for (value, key) in [("a-1", "a-1"), ("\"8e03978e\"", "8e03978e"), (" x ", "x")] {
            assert_eq!(key_of(value.as_bytes()).unwrap(), key);
        }
        let long = "k".repeat(MAX_KEY + 1);
        for bad in ["", "\"\"", "a b", "a\"b", "a\\b", "é", &long] {
            assert!(key_of(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
