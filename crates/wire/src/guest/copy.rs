//! Copying files into a guest and out of it: one `POST` whose bodies are frames like those of an exec, with types of
//! their own. A tree travels as a tar stream in data frames. Its end is a frame with its length and checksum, and the
//! guest's last frame says how the copy ended: a body that just ends is a lost connection.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::mpsc;

use super::body::FrameBody;
use super::client::{ClientError, GuestClient};
use super::frame::{FrameError, HEADER, MAX_PAYLOAD};

/// Path of the method.
pub const COPY_PATH: &str = "/v1/files";
/// Status of a refusal because too many copies run.
pub const TOO_MANY: u16 = 429;
/// What relative paths in a guest are relative to.
pub const HOME: &str = "/root";
/// Longest path of a file in Linux.
const MAX_PATH: usize = 4096;
/// Frames that wait for the channel.
const QUEUE: usize = 4;

/// The first type of this protocol's frames.
pub const FIRST_TYPE: u8 = REQUEST;
/// The last one.
pub const LAST_TYPE: u8 = FAILED;
const REQUEST: u8 = 32;
const DATA: u8 = 33;
const END: u8 = 34;
const WARNING: u8 = 35;
const DONE: u8 = 36;
const FAILED: u8 = 37;

/// Bits of a request's flags.
const OUT: u8 = 1;
const NAMED: u8 = 2;
const DIRECTORY: u8 = 4;
const ARCHIVE: u8 = 8;
const KEEP_OWNER: u8 = 16;
const FOLLOW: u8 = 32;

/// A path: any bytes but zero. In the API's JSON it is a text, or an array of bytes if it is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PathBytes(pub Vec<u8>);

impl fmt::Debug for PathBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&[u8]> for PathBytes {
    fn from(path: &[u8]) -> Self {
        Self(path.to_owned())
    }
}

impl Serialize for PathBytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => to.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for PathBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PathBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path: a text or an array of bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<PathBytes, E> {
                Ok(PathBytes(text.as_bytes().to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<PathBytes, A::Error> {
                let mut path = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    path.push(byte);
                }
                Ok(PathBytes(path))
            }
        }
        from.deserialize_any(Either)
    }
}

/// What to copy, and which way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CopyRequest {
    /// Into the guest.
    In(CopyIn),
    /// Out of it.
    Out(CopyOut),
}

/// A copy into the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CopyIn {
    /// Destination.
    pub path: PathBytes,
    /// What the source is called inside a destination that is a directory; absent: its content goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PathBytes>,
    /// The destination must be a directory.
    #[serde(default)]
    pub directory: bool,
    /// The stream is any tar archive, unpacked in the destination.
    #[serde(default)]
    pub archive: bool,
    /// Files get the owners that the stream names, and not root.
    #[serde(default)]
    pub keep_owner: bool,
}

/// A copy out of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CopyOut {
    /// Source.
    pub path: PathBytes,
    /// What the source is called in the stream; `.` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PathBytes>,
    /// Follow a symbolic link at the source itself.
    #[serde(default)]
    pub follow: bool,
}

impl CopyRequest {
    /// Checks what can be checked without looking at a guest.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        let (path, name) = match self {
            Self::In(copy) => (&copy.path, &copy.name),
            Self::Out(copy) => (&copy.path, &copy.name),
        };
        let name = name.as_ref().map_or(&b"x"[..], |name| &name.0);
        if path.0.len() >= MAX_PATH {
            Err("the path is longer than a path can be")
        } else if path.0.contains(&0) || name.contains(&0) {
            Err("a path has a zero byte")
        } else if name.is_empty() || name.contains(&b'/') || matches!(name, b"." | b"..") {
            Err("the source's name is no name of a file")
        } else {
            Ok(())
        }
    }
}

/// Length and checksum of a tar stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes.
    pub bytes: u64,
    /// Fletcher's sums of them (see `banger_tree`).
    pub check: u64,
}

/// How a copy ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// All of it was done.
    Done {
        /// What the guest has received, or sent.
        sum: Sum,
        /// Files, directories and links.
        entries: u64,
    },
    /// It was given up.
    Failed {
        /// What was wrong with which file; one sentence.
        message: String,
    },
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFrame {
    /// Host to guest, type 32 (`flags u8 | length of the name u16 | name | path`), the first frame: what to copy.
    Request(CopyRequest),
    /// Type 33: bytes of the tar stream.
    Data(Bytes),
    /// Host to guest, type 34 (`bytes u64 | check u64`): the stream ends here.
    End(Sum),
    /// Guest to host, type 35: something was left out; one sentence.
    Warning(String),
    /// Guest to host, types 36 (`bytes u64 | check u64 | entries u64`) and 37 (one sentence), the last frame: how it ended.
    Outcome(CopyOutcome),
}

