//! Upgraded connections: `image.export`. A thread makes the archive as fast as the client takes it; nothing of it is a file
//! here, and the daemon opens none of the client (R-OPS-3). It is an operation: a daemon that is to end waits for it (R-CLI-6).

use super::body::Answer;
use super::peer::{Peer, Writer, gone, part, switch};
use crate::daemon::Daemon;
use crate::ops::{Cancel, Running, Why};
use banger_wire::api::{self, ApiError, Event, Frame};
use banger_wire::guest::frame::MAX_PAYLOAD;
use banger_wire::guest::{CopyFrame, CopyOutcome, Sum};
use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::{convert::Infallible, io, sync::Arc};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Pieces that wait for the client.
const PIECES: usize = 16;

/// `image.export`.
///
/// # Errors
/// No such image.
pub async fn export(
    daemon: Arc<Daemon>,
    request: api::ImageExport,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>, ApiError> {
    let (catalogue, reference) = (daemon.catalogue(), request.image);
    let images = Arc::clone(&catalogue);
    let chosen = daemon
        .blocking(move || images.to_export(&reference))
        .await??;
    let (running, told) = daemon.registry.begin("image.export")?;
    let (attached, span) = (daemon.attach(), running.span());
    let serve = move |client: Peer| async move {
        let running = Arc::new(running);
        let (pieces, archive) = mpsc::channel(PIECES);
        let op = Arc::clone(&running);
        let make = daemon.lasting(move || {
            let mut pipe = Pipe {
                pieces,
                piece: BytesMut::new(),
            };
            catalogue.export(&chosen, request.format, &mut pipe, &op)
        });
        let made = async { make.await.and_then(|made| made) };
        let Peer { reader, mut writer } = client;
        let stream = Stream {
            writer: &mut writer,
            cancel: &running.cancel,
            sum: Sum::default(),
        };
        let left = async {
            gone(reader.socket()).await;
            running.cancel.fire(Why::ClientGone);
            // The other side ends by it.
            std::future::pending::<Infallible>().await
        };
        let ((sum, whole), made) = tokio::select! {
            // Side by side: the maker waits for its pieces to be taken.
            both = async { tokio::join!(stream.relay(told, archive), made) } => both,
            never = left => match never {},
        };
        finish(&running, &mut writer, sum, whole, made).await;
        part(reader, writer).await;
    };
    let serve = |client| serve(client).instrument(span);
    Ok(switch(attached, upgrade, serve))
}

/// The last word.
async fn finish(
    running: &Running,
    writer: &mut Writer,
    sum: Sum,
    whole: bool,
    made: Result<(), ApiError>,
) {
    let cancelled = running.cancel.why().map(Why::error);
    let ended = match (made, cancelled) {
        (Err(error), None) => Err(error),
        (Ok(()), None) if whole => Ok(()),
        (_, why) => Err(why.unwrap_or_else(|| Why::ClientGone.error())),
    };
    let last = match running.end(ended) {
        Ok(()) => Frame::Copy(CopyFrame::Outcome(CopyOutcome::Done { sum, entries: 0 })),
        Err(error) => Frame::Error(error),
    };
    writer.send_last(&last).await;
}

/// What goes to the client.
struct Stream<'a> {
    writer: &'a mut Writer,
    cancel: &'a Cancel,
    sum: Sum,
}

impl Stream<'_> {
    /// Passes on what is told and the archive until its end; what was sent of it, and whether that is all.
    async fn relay(
        mut self,
        mut told: mpsc::Receiver<Event>,
        mut archive: mpsc::Receiver<Bytes>,
    ) -> (Sum, bool) {
        loop {
            let frame = tokio::select! {
                biased;
                Some(event) = told.recv() => Frame::Event(event),
                piece = archive.recv() => match piece {
                    Some(piece) => {
                        self.sum.bytes += piece.len() as u64;
                        Frame::Copy(CopyFrame::Data(piece))
                    }
                    None => return (self.sum, true),
                },
                _ = self.cancel.fired() => return (self.sum, false),
            };
            let ended = self.cancel.fired();
            if !self.writer.write_unless(&frame.encode(), ended).await {
                // Unless it was ended before.
                self.cancel.fire(Why::ClientGone);
                return (self.sum, false);
            }
        }
    }
}

/// The maker's end.
struct Pipe {
    pieces: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        let sent = self.pieces.blocking_send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(MAX_PAYLOAD - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == MAX_PAYLOAD {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.piece.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}
