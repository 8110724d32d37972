//! The client of the API. One connection per call: on a Unix socket that costs microseconds, and no call waits
//! for another.

use super::method::{Method, Shape};
use super::{
    API_VERSION, API_VERSION_HEADER, ApiError, Decoder, Event, Events, Frame, FrameError,
    METRICS_PATH, Notice, REQUEST_HEADER, UPGRADE, frame,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use std::{
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Longest answer of a method that answers with one object, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error("cannot connect to the daemon at {socket}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon that listened ended before it had read the request: nothing was done.
    #[error("the daemon ended before it read the request")]
    Unread(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended before the answer was complete. Whether it was done is unknown.
    #[error("the connection to the daemon was lost")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream ended without its last event or frame.
    #[error("the daemon ended before the operation did")]
    Cut,
    /// The daemon refused or failed; it says how.
    #[error("{0}")]
    Api(ApiError),
    /// What was answered is not what this API answers.
    #[error("the daemon's answer to {method} cannot be read")]
    Json {
        /// The method.
        method: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A frame that is none.
    #[error("the daemon sent a bad frame")]
    Frame(#[source] FrameError),
}

impl ClientError {
    /// True if there was nobody to be asked: the daemon is to be started, and may be asked the same.
    pub fn no_daemon(&self) -> bool {
        match self {
            // Reset: it ended with us in its queue (Linux `unix_release_sock`), where nothing of ours has been read.
            ClientError::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
            ),
            ClientError::Unread(_) => true,
            _ => false,
        }
    }
}

type Lost = Box<dyn std::error::Error + Send + Sync>;

fn lost(error: impl Into<Lost>) -> ClientError {
    ClientError::Lost(error.into())
}

/// Why a request that is sent whole before its answer had none.
///
/// A Unix socket whose peer closes it, or which was never accepted, is reset only if something sent to it was not read
/// (Linux `unix_release_sock`), and refuses what is written after. Either way a part of the request is missing at the
/// daemon, which does nothing before it has all. What hyper cancels it has not begun to send.
fn unanswered(error: hyper::Error) -> ClientError {
    let cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>());
    let unread = cause.is_some_and(|e| {
        matches!(
            e.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    });
    if unread || error.is_canceled() {
        return ClientError::Unread(error.into());
    }
    lost(error)
}

fn head(method: &str) -> hyper::http::request::Builder {
    Request::post(format!("/v1/{method}"))
        .header(header::HOST, "banger")
        .header(API_VERSION_HEADER, API_VERSION)
}

/// A body that comes piece by piece.
struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<hyper::body::Frame<Bytes>>>> {
        let chunk = self.0.poll_recv(cx);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(hyper::body::Frame::data)))
    }
}

/// Speaks to the daemon at a socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the daemon at this socket; connects with each call.
    pub fn new(socket: PathBuf) -> Self {
        Client { socket }
    }

    /// Calls a method that answers with one object.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says.
    pub async fn call<M: Method>(&self, request: &M) -> Result<M::Reply, ClientError> {
        debug_assert_eq!(M::SHAPE, Shape::Json);
        let answer = self.send(request, false).await?;
        let body = whole(answer).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Json {
            method: M::NAME,
            source,
        })
    }

    /// Calls a method that streams events.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says before the first event.
    pub async fn events<M: Method>(&self, request: &M) -> Result<EventStream, ClientError> {
        debug_assert_eq!(M::SHAPE, Shape::Events);
        let answer = self.send(request, false).await?;
        Ok(EventStream::of(M::NAME, answer))
    }

    /// Listens to what happens.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says before the first notice.
    pub async fn notices(&self) -> Result<NoticeStream, ClientError> {
        let answer = self.send(&Events {}, false).await?;
        Ok(NoticeStream(Lines::of(Events::NAME, answer)))
    }

    /// The daemon's metrics, in Prometheus's text format.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let http = Request::get(METRICS_PATH)
            .header(header::HOST, "banger")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::new()))
            .map_err(lost)?;
        let answer = self.exchange("metrics", http, StatusCode::OK).await?;
        let body = whole(answer).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Calls a method that upgrades to frames.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says before the upgrade.
    pub async fn frames<M: Method>(
        &self,
        request: &M,
    ) -> Result<(FrameSender, FrameReceiver), ClientError> {
        debug_assert_eq!(M::SHAPE, Shape::Frames);
        let answer = self.send(request, true).await?;
        let stream = hyper::upgrade::on(answer).await.map_err(lost)?;
        let parts = stream
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| lost("the connection is not the one that was opened"))?;
        let (read, write) = tokio::io::split(parts.io.into_inner());
        let mut decoder = Decoder::default();
        decoder.push(&parts.read_buf);
        let receiver = FrameReceiver {
            read,
            decoder,
            exited: false,
        };
        Ok((FrameSender { write }, receiver))
    }

    /// Calls a method whose body is data and which streams events. An error among the chunks cuts the connection, so
    /// that what was sent is never taken for the whole.
    ///
    /// # Errors
    /// No connection, a lost connection, or what the daemon says before the first event.
    pub async fn upload<M: Method>(
        &self,
        request: &M,
        chunks: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<EventStream, ClientError> {
        debug_assert_eq!(M::SHAPE, Shape::Upload);
        let json = serde_json::to_vec(request).map_err(|source| ClientError::Json {
            method: M::NAME,
            source,
        })?;
        let http = head(M::NAME)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(REQUEST_HEADER, json)
            .header(header::CONNECTION, "close")
            .body(Chunks(chunks))
            .map_err(lost)?;
        let answer = self.exchange(M::NAME, http, StatusCode::OK).await;
        // The request is in the header, and data that was not read says nothing of it.
        let answer = answer.map_err(|error| match error {
            ClientError::Unread(error) => ClientError::Lost(error),
            error => error,
        })?;
        Ok(EventStream::of(M::NAME, answer))
    }

    async fn send<M: Method>(
        &self,
        request: &M,
        upgrade: bool,
    ) -> Result<Response<Incoming>, ClientError> {
        let body = serde_json::to_vec(request).map_err(|source| ClientError::Json {
            method: M::NAME,
            source,
        })?;
        let mut http = head(M::NAME).header(header::CONTENT_TYPE, "application/json");
        if upgrade {
            http = http
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, UPGRADE);
        } else {
            http = http.header(header::CONNECTION, "close");
        }
        let http = http.body(Full::new(Bytes::from(body))).map_err(lost)?;
        let wanted = if upgrade {
            StatusCode::SWITCHING_PROTOCOLS
        } else {
            StatusCode::OK
        };
        self.exchange(M::NAME, http, wanted).await
    }

    async fn exchange<B>(
        &self,
        method: &'static str,
        http: Request<B>,
        wanted: StatusCode,
    ) -> Result<Response<Incoming>, ClientError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Lost>,
    {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect {
                    socket: self.socket.clone(),
                    source,
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(lost)?;
        // Ends with the answer's body, or hands the socket over.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        let answer = sender.send_request(http).await.map_err(unanswered)?;
        if answer.status() == wanted {
            return Ok(answer);
        }
        let status = answer.status();
        let body = whole(answer).await?;
        Err(match serde_json::from_slice(&body) {
            Ok(error) => ClientError::Api(error),
            Err(_) => lost(format!("the daemon answered {status} to {method}")),
        })
    }
}