impl CopyFrame {
    /// The bytes on the stream. Texts that would not fit are cut.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Request(request) => header_and(REQUEST, &request.encode()),
            Self::Data(data) => header_and(DATA, data),
            Self::End(sum) => header_and(END, &sum.encode()),
            Self::Warning(text) => header_and(WARNING, cut(text)),
            Self::Outcome(CopyOutcome::Failed { message }) => header_and(FAILED, cut(message)),
            Self::Outcome(CopyOutcome::Done { sum, entries }) => {
                let mut payload = [0_u8; 24];
                payload[..16].copy_from_slice(&sum.encode());
                payload[16..].copy_from_slice(&entries.to_be_bytes());
                header_and(DONE, &payload)
            }
        }
    }

    /// The frame of this type with this payload.
    ///
    /// # Errors
    /// The type is unknown or the payload is not one of its kind.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, FrameError> {
        let len = payload.len();
        let wrong = || FrameError::WrongLength { kind, len };
        let text = || String::from_utf8_lossy(&payload).into_owned();
        Ok(match kind {
            REQUEST => Self::Request(CopyRequest::decode(&payload).ok_or_else(wrong)?),
            DATA => Self::Data(payload),
            END => Self::End(Sum::decode(payload[..].try_into().map_err(|_| wrong())?)),
            WARNING => Self::Warning(text()),
            DONE => {
                let (sum, entries) = payload.split_first_chunk().ok_or_else(wrong)?;
                Self::Outcome(CopyOutcome::Done {
                    sum: Sum::decode(*sum),
                    entries: u64::from_be_bytes(entries.try_into().map_err(|_| wrong())?),
                })
            }
            FAILED => Self::Outcome(CopyOutcome::Failed { message: text() }),
            other => return Err(FrameError::UnknownType(other)),
        })
    }
}

impl Sum {
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bytes.to_be_bytes());
        bytes[8..].copy_from_slice(&self.check.to_be_bytes());
        bytes
    }

    fn decode(bytes: [u8; 16]) -> Self {
        let [check, length] = [0, 64].map(|shift| (u128::from_be_bytes(bytes) >> shift) as u64);
        Self {
            bytes: length,
            check,
        }
    }
}

/// Requests to the guest are no JSON: paths are bytes, and the agent is to stay small.
impl CopyRequest {
    fn encode(&self) -> Vec<u8> {
        let (path, name, flags) = match self {
            Self::In(copy) => (
                &copy.path,
                &copy.name,
                flag(copy.directory, DIRECTORY)
                    | flag(copy.archive, ARCHIVE)
                    | flag(copy.keep_owner, KEEP_OWNER),
            ),
            Self::Out(copy) => (&copy.path, &copy.name, OUT | flag(copy.follow, FOLLOW)),
        };
        let text = name.as_ref().map_or(&[][..], |name| &name.0);
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![flags | flag(name.is_some(), NAMED)];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(&path.0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[flags, high, low], rest) = bytes.split_first_chunk()?;
        let (name, path) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        let path = PathBytes::from(path);
        let name = (flags & NAMED != 0).then(|| PathBytes::from(name));
        Some(if flags & OUT == 0 {
            Self::In(CopyIn {
                path,
                name,
                directory: flags & DIRECTORY != 0,
                archive: flags & ARCHIVE != 0,
                keep_owner: flags & KEEP_OWNER != 0,
            })
        } else {
            Self::Out(CopyOut {
                path,
                name,
                follow: flags & FOLLOW != 0,
            })
        })
    }
}

const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// The header of a data frame, for callers that read its payload right behind it.
pub fn data_header(len: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [DATA, a, b, c, d]
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(MAX_PAYLOAD)]
}

fn header_and(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + payload.len());
    bytes.put_u8(kind);
    bytes.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The frames of a body.
#[derive(Debug)]
pub struct CopyFrames {
    body: Incoming,
    buffer: BytesMut,
}

