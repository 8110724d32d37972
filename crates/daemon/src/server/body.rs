//! Bodies of answers: a text, or lines that come as they happen.

use banger_wire::api::{API_VERSION, API_VERSION_HEADER, ApiError, OperationView};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode, header};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// The body of an answer.
#[derive(Debug)]
pub enum Answer {
    /// All at once.
    Whole(Option<Bytes>),
    /// As it comes; ends when every sender is gone.
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Answer::Lines(lines) => lines.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Answer::Lines(_) => SizeHint::default(),
        }
    }
}

/// An answer with this status and body.
pub fn answer(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(API_VERSION_HEADER, API_VERSION.into());
    response
}

/// One object.
pub fn json<T: serde::Serialize>(value: &T) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            let body = Answer::Whole(Some(text.into()));
            answer(StatusCode::OK, "application/json", body)
        }
        Err(source) => error(
            &ApiError::new(
                banger_wire::api::Code::OperationFailed,
                "the answer cannot be written as JSON",
            )
            .caused_by(&source),
        ),
    }
}

/// An operation that has begun and is not waited for.
pub fn begun(view: &OperationView) -> Response<Answer> {
    let mut response = json(view);
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

/// Metrics.
pub fn text(text: String) -> Response<Answer> {
    let body = Answer::Whole(Some(text.into()));
    answer(StatusCode::OK, crate::metrics::CONTENT_TYPE, body)
}

/// A failure.
pub fn error(error: &ApiError) -> Response<Answer> {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or_default();
    let mut text = serde_json::to_vec(error).unwrap_or_default();
    text.push(b'\n');
    let body = Answer::Whole(Some(text.into()));
    answer(status, "application/json", body)
}
