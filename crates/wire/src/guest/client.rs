//! The host's end of a session: HTTP/2 over the stream that the handshake gave.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};

use super::body::{FrameBody, Frames};
use super::connect::Connected;
use super::exec::{
    ATTACH_PATH, AttachRequest, COLLECTED_PATH, EXEC_PATH, ExecId, ExecRequest, ExitStatus,
    GuestError, HEALTH_PATH, Health, NOT_READY, POWER_OFF_PATH, PROTOCOL_WITH_IDS, READY_PATH,
    SYNC_PATH, TtySize, UNKNOWN,
};
use super::frame::{self, Frame, FrameError, Taken};
use super::h2;
use super::handshake::Ack;

/// Largest answer of a method that is not exec, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Frames of an exec's input that may wait for the channel.
const INPUT_QUEUE: usize = 4;
/// How long a guest may take to hear that nobody will come for a command again.
pub const FAREWELL: std::time::Duration = std::time::Duration::from_secs(2);

/// Why a call to the guest failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The session ended (the guest died or rebooted, the VMM ended, a ping stayed unanswered) before the answer
    /// was complete. Whether the guest did what was asked is unknown.
    #[error("the connection to the guest was lost")]
    ConnectionLost,
    /// The agent refused, with its reason.
    #[error("the guest refused: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The agent's sentence.
        message: String,
    },
    /// The agent sent something that is not in the protocol.
    #[error("the guest sent a bad frame")]
    Frame(#[source] FrameError),
    /// The agent's answer is not the JSON it should be, or the request cannot be written as JSON.
    #[error("a message on the guest channel cannot be read or written")]
    Json(#[source] serde_json::Error),
}

impl ClientError {
    /// Why the guest cannot run commands, if that is what it said.
    pub fn not_ready(&self) -> Option<&str> {
        match self {
            ClientError::Refused { status, message } if *status == NOT_READY => Some(message),
            _ => None,
        }
    }

    /// Whether the guest knows no such command, or, being older than we are, no such method.
    pub const fn unknown(&self) -> bool {
        matches!(self, ClientError::Refused { status, .. } if *status == UNKNOWN)
    }
}

pub(super) type RequestBody = BoxBody<Bytes, Infallible>;

/// A session with the agent of one VM. Clones share it; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct GuestClient {
    sender: SendRequest<RequestBody>,
    ack: Ack,
    closed: watch::Receiver<bool>,
    connection: Arc<AbortOnDrop>,
}

/// Ends the connection with the last client: nothing is read from the stream, or written to it, any more. Aborting our
/// task is not enough, because hyper speaks HTTP/2 in one of its own.
#[derive(Debug)]
struct AbortOnDrop {
    task: tokio::task::JoinHandle<()>,
    over: Arc<AtomicBool>,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.task.abort();
    }
}

