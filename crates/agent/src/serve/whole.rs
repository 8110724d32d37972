//! Request bodies that are one JSON value.

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{REQUEST_LIMIT, Refusal};

/// Reads a request of one JSON value, of at most `limit` bytes, for a bounded time.
pub async fn read_json<T: DeserializeOwned>(body: Incoming, limit: usize) -> Result<T, Refusal> {
    let bytes = match tokio::time::timeout(REQUEST_LIMIT, bytes(body, limit)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(format!("it was not complete after {REQUEST_LIMIT:?}")),
    };
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .map_err(|why| {
            let message = format!("the request cannot be read: {why}");
            Refusal(StatusCode::BAD_REQUEST, message)
        })
}

async fn bytes(mut body: Incoming, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(part) = body.frame().await {
        let part = part.map_err(|error| error.to_string())?;
        if let Some(data) = part.data_ref() {
            if bytes.len() + data.len() > limit {
                return Err(format!("it is longer than {limit} bytes"));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}
