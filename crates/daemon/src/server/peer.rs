//! The client's end of an upgraded connection.

use super::body::{self, Answer};
use crate::daemon::Attached;
use banger_wire::api::{Decoder, Frame, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::{future::Future, io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How often a client that does not read is asked whether it is still there.
pub const LOOK: Duration = Duration::from_millis(500);
/// How long a client may take to read the last word.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How long a client may take to close its end after the last frame.
const FAREWELL: Duration = Duration::from_secs(2);

/// Answers a request by switching its connection to frames. `serve` has the client then, unless that left before; it
/// counts as attached until `serve` is done.
pub fn switch<F>(
    attached: Attached,
    upgrade: OnUpgrade,
    serve: impl FnOnce(Peer) -> F + Send + 'static,
) -> Response<Answer>
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        let _attached = attached;
        if let Some(client) = Peer::of(upgrade).await {
            serve(client).await;
        }
    });
    switching()
}

fn switching() -> Response<Answer> {
    let mut response = body::answer(
        StatusCode::SWITCHING_PROTOCOLS,
        "application/octet-stream",
        Answer::Whole(None),
    );
    let headers = response.headers_mut();
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("upgrade"),
    );
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
    response
}

/// Ends a stream so that its last frames arrive: a socket that is closed with input unread is reset, and a reset
/// overtakes what the client has not read yet.
pub async fn part(mut reader: Reader, mut writer: Writer) {
    // A client that is gone needs no farewell.
    let _ = writer.write.shutdown().await;
    let rest = async { while reader.next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, rest).await;
}

/// The two halves of an upgraded connection.
pub struct Peer {
    /// What it sends.
    pub reader: Reader,
    /// What it gets.
    pub writer: Writer,
}

impl Peer {
    /// `None` if the client left before the upgrade was done.
    pub async fn of(upgrade: OnUpgrade) -> Option<Peer> {
        let upgraded = upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
        let (read, write) = parts.io.into_inner().into_split();
        let mut decoder = Decoder::default();
        decoder.push(&parts.read_buf);
        let reader = Reader { read, decoder };
        let writer = Writer {
            write,
            broken: false,
        };
        Some(Peer { reader, writer })
    }
}

/// Frames of a client.
pub struct Reader {
    read: OwnedReadHalf,
    decoder: Decoder,
}

impl Reader {
    /// The next frame; `None` if the client left or sent what is none.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().ok()? {
                return Some(frame);
            }
            let buffer = self.decoder.buffer();
            buffer.reserve(16 * 1024);
            if self.read.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// A second descriptor of the socket to ask about its state while this one is read.
    pub fn socket(&self) -> Option<std::os::fd::OwnedFd> {
        use std::os::fd::AsFd;
        self.read.as_ref().as_fd().try_clone_to_owned().ok()
    }

    /// Whether the client is gone, unread bytes or not.
    pub fn hung_up(&self) -> bool {
        hung_up(&self.socket())
    }
}

/// Waits until a client is gone; asks its socket, because it may not be read while its frames wait.
pub async fn gone(socket: Option<std::os::fd::OwnedFd>) {
    let mut look_again = tokio::time::interval(LOOK);
    loop {
        look_again.tick().await;
        if hung_up(&socket) {
            return;
        }
    }
}

fn hung_up(socket: &Option<std::os::fd::OwnedFd>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(socket) = socket else {
        return true;
    };
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok()
        && fds[0]
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Frames to a client.
pub struct Writer {
    write: OwnedWriteHalf,
    broken: bool,
}

impl Writer {
    /// Sends a frame; waits while the client does not read.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.write_encoded(&frame.encode()).await
    }

    /// Sends a frame as its bytes.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn write_encoded(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write.write_all(frame).await
    }

    /// Sends a frame as its bytes; whole, so that a last word can follow. Whether it was taken: not by a client that is gone,
    /// or that does not read when `ended` is over.
    pub async fn write_unless(&mut self, frame: &[u8], ended: impl Future) -> bool {
        let overdue = async {
            ended.await;
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            written = self.write_encoded(frame) => written.is_ok(),
            () = overdue => false,
        }
    }

    /// Sends the last word, to a client that takes it in time.
    pub async fn send_last(&mut self, frame: &Frame) {
        let _ = tokio::time::timeout(LAST_WORD, self.send(frame)).await;
    }

    /// Sends, or gives up for good: a client that left reads nothing.
    pub async fn send(&mut self, frame: &Frame) {
        if !self.broken && self.write(frame).await.is_err() {
            self.broken = true;
        }
    }
}
