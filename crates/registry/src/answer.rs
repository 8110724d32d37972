//! Answers of servers: whether one is good, where it begins, and its bytes within a limit.

use crate::fault::Fault;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode};

/// The rest of some bytes.
pub(crate) enum Rest {
    /// From where it was asked for.
    Continued(Response),
    /// From their beginning: the server knows no ranges.
    Anew(Response),
    /// Another part, or one that does not say which it is.
    Other,
}

/// A request for what lies from this offset on.
pub(crate) fn ranged(request: RequestBuilder, offset: u64) -> RequestBuilder {
    match offset {
        0 => request,
        _ => request.header(RANGE, format!("bytes={offset}-")),
    }
}

impl Rest {
    /// What a good answer to a request for what lies from this offset on has.
    pub(crate) fn of(answer: Response, offset: u64) -> Self {
        if offset == 0 || answer.status() != StatusCode::PARTIAL_CONTENT {
            return Rest::Anew(answer);
        }
        match begins(answer.headers()) == Some(offset) {
            true => Rest::Continued(answer),
            false => Rest::Other,
        }
    }
}

/// The answer, if it is none of failure.
///
/// # Errors
/// Its status.
pub(crate) fn good(answer: Response) -> Result<Response, Fault> {
    match answer.status().is_success() {
        true => Ok(answer),
        false => Err(Fault::of(&answer)),
    }
}

/// All bytes of an answer, `None` if they are more than this.
///
/// # Errors
/// It breaks off.
pub(crate) async fn whole(mut answer: Response, most: u64) -> Result<Option<Vec<u8>>, Fault> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if (bytes.len() + piece.len()) as u64 > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes))
}

/// Where the bytes of a partial answer begin (RFC 9110, section 14.4: `bytes 5-9/10`).
fn begins(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_part_says_where_it_begins() {
        for (range, first) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes 0-9/*", Some(0)),
            ("bytes */10", None),
            ("bytes -5/10", None),
            ("lines 5-9/10", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(range));
            assert_eq!(begins(&headers), first, "{range}");
        }
        assert_eq!(begins(&HeaderMap::new()), None);
    }
}
