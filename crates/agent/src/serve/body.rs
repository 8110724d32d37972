//! Request bodies as frames, answer bodies from a queue.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use banger_wire::guest::frame::{Decoder, Frame};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame as BodyFrame, Incoming, SizeHint};
use tokio::sync::mpsc;

/// The frames of a request body.
#[derive(Debug)]
pub struct Frames {
    body: Incoming,
    decoder: Decoder,
}

impl Frames {
    /// Reads frames from a body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            decoder: Decoder::default(),
        }
    }

    /// The next frame; `None` once the body has ended, was cut, or is no sequence of frames.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            let part = self.body.frame().await?.ok()?;
            if let Some(data) = part.data_ref() {
                self.decoder.push(data);
            }
        }
    }
}

/// An answer: all at once, or as it comes. Its end without an exit frame tells the host that it was cut.
#[derive(Debug)]
pub enum AnswerBody {
    /// One piece, given once.
    Whole(Option<Bytes>),
    /// Frames from a command; the sender sees when the host has gone.
    Stream(mpsc::Receiver<Bytes>),
}

impl AnswerBody {
    /// A body of these bytes.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// A body of what comes out of the queue.
    pub fn stream(queue: mpsc::Receiver<Bytes>) -> Self {
        Self::Stream(queue)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Stream(queue) => queue.poll_recv(cx),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(BodyFrame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
