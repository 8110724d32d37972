//! Sessions on the channel: hello, ack, HTTP/2, until the next hello or a hang-up.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use banger_wire::guest::h2;
use banger_wire::guest::handshake::{Ack, Hello, HelloScanner, NextHello, PROTOCOL_VERSION};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;

use crate::guest::{Guest, Place};
use crate::port::Port;
use crate::serve;

/// Bytes read from the port in one go; the port gives 4096 at a time.
const READ_AT_ONCE: usize = 64 * 1024;

/// The port and where in its stream we are.
#[derive(Debug)]
struct Channel {
    port: Port,
    scanner: HelloScanner,
    /// Bytes of the session that could not be read in place.
    pending: Vec<u8>,
    /// The hello that ended the session.
    next: Option<Hello>,
    over: bool,
    buffer: Box<[MaybeUninit<u8>]>,
}

type Shared = Arc<Mutex<Channel>>;

fn lock(channel: &Shared) -> MutexGuard<'_, Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one session after the other. Ends with the stream if that is a socket, or if the port fails.
pub async fn serve(port: Port, guest: Arc<Guest>) -> io::Result<()> {
    let channel = Arc::new(Mutex::new(Channel {
        port,
        scanner: HelloScanner::idle(guest.token),
        pending: Vec::new(),
        next: None,
        over: false,
        buffer: Box::new_uninit_slice(READ_AT_ONCE),
    }));
    let mut next = None;
    loop {
        let hello = match next.take() {
            Some(hello) => hello,
            None => match wait_for_hello(&channel, guest.place == Place::Local).await? {
                Some(hello) => hello,
                None => return Ok(()),
            },
        };
        if send_ack(&channel, &guest, hello).await.is_ok() {
            guest.set_greeted();
            guest.set_hosted(true);
            serve_http(&channel, &guest).await;
            guest.set_hosted(false);
        }
        next = end_session(&channel);
    }
}

/// Discards input until a hello; `None` is the end of a socket.
async fn wait_for_hello(channel: &Shared, ends: bool) -> io::Result<Option<Hello>> {
    poll_fn(|cx| {
        let mut channel = lock(channel);
        let Channel {
            port,
            scanner,
            buffer,
            ..
        } = &mut *channel;
        loop {
            let count = ready!(port.poll_read(cx, buffer))?;
            if count == 0 && ends {
                return Poll::Ready(Ok(None));
            }
            // SAFETY: the port has written the first `count` bytes.
            let bytes = unsafe { initialised(&buffer[..count]) };
            if let Some(hello) = scanner.find(bytes) {
                return Poll::Ready(Ok(Some(hello)));
            }
        }
    })
    .await
}

async fn send_ack(channel: &Shared, guest: &Guest, hello: Hello) -> io::Result<()> {
    let ack = Ack {
        nonce: hello.nonce,
        version: hello.version.min(PROTOCOL_VERSION),
        flags: 0,
        boot_nonce: guest.boot_nonce,
        agent_version: agent_version(),
    }
    .encode();
    lock(channel).port.forget_hang_up();
    let mut sent = 0;
    poll_fn(|cx| {
        let mut channel = lock(channel);
        while sent < ack.len() {
            sent += ready!(channel.port.poll_write(cx, &ack[sent..]))?;
        }
        Poll::Ready(Ok(()))
    })
    .await
}

fn agent_version() -> [u16; 3] {
    let part = |text: &str| text.parse().unwrap_or(0);
    [
        part(env!("CARGO_PKG_VERSION_MAJOR")),
        part(env!("CARGO_PKG_VERSION_MINOR")),
        part(env!("CARGO_PKG_VERSION_PATCH")),
    ]
}

async fn serve_http(channel: &Shared, guest: &Arc<Guest>) {
    let service = service_fn(move |request| serve::route(Arc::clone(guest), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(h2::STREAM_WINDOW)
        .initial_connection_window_size(h2::CONNECTION_WINDOW)
        .max_concurrent_streams(h2::MAX_STREAMS)
        .max_frame_size(h2::MAX_FRAME)
        .max_send_buf_size(h2::MAX_SEND_BUFFER)
        .serve_connection(SessionIo(Arc::clone(channel)), service);
    // However it ends, the host is gone or comes back with a hello; dropping the connection ends its streams.
    let _ = connection.await;
}

/// Leaves the session; gives the hello that ended it, if one did.
fn end_session(channel: &Shared) -> Option<Hello> {
    let mut channel = lock(channel);
    channel.pending.clear();
    channel.over = false;
    let next = channel.next.take();
    if next.is_none() {
        channel.scanner.reset();
    }
    next
}

/// The session's bytes, as hyper wants them.
struct SessionIo(Shared);

impl Channel {
    /// Reads bytes of the session into `spare`; `Ok(0)` is its end.
    fn poll_session(
        &mut self,
        cx: &mut Context<'_>,
        spare: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        if self.over || spare.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let limit = spare.len().min(READ_AT_ONCE);
        let mut filled = 0;
        if self.pending.is_empty() {
            // Bytes read together with the hello.
            self.take(&[]);
        }
        while filled < limit && self.pending.is_empty() && !self.over {
            let count = match self.port.poll_read(cx, &mut spare[filled..limit]) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Pending => break,
            };
            if count == 0 {
                self.over = true;
                break;
            }
            // SAFETY: the port has written these `count` bytes.
            let bytes = unsafe { initialised(&spare[filled..filled + count]) };
            if self.scanner.passes(bytes) {
                filled += count;
            } else {
                self.take(bytes);
            }
        }
        if filled == 0 && !self.over {
            filled = self.pending.len().min(limit);
            for (to, from) in spare.iter_mut().zip(self.pending.drain(..filled)) {
                to.write(from);
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Gives bytes to the scanner that cannot be delivered where they are.
    fn take(&mut self, bytes: &[u8]) {
        if let Some(NextHello(hello)) = self.scanner.session(bytes, &mut self.pending) {
            self.next = Some(hello);
            self.over = true;
        }
    }
}

impl Read for SessionIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut channel = lock(&self.0);
        // SAFETY: nothing uninitialised is written into the buffer, and only written bytes are advanced over.
        unsafe {
            let count = ready!(channel.poll_session(cx, cursor.as_mut()))?;
            cursor.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for SessionIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut channel = lock(&self.0);
        if channel.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        channel.port.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The port is never closed: it outlives every session.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// # Safety
/// All of `bytes` must have been written.
unsafe fn initialised(bytes: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and the caller vouches for the content.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}