impl GuestClient {
    /// Starts HTTP/2 on a stream on which the guest has answered. Spawns one task on the current runtime.
    pub async fn start<S>(connected: Connected<S>) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connected { stream, rest, ack } = connected;
        let over = Arc::new(AtomicBool::new(false));
        let stream = Rewound {
            rest,
            stream,
            over: Arc::clone(&over),
        };
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2::STREAM_WINDOW)
            .initial_connection_window_size(h2::CONNECTION_WINDOW)
            .max_frame_size(h2::MAX_FRAME)
            .max_send_buf_size(h2::MAX_SEND_BUFFER)
            .keep_alive_interval(h2::PING_INTERVAL)
            .keep_alive_timeout(h2::PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| ClientError::ConnectionLost)?;
        let (ended, closed) = watch::channel(false);
        let task = tokio::spawn(async move {
            // Every caller learns of the end through its own request; the reason is always a lost connection.
            let _ = connection.await;
            let _ = ended.send(true);
        });
        Ok(Self {
            sender,
            ack,
            closed,
            connection: Arc::new(AbortOnDrop { task, over }),
        })
    }

    /// The agent's answer to the hello: boot nonce, version.
    pub fn ack(&self) -> &Ack {
        &self.ack
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for the end of the session.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the connection's task is gone, which is an end too.
        let _ = closed.wait_for(|ended| *ended).await;
    }

    /// Asks how far the boot is.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.call(Method::GET, HEALTH_PATH).await
    }

    /// Waits (on the guest's side, for at most 60 s) until the guest runs commands: its root file system is ready.
    /// One that cannot refuses with its reason ([`ClientError::not_ready`]).
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::GET, READY_PATH)
            .await
            .map(drop)
    }

    /// Writes the guest's caches to its disks.
    pub async fn sync(&self) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::POST, SYNC_PATH)
            .await
            .map(drop)
    }

    /// Asks for an orderly power-off. The answer means that it has begun; the end is the VMM's exit.
    pub async fn poweroff(&self) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::POST, POWER_OFF_PATH)
            .await
            .map(drop)
    }

    /// Whether the agent knows commands by their ids; an older one does not.
    pub const fn knows_ids(&self) -> bool {
        self.ack.version >= PROTOCOL_WITH_IDS
    }

    /// Starts a command, or attaches to the one that has its id. Waits (on the guest's side, for at most 60 s) until
    /// the root file system is ready.
    ///
    /// A command without an id ends with its stream: dropping the [`ExecOutput`] gets it SIGHUP.
    pub async fn exec(&self, request: &ExecRequest) -> Result<ExecStream, ClientError> {
        self.stream(EXEC_PATH, request).await
    }

    /// Attaches to a command again. The first event is what has arrived of its input.
    pub async fn attach(&self, request: &AttachRequest) -> Result<ExecStream, ClientError> {
        self.stream(ATTACH_PATH, request).await
    }

    /// Waits until a command has ended and its output has been got, or nobody came for it; returns at once if the guest
    /// knows none of this id.
    pub async fn collected(&self, id: ExecId) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::GET, &format!("{COLLECTED_PATH}{id}"))
            .await
            .map(drop)
    }

    async fn stream<T: serde::Serialize>(
        &self,
        path: &str,
        request: &T,
    ) -> Result<ExecStream, ClientError> {
        let first = frame::request_frames(request).map_err(ClientError::Json)?;
        let first = first.iter().map(Frame::encode).collect();
        let (sender, queue) = mpsc::channel(INPUT_QUEUE);
        let body = FrameBody::new(first, queue);
        let response = self.send(Method::POST, path, body.boxed()).await?;
        let output = ExecOutput {
            frames: Frames::new(response.into_body()),
            ended: false,
            _connection: Arc::clone(&self.connection),
        };
        let input = ExecInput {
            sender,
            knows_ids: self.knows_ids(),
        };
        Ok(ExecStream { input, output })
    }

    /// A method without a request body whose answer is one JSON value.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, Empty::new().boxed()).await?;
        serde_json::from_slice(&collect(response).await?).map_err(ClientError::Json)
    }

    /// A method whose request and answer are one JSON value each.
    pub(super) async fn call_with<Q: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: &Q,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(request).map_err(ClientError::Json)?;
        let body = Full::new(Bytes::from(json)).boxed();
        let response = self.send(method, path, body).await?;
        serde_json::from_slice(&collect(response).await?).map_err(ClientError::Json)
    }

    /// Sends a request; gives the answer's head.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://guest{path}")
            .parse()
            .map_err(|_| ClientError::ConnectionLost)?;
        let response = self
            .sender
            .clone()
            .send_request(request)
            .await
            .map_err(|_| ClientError::ConnectionLost)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = collect(response).await?;
        let message = match serde_json::from_slice::<GuestError>(&bytes) {
            Ok(error) => error.message,
            Err(_) => format!("HTTP status {status}"),
        };
        Err(ClientError::Refused { status, message })
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    body.map(|body| body.to_bytes())
        .map_err(|_| ClientError::ConnectionLost)
}

/// A running command: what goes in and what comes out, used side by side.
#[derive(Debug)]
pub struct ExecStream {
    /// Input, resizes and signals.
    pub input: ExecInput,
    /// Output and the exit status.
    pub output: ExecOutput,
}

impl ExecStream {
    /// The two halves; use them in separate tasks or one `select!`, or a terminal's echo can deadlock.
    pub fn split(self) -> (ExecInput, ExecOutput) {
        (self.input, self.output)
    }
}

/// What goes to a command. Dropping it is *not* the end of its standard input; [`ExecInput::eof`] is.
#[derive(Debug, Clone)]
pub struct ExecInput {
    sender: mpsc::Sender<Bytes>,
    /// An older agent ends the input at a frame it does not know.
    knows_ids: bool,
}

impl ExecInput {
    /// Whether the agent knows commands by their ids.
    pub const fn knows_ids(&self) -> bool {
        self.knows_ids
    }

    /// Sends bytes to the command's standard input; waits while the command does not read.
    pub async fn stdin(&self, data: Bytes) -> Result<(), ClientError> {
        for part in frame::split(data) {
            self.put(Frame::Stdin(part)).await?;
        }
        Ok(())
    }

