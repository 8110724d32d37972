//! The host's end of the handshake, over a Unix socket of the VMM.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::handshake::{Ack, AckScanner, Hello, Nonce, Token};

/// How long to wait before another connection attempt.
const RETRY: Duration = Duration::from_millis(20);
/// How long to wait for the ack before the hello is sent again.
const RESEND: Duration = Duration::from_millis(300);

/// Why no session could be started.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The deadline passed before the VMM listened on the socket.
    #[error("nobody listened on {} for {waited:?}", path.display())]
    NotListening {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The deadline passed without an answer from the agent.
    #[error("the agent did not answer the hello within {waited:?}")]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// The stream ended during the handshake.
    #[error("the channel was closed during the handshake")]
    Closed,
    /// The socket failed.
    #[error("the channel's socket failed")]
    Io(#[source] io::Error),
    /// The system gave no random numbers.
    #[error("no random numbers for the handshake")]
    Random(#[source] getrandom::Error),
}

/// A stream on which the guest has answered.
#[derive(Debug)]
pub struct Connected<S = UnixStream> {
    /// The stream.
    pub stream: S,
    /// Bytes read after the ack: the first of the session.
    pub rest: Bytes,
    /// The guest's answer.
    pub ack: Ack,
}

/// Connects to the socket of the VMM's port and shakes hands with the agent.
///
/// Waits until `deadline` from now both for the VMM to listen and for the guest to boot. May be dropped at any
/// time. A VMM that dies meanwhile is seen as `NotListening` at the deadline only: watch its process too.
pub async fn connect(
    path: &Path,
    token: &Token,
    deadline: Duration,
) -> Result<Connected, ConnectError> {
    let end = Instant::now() + deadline;
    loop {
        let stream = dial(path, end, deadline).await?;
        match shake(stream, token, end.saturating_duration_since(Instant::now())).await {
            // The VMM went away, or another client was thrown out: both are over soon.
            Err(ConnectError::Closed | ConnectError::Io(_)) if Instant::now() < end => {
                sleep(RETRY).await;
            }
            Err(ConnectError::NoAnswer { .. }) => {
                return Err(ConnectError::NoAnswer { waited: deadline });
            }
            other => return other,
        }
    }
}

async fn dial(path: &Path, end: Instant, waited: Duration) -> Result<UnixStream, ConnectError> {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if passes(&error) => {
                if Instant::now() >= end {
                    return Err(ConnectError::NotListening {
                        path: path.to_owned(),
                        waited,
                    });
                }
                sleep(RETRY).await;
            }
            Err(error) => return Err(ConnectError::Io(error)),
        }
    }
}

/// Not there yet, not listening yet, the backlog of one is taken, or its listener went while we were in it.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock
    )
}

/// Shakes hands on a connected stream, resending the same hello every 300 ms until `deadline` from now.
pub async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    token: &Token,
    deadline: Duration,
) -> Result<Connected<S>, ConnectError> {
    let end = Instant::now() + deadline;
    let nonce = Nonce::random().map_err(ConnectError::Random)?;
    let hello = Hello::new(nonce).encode(token);
    let mut scanner = AckScanner::new(nonce);
    let mut buffer = vec![0_u8; 64 * 1024];
    let no_answer = ConnectError::NoAnswer { waited: deadline };
    loop {
        match timeout_at(end, stream.write_all(&hello)).await {
            Ok(written) => written.map_err(ConnectError::Io)?,
            Err(_) => return Err(no_answer),
        }
        let resend = (Instant::now() + RESEND).min(end);
        loop {
            match timeout_at(resend, stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Err(ConnectError::Closed),
                Ok(Ok(count)) => {
                    if let Some((ack, rest)) = scanner.push(&buffer[..count]) {
                        return Ok(Connected {
                            stream,
                            rest: rest.into(),
                            ack,
                        });
                    }
                }
                Ok(Err(error)) => return Err(ConnectError::Io(error)),
                Err(_) if Instant::now() >= end => return Err(no_answer),
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::handshake::HelloScanner;

    fn ack(nonce: Nonce) -> Ack {
        Ack {
            nonce,
            version: 1,
            flags: 0,
            boot_nonce: Nonce([7; 16]),
            agent_version: [0, 1, 2],
        }
    }

    #[tokio::test]
    async fn stale_bytes_are_drained_and_bytes_after_the_ack_kept() {
        let token = Token::random().unwrap();
        let (host, mut guest) = tokio::io::duplex(1 << 20);
        let guest_side = tokio::spawn(async move {
            let mut scanner = HelloScanner::idle(token);
            let mut buffer = [0_u8; 4096];
            let hello = loop {
                let count = guest.read(&mut buffer).await.unwrap();
                if let Some(hello) = scanner.find(&buffer[..count]) {
                    break hello;
                }
            };
            guest.write_all(&vec![0x55; 131_108]).await.unwrap();
            guest
                .write_all(&ack(Nonce([1; 16])).encode())
                .await
                .unwrap();
            let mut last = ack(hello.nonce).encode().to_vec();
            last.extend_from_slice(b"first of the session");
            guest.write_all(&last).await.unwrap();
            guest
        });
        let connected = shake(host, &token, Duration::from_secs(5)).await.unwrap();
        assert_eq!(&connected.rest[..], b"first of the session");
        assert_eq!(connected.ack.agent_version, [0, 1, 2]);
        guest_side.await.unwrap();
    }

    #[tokio::test]
    async fn the_same_hello_is_resent() {
        let token = Token::random().unwrap();
        let (host, mut guest) = tokio::io::duplex(4096);
        let shaking =
            tokio::spawn(async move { shake(host, &token, Duration::from_secs(1)).await });
        let mut two = [0_u8; 80];
        guest.read_exact(&mut two).await.unwrap();
        assert_eq!(two[..40], two[40..]);
        let error = shaking.await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_never_comes_ends_at_the_deadline() {
        let path = Path::new("/nonexistent/banger.sock");
        let error = connect(path, &Token([1; 16]), Duration::from_millis(60))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::NotListening { .. }),
            "{error}"
        );
    }
}
