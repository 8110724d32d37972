//! Methods whose body is data: it is read while the answer's events are already being sent.

use super::body::Answer;
use super::call::Call;
use super::dispatch::{Made, Started, bad, parse, start};
use crate::daemon::Daemon;
use crate::ops::{Cancel, Operation, Why};
use banger_wire::api::{self, ApiError, Method, REQUEST_HEADER};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use std::{
    io::{self, Read},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

/// Pieces of the body that wait for whoever reads it.
const PIECES: usize = 16;

/// What is made of a body.
pub trait Import: Method + Clone + Sync {
    /// What the body is.
    const BODY: &'static str;

    /// Refuses what cannot succeed, before a byte of the body is read.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, daemon: &Daemon) -> Result<(), ApiError>;

    /// Makes it.
    ///
    /// # Errors
    /// What is wrong with the body, or went wrong.
    fn make(
        &self,
        daemon: &Daemon,
        source: &mut dyn Read,
        op: &Operation,
    ) -> Result<Made, ApiError>;
}

impl Import for api::ImageImport {
    const BODY: &'static str = "image";

    fn check(&self, daemon: &Daemon) -> Result<(), ApiError> {
        daemon.catalogue().check_import(self)
    }

    fn make(
        &self,
        daemon: &Daemon,
        source: &mut dyn Read,
        op: &Operation,
    ) -> Result<Made, ApiError> {
        let made = daemon.catalogue().import(self, source, op);
        made.map(Made::from)
    }
}

impl Import for api::KernelImport {
    const BODY: &'static str = "kernel";

    fn check(&self, daemon: &Daemon) -> Result<(), ApiError> {
        daemon.kernels().check_new(&self.name, self.replace)
    }

    fn make(
        &self,
        daemon: &Daemon,
        source: &mut dyn Read,
        op: &Operation,
    ) -> Result<Made, ApiError> {
        let made = daemon.kernels().import(self, source, op);
        made.map(Made::from)
    }
}

/// `image.import`, `kernel.import`. Who does not wait is answered when the body has arrived.
///
/// # Errors
/// The request is wrong, or cannot succeed; what the importer finds wrong is told by the events.
pub async fn import<M: Import>(
    call: Call,
    request: Request<Incoming>,
) -> Result<Response<Answer>, ApiError> {
    let (head, body) = request.into_parts();
    let header = head.headers.get(REQUEST_HEADER);
    let call = call.with(header.map_or(b"", HeaderValue::as_bytes));
    let refused = match call.before(M::NAME) {
        Ok(Some(operation)) => Ok(Started::before(operation)),
        Ok(None) => match wanted::<M>(&call, header).await {
            Ok(wanted) => return begin(&call, wanted, body).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    // Closed while it is being sent to, the connection would break before its other end has read why.
    tokio::spawn(discard(body));
    refused.map(|started| started.answer(&call))
}

/// The request, if it can succeed as far as that is known before its body.
async fn wanted<M: Import>(
    daemon: &Arc<Daemon>,
    header: Option<&HeaderValue>,
) -> Result<M, ApiError> {
    let header = header.ok_or_else(|| {
        bad(&format!(
            "the request itself must come in the header '{REQUEST_HEADER}', its body is the {}",
            M::BODY
        ))
    })?;
    let wanted: M = parse(&Bytes::copy_from_slice(header.as_bytes()))?;
    let (of, asked) = (Arc::clone(daemon), wanted.clone());
    daemon.blocking(move || asked.check(&of)).await??;
    Ok(wanted)
}

async fn begin<M: Import>(
    call: &Call,
    wanted: M,
    body: Incoming,
) -> Result<Response<Answer>, ApiError> {
    let (arrived, whole) = oneshot::channel();
    let started = start::<M, _>(call, false, |daemon, op| async move {
        let (pieces, source) = mpsc::channel(PIECES);
        let cancel = op.cancel.clone();
        tokio::spawn(async move {
            receive(body, pieces, cancel).await;
            // Only who does not wait for more listens.
            let _ = arrived.send(());
        });
        let (of, operation) = (Arc::clone(&daemon), Arc::clone(&op));
        daemon
            .lasting(move || {
                let mut source = Source {
                    pieces: source,
                    piece: Bytes::new(),
                    whole: false,
                };
                wanted.make(&of, &mut source, &operation)
            })
            .await?
    })?;
    if call.leaves {
        // Nothing is owed to who has not sent it all; it is read to its end whatever becomes of it.
        let _ = whole.await;
    }
    Ok(started.answer(call))
}

async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A piece of a body, or its end in order.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Passes a body on. When nobody wants it any more the rest is read to nowhere, so that its sender gets to read why.
async fn receive(mut body: Incoming, pieces: mpsc::Sender<Piece>, cancel: Cancel) {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // Without an end mark what was sent counts as cut.
            _ = cancel.fired() => return,
        };
        let piece = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Piece::Bytes(bytes),
                Err(_trailers) => continue,
            },
            Some(Err(_)) => {
                cancel.fire(Why::ClientGone);
                return;
            }
            None => Piece::End,
        };
        let ended = matches!(piece, Piece::End);
        // Who does not listen any more has failed, and says so.
        let _ = pieces.send(piece).await;
        if ended {
            return;
        }
    }
}

/// A body as something to read; one that ends without its end mark is an error, never a shorter body.
struct Source {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    whole: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.whole {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.whole = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "whoever sent it has left",
                    ));
                }
            }
        }
        let n = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