    /// Ends the command's standard input (on a terminal: types ^D).
    pub async fn eof(&self) -> Result<(), ClientError> {
        self.put(Frame::StdinEof).await
    }

    /// Tells the command's terminal its new size.
    pub async fn resize(&self, size: TtySize) -> Result<(), ClientError> {
        self.put(Frame::Resize(size)).await
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, number: u8) -> Result<(), ClientError> {
        self.put(Frame::Signal(number)).await
    }

    /// So many bytes of output have arrived where they are used.
    pub async fn got(&self, offset: u64) -> Result<(), ClientError> {
        self.put_if_known(Frame::Got(offset)).await
    }

    /// Nobody will come for this command again: one that runs gets SIGHUP. Returns when the guest has heard it, or
    /// after [`FAREWELL`]; a stream that is just dropped takes along what it has not sent.
    pub async fn leave(self, mut output: ExecOutput) {
        if !self.knows_ids {
            return;
        }
        let told = async {
            if self.put(Frame::Leave).await.is_ok() {
                while output
                    .frames
                    .next()
                    .await
                    .is_ok_and(|frame| frame.is_some())
                {}
            }
        };
        // Who is not told in time hears it from nobody's coming.
        let _ = tokio::time::timeout(FAREWELL, told).await;
    }

    async fn put_if_known(&self, frame: Frame) -> Result<(), ClientError> {
        if self.knows_ids {
            self.put(frame).await
        } else {
            Ok(())
        }
    }

    /// `ConnectionLost` here means only that the command takes no more; its output tells why.
    async fn put(&self, frame: Frame) -> Result<(), ClientError> {
        self.sender
            .send(frame.encode())
            .await
            .map_err(|_| ClientError::ConnectionLost)
    }
}

/// Something a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes on its standard output, or on its terminal.
    Stdout(Bytes),
    /// Bytes on its standard error.
    Stderr(Bytes),
    /// What has arrived of its input.
    Taken(Taken),
    /// Its end; nothing follows.
    Exit(ExitStatus),
}

/// What comes from a command.
#[derive(Debug)]
pub struct ExecOutput {
    frames: Frames,
    ended: bool,
    _connection: Arc<AbortOnDrop>,
}

impl ExecOutput {
    /// The next event; `None` after the exit status. A body that ends without an exit status is
    /// [`ClientError::ConnectionLost`]. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let Some(frame) = self.frames.next().await.map_err(ClientError::Frame)? else {
            return Err(ClientError::ConnectionLost);
        };
        match frame {
            Frame::Stdout(data) => Ok(Some(ExecEvent::Stdout(data))),
            Frame::Stderr(data) => Ok(Some(ExecEvent::Stderr(data))),
            Frame::Taken(taken) => Ok(Some(ExecEvent::Taken(taken))),
            Frame::Exit(status) => {
                self.ended = true;
                Ok(Some(ExecEvent::Exit(status)))
            }
            // Frames of the other direction, or of another stream.
            Frame::Stdin(_)
            | Frame::Request { .. }
            | Frame::StdinEof
            | Frame::Resize(_)
            | Frame::Signal(_)
            | Frame::Got(_)
            | Frame::Leave
            | Frame::End => Err(ClientError::Frame(FrameError::Misplaced)),
        }
    }

    /// Reads to the end: standard output, standard error, status. Keeps everything in memory.
    pub async fn collect(mut self) -> Result<(Vec<u8>, Vec<u8>, ExitStatus), ClientError> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next().await? {
                Some(ExecEvent::Stdout(data)) => out.extend_from_slice(&data),
                Some(ExecEvent::Stderr(data)) => err.extend_from_slice(&data),
                Some(ExecEvent::Taken(_)) => {}
                Some(ExecEvent::Exit(status)) => return Ok((out, err, status)),
                None => return Err(ClientError::ConnectionLost),
            }
        }
    }
}

/// A stream whose first bytes were read already, and which others may use once it is over for us.
struct Rewound<S> {
    rest: Bytes,
    stream: S,
    over: Arc<AtomicBool>,
}

impl<S> Rewound<S> {
    fn check(&self) -> io::Result<()> {
        if self.over.load(Ordering::Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// The transport is never half-closed: QEMU and Firecracker would take that for a full close.
impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// These futures are held in spawned tasks.
#[allow(dead_code, reason = "checked by the compiler, never called")]
fn futures_are_send(client: &GuestClient, request: &ExecRequest, output: &mut ExecOutput) {
    fn send<F: Future + Send>(_: F) {}
    send(client.exec(request));
    send(client.health());
    send(client.ready());
    send(output.next());
}
