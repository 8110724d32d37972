//! One connection from the host to a socket in the guest: a `POST` that names the socket in its path. Both bodies are
//! frames of [`super::frame`]: 0 to the guest, 1 to the host, and 4 from either side when it has sent its last byte, so
//! that each direction ends for itself. A body that ends before its frame 4 tells that the connection broke.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::sync::mpsc;

use super::body::{FrameBody, Frames};
use super::client::{ClientError, GuestClient, RequestBody};
use super::frame::{self, Frame, FrameError};
use super::hex;

/// What the path of the method begins with; a [`ForwardTarget`] follows.
pub const FORWARD_PATH: &str = "/v1/forward/";
/// Status of a refusal because nobody listens at the target, or it cannot be reached.
pub const UNREACHABLE: u16 = 502;
/// Connections at the same time in one guest: half of a session's streams, so that commands always have some.
pub const MOST_FORWARDS: usize = 128;
/// Frames that wait for the channel.
const QUEUE: usize = 4;
/// What the text of a Unix socket begins with; the rest is its path in hexadecimal digits.
const UNIX: &str = "unix:";

/// Where in the guest a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardTarget {
    /// A port of the guest's loopback: of 127.0.0.1, or of ::1 if nobody listens there.
    Loopback(u16),
    /// An address, of the guest or beyond it.
    Address(SocketAddr),
    /// A Unix socket.
    Unix(Vec<u8>),
}

impl ForwardTarget {
    /// A port of `host`, or of the loopback.
    pub fn new(host: Option<IpAddr>, port: u16) -> Self {
        host.map_or(Self::Loopback(port), |host| {
            Self::Address(SocketAddr::new(host, port))
        })
    }
}

/// As in the path of the method: a port, an address with its port, or `unix:` and hexadecimal digits.
impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(port) => write!(f, "{port}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", hex::encode(path)),
        }
    }
}

impl FromStr for ForwardTarget {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return hex::decode(path).map(Self::Unix).ok_or(());
        }
        match text.parse() {
            Ok(port) => Ok(Self::Loopback(port)),
            Err(_) => text.parse().map(Self::Address).map_err(|_| ()),
        }
    }
}

/// A connection that was made.
#[derive(Debug)]
pub struct ForwardStream {
    /// To the guest.
    pub input: ForwardInput,
    /// From it. Dropping it breaks the connection.
    pub output: ForwardOutput,
}

/// What goes to the guest. Dropping it is *not* the end; [`ForwardInput::eof`] is.
#[derive(Debug)]
pub struct ForwardInput(mpsc::Sender<Bytes>);

impl ForwardInput {
    /// Sends bytes; waits while the guest does not read.
    ///
    /// # Errors
    /// The guest takes no more; the output tells why.
    pub async fn send(&self, data: Bytes) -> Result<(), ClientError> {
        for part in frame::split(data) {
            self.put(&Frame::Stdin(part)).await?;
        }
        Ok(())
    }

    /// There will be no more bytes to the guest.
    ///
    /// # Errors
    /// As [`ForwardInput::send`].
    pub async fn eof(&self) -> Result<(), ClientError> {
        self.put(&Frame::StdinEof).await
    }

    async fn put(&self, frame: &Frame) -> Result<(), ClientError> {
        let sent = self.0.send(frame.encode()).await;
        sent.map_err(|_| ClientError::ConnectionLost)
    }
}

/// Something that came through a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardEvent {
    /// Bytes.
    Data(Bytes),
    /// There will be no more bytes from the guest; what goes to it goes on.
    Eof,
}

/// What comes from the guest.
#[derive(Debug)]
pub struct ForwardOutput {
    frames: Frames,
    eof: bool,
    /// Keeps the session while the connection is there.
    _session: GuestClient,
}

impl ForwardOutput {
    /// The next event; `None`, once, when the guest has all that was sent to it too. May be dropped and called again without
    /// losing anything.
    ///
    /// # Errors
    /// The connection broke: in the guest, or with it.
    pub async fn next(&mut self) -> Result<Option<ForwardEvent>, ClientError> {
        match self.frames.next().await.map_err(ClientError::Frame)? {
            Some(Frame::Stdout(data)) if !self.eof => Ok(Some(ForwardEvent::Data(data))),
            Some(Frame::StdinEof) if !self.eof => {
                self.eof = true;
                Ok(Some(ForwardEvent::Eof))
            }
            Some(Frame::End) if self.eof => Ok(None),
            Some(_) => Err(ClientError::Frame(FrameError::Misplaced)),
            None => Err(ClientError::ConnectionLost),
        }
    }
}

impl ClientError {
    /// Whether nobody listens where a connection was to lead, or it cannot be reached.
    pub const fn unreachable(&self) -> bool {
        matches!(self, ClientError::Refused { status, .. } if *status == UNREACHABLE)
    }
}

impl GuestClient {
    /// Connects to a socket in the guest. Waits (on the guest's side, for at most 60 s) until it is ready.
    ///
    /// # Errors
    /// Nobody listens there, the guest refuses, or the session is lost.
    pub async fn forward(&self, target: &ForwardTarget) -> Result<ForwardStream, ClientError> {
        let (input, queue) = mpsc::channel(QUEUE);
        let body: RequestBody = FrameBody::new(Vec::new(), queue).boxed();
        let path = format!("{FORWARD_PATH}{target}");
        let response = self.send(Method::POST, &path, body).await?;
        Ok(ForwardStream {
            input: ForwardInput(input),
            output: ForwardOutput {
                frames: Frames::new(response.into_body()),
                eof: false,
                _session: self.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_back_from_their_text() {
        for (target, text) in [
            (ForwardTarget::new(None, 80), "80"),
            (
                ForwardTarget::new(Some(IpAddr::from([10, 0, 2, 15])), 80),
                "10.0.2.15:80",
            ),
            (
                ForwardTarget::new(Some("::1".parse().unwrap()), 8080),
                "[::1]:8080",
            ),
            (
                ForwardTarget::Unix(b"/run/\xffx".to_vec()),
                "unix:2f72756e2fff78",
            ),
        ] {
            assert_eq!(target.to_string(), text);
            assert_eq!(text.parse(), Ok(target));
            let uri = format!("http://guest{FORWARD_PATH}{text}");
            assert!(uri.parse::<hyper::Uri>().is_ok(), "{uri}");
        }
        for bad in ["", "65536", "x:1", "unix:2", "unix:zz", "1.2.3.4"] {
            assert_eq!(bad.parse::<ForwardTarget>(), Err(()), "{bad}");
        }
    }
}