impl CopyFrames {
    /// Reads frames from a body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` once the body has ended or was cut. May be dropped and called again.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub async fn next(&mut self) -> Result<Option<CopyFrame>, FrameError> {
        loop {
            if let Some((&[kind, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if len > MAX_PAYLOAD {
                    return Err(FrameError::TooLong(len));
                }
                if self.buffer.len() >= HEADER + len {
                    self.buffer.advance(HEADER);
                    return CopyFrame::decode(kind, self.buffer.split_to(len).freeze()).map(Some);
                }
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Some(data) = part.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// A copy that runs: frames to the guest, encoded, and frames from it.
#[derive(Debug)]
pub struct CopyStream {
    /// To the guest. A body that ends without [`CopyFrame::End`] tells it that the host gave up.
    pub input: mpsc::Sender<Bytes>,
    /// From the guest. Dropping it ends the copy.
    pub output: CopyFrames,
    /// Keeps the session while the copy runs.
    pub session: GuestClient,
}

impl GuestClient {
    /// Begins a copy. Waits (on the guest's side, for at most 60 s) until the root file system is ready.
    ///
    /// # Errors
    /// The guest refuses, or the connection is lost.
    pub async fn copy(&self, request: &CopyRequest) -> Result<CopyStream, ClientError> {
        let (input, queue) = mpsc::channel(QUEUE);
        let first = vec![CopyFrame::Request(request.clone()).encode()];
        let response = self
            .send(
                Method::POST,
                COPY_PATH,
                FrameBody::new(first, queue).boxed(),
            )
            .await?;
        Ok(CopyStream {
            input,
            output: CopyFrames::new(response.into_body()),
            session: self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let sum = Sum {
            bytes: 1 << 40,
            check: 7,
        };
        for frame in [
            CopyFrame::Request(CopyRequest::In(CopyIn {
                path: PathBytes(b"/\xff".to_vec()),
                name: Some(PathBytes(b"n".to_vec())),
                directory: true,
                archive: false,
                keep_owner: true,
            })),
            CopyFrame::Request(CopyRequest::In(CopyIn {
                archive: true,
                ..CopyIn::default()
            })),
            CopyFrame::Request(CopyRequest::Out(CopyOut {
                path: PathBytes(b"x".to_vec()),
                name: None,
                follow: true,
            })),
            CopyFrame::Data(Bytes::from_static(b"\0\xff")),
            CopyFrame::End(sum),
            CopyFrame::Warning("left out".into()),
            CopyFrame::Outcome(CopyOutcome::Done { sum, entries: 3 }),
            CopyFrame::Outcome(CopyOutcome::Failed {
                message: "full".into(),
            }),
        ] {
            let mut bytes = frame.encode();
            let kind = bytes[0];
            assert!((FIRST_TYPE..=LAST_TYPE).contains(&kind));
            bytes.advance(HEADER);
            assert_eq!(CopyFrame::decode(kind, bytes).unwrap(), frame);
        }
        assert_eq!(data_header(258), [DATA, 0, 0, 1, 2]);
        let long = CopyFrame::Outcome(CopyOutcome::Failed {
            message: "\u{1}".repeat(100_000),
        });
        assert!(long.encode().len() <= HEADER + MAX_PAYLOAD);
        for (kind, bad) in [
            (END, &b"123456789012345"[..]),
            (END, b"12345678901234567"),
            (DONE, b"12345678901234567890123"),
            (DONE, b""),
            (REQUEST, b"\0\0"),
            (REQUEST, b"\0\0\x02n"),
            (FAILED + 1, b""),
        ] {
            let refused = CopyFrame::decode(kind, Bytes::from_static(bad));
            assert!(refused.is_err(), "{kind} {bad:?}");
        }
    }

    #[test]
    fn requests_of_the_api_with_any_path() {
        let request = CopyRequest::In(CopyIn {
            path: PathBytes(b"/root/\xff".to_vec()),
            name: Some(PathBytes(b"a\nb".to_vec())),
            ..CopyIn::default()
        });
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"in":{"path":[47,114,111,111,116,47,255],"name":"a\nb","directory":false,"archive":false,"keep_owner":false}}"#
        );
        assert_eq!(serde_json::from_str::<CopyRequest>(&json).unwrap(), request);
        assert!(serde_json::from_str::<CopyRequest>(r#"{"out":{"path":"x","y":1}}"#).is_err());
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let check = |path: &[u8], name: Option<&[u8]>| {
            CopyRequest::Out(CopyOut {
                path: path.into(),
                name: name.map(PathBytes::from),
                follow: false,
            })
            .check()
        };
        assert_eq!(check(b"", None), Ok(()));
        assert_eq!(check(b"../x", Some(b"x")), Ok(()));
        for (path, name) in [
            (&b"a\0b"[..], None),
            (&[b'a'; 4096][..], None),
            (b"a", Some(&b".."[..])),
            (b"a", Some(b"")),
            (b"a", Some(b"a/b")),
        ] {
            assert!(check(path, name).is_err(), "{path:?} {name:?}");
        }
    }
}
