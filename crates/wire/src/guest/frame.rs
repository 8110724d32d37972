//! Frames in the bodies of an exec: `type u8 | length u32 BE | payload`, payload at most 32 KiB.
//!
//! The end of a stream and the end of a command are frames of their own: a body that just ends is a lost
//! connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::exec::{ExitStatus, TtySize};

/// Largest payload in bytes.
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// Length of the header in bytes.
pub const HEADER: usize = 5;
/// Largest payload whose frame, header included, fits one HTTP/2 frame.
pub const BEST_PAYLOAD: usize = MAX_PAYLOAD - HEADER;
/// Largest request (all its parts together) in bytes; Linux takes none that is longer as arguments.
pub const MAX_REQUEST: usize = 2 * 1024 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;
const STDIN_EOF: u8 = 4;
const RESIZE: u8 = 5;
const SIGNAL: u8 = 6;
const REQUEST_PART: u8 = 7;
const REQUEST_END: u8 = 8;
const TAKEN: u8 = 9;
const GOT: u8 = 10;
const LEAVE: u8 = 11;
const END: u8 = 12;
/// The greatest type there is.
const LAST: u8 = END;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Host to guest, type 0: bytes for the command's standard input.
    Stdin(Bytes),
    /// Guest to host, type 1: bytes from its standard output (or its terminal).
    Stdout(Bytes),
    /// Guest to host, type 2: bytes from its standard error.
    Stderr(Bytes),
    /// Guest to host, type 3, the last frame: how it ended, as JSON.
    Exit(ExitStatus),
    /// Host to guest, type 4: the standard input ends here.
    StdinEof,
    /// Host to guest, type 5 (`rows u16 | cols u16`): the terminal has this size now.
    Resize(TtySize),
    /// Host to guest, type 6 (`u8`): send this signal to the command's process group.
    Signal(u8),
    /// Host to guest, types 7 and 8, the first frames: a part of the request as JSON.
    Request {
        /// The bytes of this part.
        part: Bytes,
        /// Whether this is the last part (type 8).
        last: bool,
    },
    /// Guest to host, type 9 (`received u64 | consumed u64`): how much of the standard input has arrived.
    Taken(Taken),
    /// Host to guest, type 10 (`u64`): so many bytes of output have arrived where they are used; the guest need not
    /// keep them.
    Got(u64),
    /// Host to guest, type 11: nobody will come for this command again. One that runs gets SIGHUP.
    Leave,
    /// Guest to host, type 12, the last frame of a connection into the guest: both of its directions ended in order.
    End,
}

