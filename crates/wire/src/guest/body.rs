//! Bodies that are frames: of requests to the guest, and of its answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame as BodyFrame, Incoming};
use tokio::sync::mpsc;

use super::frame::{Decoder, Frame, FrameError};

/// The frames of a body.
#[derive(Debug)]
pub(super) struct Frames {
    body: Incoming,
    decoder: Decoder,
}

impl Frames {
    /// Reads frames from a body.
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            decoder: Decoder::default(),
        }
    }

    /// The next frame; `None` once the body has ended or was cut. May be dropped and called again.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Some(data) = part.data_ref() {
                        self.decoder.push(data);
                    }
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// Encoded frames: first those of the request, then what comes out of a queue.
pub(super) struct FrameBody {
    first: std::vec::IntoIter<Bytes>,
    queue: mpsc::Receiver<Bytes>,
}

impl FrameBody {
    pub(super) fn new(first: Vec<Bytes>, queue: mpsc::Receiver<Bytes>) -> Self {
        Self {
            first: first.into_iter(),
            queue,
        }
    }
}

impl Body for FrameBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        let bytes = match self.first.next() {
            Some(bytes) => Poll::Ready(Some(bytes)),
            None => self.queue.poll_recv(cx),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(BodyFrame::data(bytes))))
    }
}
