//! Connections that the host makes to sockets of the guest. Each is a stream of its own, so one that stalls stalls
//! nobody; each direction ends for itself.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use banger_wire::guest::ForwardTarget;
use banger_wire::guest::forward::{MOST_FORWARDS, UNREACHABLE};
use banger_wire::guest::frame::{BEST_PAYLOAD, Frame, Output};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::sync::mpsc;

use crate::exec::{Stream, output_frame};
use crate::guest::Guest;
use crate::serve::{self, Answer, AnswerBody, Frames, Refusal};
use crate::slot::Slot;

/// Frames that wait for the host, at most 32 KiB each.
const OUTPUT_QUEUE: usize = 4;
/// How long connecting may take: beyond the guest nobody may answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Connections there are.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Connects; the answer's body is what comes from there.
pub async fn forward(guest: &Arc<Guest>, target: &str, body: Incoming) -> Answer {
    let Ok(target) = target.parse() else {
        let message = format!("'{target}' is no target of a connection");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    };
    serve::ready(guest).await?;
    let slot = Slot::take(&CONNECTIONS, MOST_FORWARDS, "connections")?;
    let stream = match tokio::time::timeout(CONNECT_LIMIT, connect(&target)).await {
        Ok(connected) => connected,
        Err(_) => Err(Errno::TIMEDOUT.into()),
    };
    let stream = stream.map_err(|error| {
        let status = StatusCode::from_u16(UNREACHABLE).unwrap_or_default();
        Refusal(status, error.to_string())
    })?;
    let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
    tokio::spawn(async move {
        relay(stream, Frames::new(body), sender).await;
        drop(slot);
    });
    Ok(Response::new(AnswerBody::stream(receiver)))
}

async fn connect(target: &ForwardTarget) -> io::Result<Stream> {
    match target {
        ForwardTarget::Address(address) => connect_to(*address).await,
        ForwardTarget::Loopback(port) => {
            match connect_to((Ipv4Addr::LOCALHOST, *port).into()).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let other = connect_to((Ipv6Addr::LOCALHOST, *port).into()).await;
                    // What the first said is the better reason: there may be no IPv6.
                    other.map_err(|_| error)
                }
                connected => connected,
            }
        }
        ForwardTarget::Unix(path) => {
            let socket = socket(AddressFamily::UNIX)?;
            let address = SocketAddrUnix::new(&path[..])?;
            rustix::net::connect(&socket, &address)?;
            Stream::both(socket)
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<Stream> {
    let socket = socket(match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    })?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Err(Errno::INPROGRESS) => {}
        begun => begun?,
    }
    // Watched only now: a socket that does not connect yet is hung up, and tokio keeps a hang-up for ever.
    let stream = Stream::both(socket)?;
    stream.writable().await?;
    sockopt::socket_error(stream.fd())??;
    Ok(stream)
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Carries both directions until both have ended, or the connection breaks.
async fn relay(stream: Stream, frames: Frames, sender: mpsc::Sender<Bytes>) {
    let carried = tokio::try_join!(
        to_host(&stream, &sender),
        to_guest(&stream, frames, &sender)
    );
    if carried.is_ok() {
        let _ = sender.send(Frame::End.encode()).await;
    } else {
        // Who is at the other end is to hear that it broke, and not to take a part for the whole. (A Unix socket has no
        // way to say so.) The host hears it from a body without the last frame.
        let _ = sockopt::set_socket_linger(stream.fd(), Some(Duration::ZERO));
    }
}

/// The connection broke.
struct Broken;

async fn to_host(stream: &Stream, sender: &mpsc::Sender<Bytes>) -> Result<(), Broken> {
    let mut buffer = vec![0; BEST_PAYLOAD];
    loop {
        let read = tokio::select! {
            read = stream.try_read(&mut buffer) => read,
            () = sender.closed() => return Err(Broken),
        };
        let count = read.map_err(|_| Broken)?;
        let frame = match count {
            0 => Frame::StdinEof.encode(),
            _ => output_frame(Output::Stdout, &buffer[..count]),
        };
        sender.send(frame).await.map_err(|_| Broken)?;
        if count == 0 {
            return Ok(());
        }
    }
}

async fn to_guest(
    stream: &Stream,
    mut frames: Frames,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), Broken> {
    loop {
        match frames.next().await {
            Some(Frame::Stdin(data)) => tokio::select! {
                written = stream.write_all(&data) => written.map_err(|_| Broken)?,
                // A service that takes nothing keeps no place when the host is gone.
                () = sender.closed() => return Err(Broken),
            },
            Some(Frame::StdinEof) => {
                return rustix::net::shutdown(stream.fd(), Shutdown::Write).map_err(|_| Broken);
            }
            _ => return Err(Broken),
        }
    }
}
