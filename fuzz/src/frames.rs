//! Frames of the API and of the agent channel: the same however they are cut, and what was read is written as it was.

use crate::pieces;
use banger_wire::{api, guest};
use bytes::Bytes;
use std::fmt::Debug;

/// Frames between command line and daemon.
pub fn frames(data: &[u8]) {
    hold::<api::Decoder>(data);
}

/// Frames between daemon and agent.
pub fn guest_frames(data: &[u8]) {
    hold::<guest::frame::Decoder>(data);
}

/// What both decoders do.
trait Decoding: Default {
    type Frame: PartialEq + Debug;
    fn push(&mut self, bytes: &[u8]);
    /// `None` if more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame.
    fn next(&mut self) -> Result<Option<Self::Frame>, ()>;
    fn is_empty(&self) -> bool;
    fn encode(frame: &Self::Frame) -> Bytes;
}

macro_rules! decoding {
    ($decoder:ty, $frame:ty) => {
        impl Decoding for $decoder {
            type Frame = $frame;
            fn push(&mut self, bytes: &[u8]) {
                <$decoder>::push(self, bytes);
            }
            fn next(&mut self) -> Result<Option<Self::Frame>, ()> {
                self.next_frame().map_err(drop)
            }
            fn is_empty(&self) -> bool {
                <$decoder>::is_empty(self)
            }
            fn encode(frame: &Self::Frame) -> Bytes {
                frame.encode()
            }
        }
    };
}

decoding!(api::Decoder, api::Frame);
decoding!(guest::frame::Decoder, guest::frame::Frame);

/// The frames in these pieces, and whether what follows them is none.
fn read<D: Decoding>(pieces: &[&[u8]]) -> (Vec<D::Frame>, bool) {
    let mut decoder = D::default();
    let mut read = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => read.push(frame),
                Ok(None) => break,
                Err(()) => return (read, true),
            }
        }
    }
    (read, false)
}

fn hold<D: Decoding>(data: &[u8]) {
    let (cut, whole) = pieces(data);
    let at_once = read::<D>(&[whole]);
    assert_eq!(read::<D>(&cut), at_once, "cuts change the frames");
    for frame in at_once.0 {
        let mut decoder = D::default();
        decoder.push(&D::encode(&frame));
        let again = decoder.next();
        assert_eq!(again.as_ref(), Ok(&Some(frame)), "written, it is another");
        assert!(decoder.is_empty(), "it has a tail");
    }
}
