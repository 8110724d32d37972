//! The request body of what streams to the guest.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame as BodyFrame};
use tokio::sync::mpsc;

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
