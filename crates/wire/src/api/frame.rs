//! Frames after an upgrade: those of the guest channel (types 0 to 12, see [`crate::guest::frame`], and 32 to 37, see
//! [`crate::guest::copy`]) and two of the API's own: type 16, an [`Event`] as JSON; type 17, an [`ApiError`] as JSON, the
//! last frame of a stream that failed.

use super::{ApiError, Event};
use crate::guest::copy::{self, CopyFrame};
use crate::guest::frame::{self as guest, HEADER, MAX_PAYLOAD};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const EVENT: u8 = 16;
const ERROR: u8 = 17;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A frame that is also spoken with the guest.
    Command(guest::Frame),
    /// A frame of a copy, that is also spoken with the guest.
    Copy(CopyFrame),
    /// Type 16: what happens around the command.
    Event(Event),
    /// Type 17, last: banger failed. The command, if there was one, did not end as it should.
    Error(ApiError),
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame of the guest channel is wrong.
    #[error("a command's frame cannot be read")]
    Command(#[source] guest::FrameError),
    /// An event or error is not the JSON it should be.
    #[error("an event frame cannot be read")]
    Json(#[source] serde_json::Error),
    /// The payload is longer than 32 KiB.
    #[error("a frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
}

impl Frame {
    /// The bytes on the stream. An event or error that would not fit a frame is cut to its message.
    pub fn encode(&self) -> Bytes {
        match self {
            Frame::Command(frame) => frame.encode(),
            Frame::Copy(frame) => frame.encode(),
            Frame::Event(event) => json_frame(EVENT, event, || Event::Warning {
                message: "an event was too long to send".to_owned(),
                hint: Some("banger daemon logs".to_owned()),
            }),
            Frame::Error(error) => json_frame(ERROR, error, || {
                let mut short = ApiError::new(error.code, cut(&error.message));
                short.op_id = error.op_id;
                short
            }),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(1000).collect()
}

fn json_frame<T: serde::Serialize>(kind: u8, value: &T, short: impl FnOnce() -> T) -> Bytes {
    let json = serde_json::to_vec(value)
        .ok()
        .filter(|json| json.len() <= MAX_PAYLOAD)
        .unwrap_or_else(|| serde_json::to_vec(&short()).unwrap_or_default());
    let mut bytes = BytesMut::with_capacity(HEADER + json.len());
    bytes.put_u8(kind);
    bytes.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
    bytes.put_slice(&json);
    bytes.freeze()
}

/// Reads frames from bytes cut anywhere.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into; what is appended to it counts as pushed.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, `None` if more bytes are needed. After an error the stream cannot be read on.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((&[kind, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > MAX_PAYLOAD {
            return Err(FrameError::TooLong(len));
        }
        if self.buffer.len() < HEADER + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(len).freeze();
        Ok(Some(match kind {
            EVENT => Frame::Event(serde_json::from_slice(&payload).map_err(FrameError::Json)?),
            ERROR => Frame::Error(serde_json::from_slice(&payload).map_err(FrameError::Json)?),
            copy::FIRST_TYPE..=copy::LAST_TYPE => {
                Frame::Copy(CopyFrame::decode(kind, payload).map_err(FrameError::Command)?)
            }
            _ => Frame::Command(guest::Frame::decode(kind, payload).map_err(FrameError::Command)?),
        }))
    }

    /// Whether nothing of a frame is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn frames_survive_any_cut() {
        let frames = [
            Frame::Command(guest::Frame::Stdout(Bytes::from_static(b"\0\xff"))),
            Frame::Event(Event::Done { vm: None }),
            Frame::Command(guest::Frame::StdinEof),
            Frame::Error(ApiError::new(Code::NotFound, "x")),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.encode().to_vec()).collect();
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for part in bytes.chunks(step) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames);
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn bad_frames_are_refused() {
        for bad in [
            &[9, 0, 0, 0, 0][..],
            &[1, 0, 1, 0, 0],
            &[16, 0, 0, 0, 1, b'{'],
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bad);
            assert!(decoder.next_frame().is_err(), "{bad:?}");
        }
        let long = ApiError::new(Code::OperationFailed, "x".repeat(100_000));
        assert!(Frame::Error(long).encode().len() <= HEADER + MAX_PAYLOAD);
    }
}