/// All of an answer.
async fn whole(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER);
    Ok(body.collect().await.map_err(lost)?.to_bytes())
}

/// Lines of JSON as they come.
#[derive(Debug)]
struct Lines {
    method: &'static str,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn of(method: &'static str, answer: Response<Incoming>) -> Self {
        Lines {
            method,
            body: answer.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next line; `None` at the end of the stream.
    async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let read = serde_json::from_slice(&line);
                return read.map(Some).map_err(|source| ClientError::Json {
                    method: self.method,
                    source,
                });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(lost(error)),
                None => return Ok(None),
            }
        }
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct EventStream {
    lines: Lines,
    ended: bool,
}

impl EventStream {
    fn of(method: &'static str, answer: Response<Incoming>) -> Self {
        EventStream {
            lines: Lines::of(method, answer),
            ended: false,
        }
    }

    /// The next event. After [`Event::Done`] there is none; [`Event::Failed`] comes as [`ClientError::Api`].
    ///
    /// # Errors
    /// The operation failed, or the stream ended before it did.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let event = self.lines.next().await?.ok_or(ClientError::Cut)?;
        self.ended = matches!(event, Event::Done { .. } | Event::Failed { .. });
        match event {
            Event::Failed { error } => Err(ClientError::Api(error)),
            event => Ok(Some(event)),
        }
    }
}

/// Notices as they come.
#[derive(Debug)]
pub struct NoticeStream(Lines);

impl NoticeStream {
    /// The next notice; `None` when the daemon ends.
    ///
    /// # Errors
    /// The connection is lost, or what came is no notice.
    pub async fn next(&mut self) -> Result<Option<Notice>, ClientError> {
        self.0.next().await
    }
}

/// The sending half after an upgrade.
#[derive(Debug)]
pub struct FrameSender {
    write: WriteHalf<UnixStream>,
}

impl FrameSender {
    /// Sends a frame; waits while the daemon does not read.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, frame: &frame::Frame) -> Result<(), ClientError> {
        self.send_encoded(&frame.encode()).await
    }

    /// Sends a frame's bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_encoded(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        self.write.write_all(frame).await.map_err(lost)
    }
}

/// The receiving half after an upgrade.
#[derive(Debug)]
pub struct FrameReceiver {
    read: ReadHalf<UnixStream>,
    decoder: Decoder,
    /// The exit frame of a command, or the outcome of a copy, has come.
    exited: bool,
}

impl FrameReceiver {
    /// The next frame, `None` at the end of the stream. Whether the end came in order is for the caller to say: a
    /// stream without its exit or error frame was cut. [`Frame::Error`] comes as [`ClientError::Api`].
    ///
    /// # Errors
    /// The daemon says so, sent what is no frame, or the connection broke inside one.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            match self.decoder.next_frame().map_err(ClientError::Frame)? {
                Some(Frame::Error(error)) => return Err(ClientError::Api(error)),
                Some(frame) => {
                    self.exited |= matches!(
                        frame,
                        Frame::Command(crate::guest::frame::Frame::Exit(_))
                            | Frame::Copy(crate::guest::CopyFrame::Outcome(_))
                    );
                    return Ok(Some(frame));
                }
                None => {}
            }
            let buffer = self.decoder.buffer();
            buffer.reserve(64 * 1024);
            let count = match self.read.read_buf(buffer).await {
                // After the last frame of a command it is no matter how the daemon closes its end.
                Err(_) if self.exited => 0,
                other => other.map_err(lost)?,
            };
            if count == 0 {
                return if self.decoder.is_empty() {
                    Ok(None)
                } else {
                    Err(ClientError::Cut)
                };
            }
        }
    }
}