/// How much of a command's standard input has arrived, in bytes from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// In the guest's memory: survives a lost session and must not be sent again.
    pub received: u64,
    /// With the command.
    pub consumed: u64,
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The type is unknown.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// The frame is one of another stream or of another moment.
    #[error("a frame that has no place here")]
    Misplaced,
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("a frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The payload has not the length its type needs.
    #[error("a frame of type {kind} cannot have {len} bytes")]
    WrongLength {
        /// The type.
        kind: u8,
        /// The payload's length in bytes.
        len: usize,
    },
    /// The exit status is not the JSON it should be.
    #[error("the exit frame cannot be read")]
    Exit(#[source] serde_json::Error),
}

impl Frame {
    /// The bytes on the stream. Payloads longer than [`MAX_PAYLOAD`] are the caller's mistake and are refused by
    /// the receiver; [`split`] cuts data to size.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Stdin(data) => header_and(STDIN, data),
            Self::Stdout(data) => header_and(STDOUT, data),
            Self::Stderr(data) => header_and(STDERR, data),
            Self::Exit(status) => header_and(EXIT, &serde_json::to_vec(status).unwrap_or_default()),
            Self::StdinEof => header_and(STDIN_EOF, &[]),
            Self::Resize(size) => {
                let mut payload = [0_u8; 4];
                payload[..2].copy_from_slice(&size.rows.to_be_bytes());
                payload[2..].copy_from_slice(&size.cols.to_be_bytes());
                header_and(RESIZE, &payload)
            }
            Self::Signal(number) => header_and(SIGNAL, &[*number]),
            Self::Taken(taken) => {
                let mut payload = [0_u8; 16];
                payload[..8].copy_from_slice(&taken.received.to_be_bytes());
                payload[8..].copy_from_slice(&taken.consumed.to_be_bytes());
                header_and(TAKEN, &payload)
            }
            Self::Got(offset) => header_and(GOT, &offset.to_be_bytes()),
            Self::Leave => header_and(LEAVE, &[]),
            Self::End => header_and(END, &[]),
            Self::Request { part, last } => {
                header_and(if *last { REQUEST_END } else { REQUEST_PART }, part)
            }
        }
    }

    /// The frame of this type with this payload.
    ///
    /// # Errors
    /// The type is unknown or the payload is not one of its kind.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, FrameError> {
        let wrong = FrameError::WrongLength {
            kind,
            len: payload.len(),
        };
        Ok(match kind {
            STDIN => Self::Stdin(payload),
            STDOUT => Self::Stdout(payload),
            STDERR => Self::Stderr(payload),
            EXIT => Self::Exit(serde_json::from_slice(&payload).map_err(FrameError::Exit)?),
            STDIN_EOF if payload.is_empty() => Self::StdinEof,
            RESIZE => match payload[..] {
                [a, b, c, d] => Self::Resize(TtySize {
                    rows: u16::from_be_bytes([a, b]),
                    cols: u16::from_be_bytes([c, d]),
                }),
                _ => return Err(wrong),
            },
            SIGNAL => match payload[..] {
                [number] => Self::Signal(number),
                _ => return Err(wrong),
            },
            REQUEST_PART => Self::Request {
                part: payload,
                last: false,
            },
            REQUEST_END => Self::Request {
                part: payload,
                last: true,
            },
            TAKEN => match payload.split_first_chunk::<8>() {
                Some((received, rest)) => Self::Taken(Taken {
                    received: u64::from_be_bytes(*received),
                    consumed: u64::from_be_bytes(rest.try_into().map_err(|_| wrong)?),
                }),
                None => return Err(wrong),
            },
            GOT => Self::Got(u64::from_be_bytes(
                payload[..].try_into().map_err(|_| wrong)?,
            )),
            LEAVE if payload.is_empty() => Self::Leave,
            END if payload.is_empty() => Self::End,
            STDIN_EOF | LEAVE | END => return Err(wrong),
            other => return Err(FrameError::UnknownType(other)),
        })
    }
}

fn header_and(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + payload.len());
    put_header(&mut bytes, kind, payload.len());
    bytes.put_slice(payload);
    bytes.freeze()
}

fn put_header(bytes: &mut BytesMut, kind: u8, len: usize) {
    bytes.put_u8(kind);
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Which of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The header of an output frame, for callers that read the payload right behind it.
pub fn output_header(output: Output, len: usize) -> [u8; HEADER] {
    let kind = match output {
        Output::Stdout => STDOUT,
        Output::Stderr => STDERR,
    };
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [kind, a, b, c, d]
}

/// The frames that carry a request.
pub fn request_frames<T: serde::Serialize>(request: &T) -> Result<Vec<Frame>, serde_json::Error> {
    let json = Bytes::from(serde_json::to_vec(request)?);
    let mut parts: Vec<Frame> = split(json)
        .map(|part| Frame::Request { part, last: false })
        .collect();
    if let Some(Frame::Request { last, .. }) = parts.last_mut() {
        *last = true;
    }
    Ok(parts)
}

/// Cuts data into payloads that fit one HTTP/2 frame with their header.
pub fn split(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        (!data.is_empty()).then(|| data.split_to(data.len().min(BEST_PAYLOAD)))
    })
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

    /// The next whole frame, `None` if more bytes are needed. After an error the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, a, b, c, d] = *header;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if kind > LAST {
            return Err(FrameError::UnknownType(kind));
        }
        if len > MAX_PAYLOAD {
            return Err(FrameError::TooLong(len));
        }
        if self.buffer.len() < HEADER + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Frame::decode(kind, self.buffer.split_to(len).freeze()).map(Some)
    }

    /// Whether nothing of a frame is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guest::exec::{ExecFailure, ExecRequest, FailureKind};

    fn frame() -> impl Strategy<Value = Frame> {
        let data = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            data().prop_map(Frame::Stdin),
            data().prop_map(Frame::Stdout),
            data().prop_map(Frame::Stderr),
            any::<u8>().prop_map(|code| Frame::Exit(ExitStatus::Exited { code })),
            any::<u8>().prop_map(|signal| Frame::Exit(ExitStatus::Signaled { signal })),
            ".*".prop_map(|message| Frame::Exit(ExitStatus::Failed(ExecFailure {
                reason: FailureKind::NotFound,
                message
            }))),
            Just(Frame::StdinEof),
            any::<(u16, u16)>().prop_map(|(rows, cols)| Frame::Resize(TtySize { rows, cols })),
            any::<u8>().prop_map(Frame::Signal),
            (data(), any::<bool>()).prop_map(|(part, last)| Frame::Request { part, last }),
            any::<(u64, u64)>()
                .prop_map(|(received, consumed)| Frame::Taken(Taken { received, consumed })),
            any::<u64>().prop_map(Frame::Got),
            Just(Frame::Leave),
            Just(Frame::End),
        ]
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            frames in proptest::collection::vec(frame(), 0..12),
            cuts in proptest::collection::vec(1_usize..70, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode()).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                decoder.push(head);
                rest = tail;
                while let Some(frame) = decoder.next_frame().unwrap() { got.push(frame) }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&junk);
            for _ in 0..=junk.len() {
                match decoder.next_frame() { Ok(Some(_)) => {} _ => break }
            }
        }

        #[test]
        fn a_request_comes_back(argv in proptest::collection::vec(".{0,40000}", 1..4)) {
            let request = ExecRequest::new(argv);
            let mut json = Vec::new();
            let frames = request_frames(&request).unwrap();
            for (index, frame) in frames.iter().enumerate() {
                let Frame::Request { part, last } = frame else { panic!("{frame:?}") };
                prop_assert!(frame.encode().len() <= MAX_PAYLOAD);
                prop_assert_eq!(*last, index + 1 == frames.len());
                json.extend_from_slice(part);
            }
            prop_assert_eq!(serde_json::from_slice::<ExecRequest>(&json).unwrap(), request);
        }
    }

    #[test]
    fn header_is_big_endian_and_limits_hold() {
        assert_eq!(
            Frame::Stdout(Bytes::from_static(b"ab")).encode()[..],
            [1, 0, 0, 0, 2, b'a', b'b']
        );
        assert_eq!(output_header(Output::Stderr, 258), [2, 0, 0, 1, 2]);
        let refused = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame().unwrap_err()
        };
        assert!(matches!(
            refused(&[0, 0, 0, 128, 1]),
            FrameError::TooLong(32_769)
        ));
        assert!(matches!(
            refused(&[LAST + 1, 0, 0, 0, 0]),
            FrameError::UnknownType(_)
        ));
        for kind in [TAKEN, GOT] {
            assert!(matches!(
                refused(&[kind, 0, 0, 0, 3, 1, 2, 3]),
                FrameError::WrongLength { len: 3, .. }
            ));
        }
        assert!(matches!(
            refused(&[4, 0, 0, 0, 1, 0]),
            FrameError::WrongLength { kind: 4, len: 1 }
        ));
        assert!(matches!(
            refused(&[3, 0, 0, 0, 1, b'{']),
            FrameError::Exit(_)
        ));
    }
}
