//! `vm.copy` out of a VM that is down: a thread reads its disks as fast as the client takes the stream, in the frames that
//! a guest would send. The daemon opens no file of the client (R-OPS-3).

use super::body::Answer;
use super::peer::{Peer, Writer, gone, part, switch};
use crate::daemon::Daemon;
use crate::ops::{Cancel, Why};
use crate::vm::Down;
use banger_disks::{View, What, pack};
use banger_tree::StreamWriter;
use banger_wire::api::{ApiError, Code, Frame};
use banger_wire::guest::copy::HOME;
use banger_wire::guest::{CopyFrame, CopyOut, CopyOutcome, PathBytes, Sum};
use bytes::Bytes;
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::{fs::File, future::Future, sync::Arc};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Frames that wait for the client.
const QUEUE: usize = 16;

/// Begins it.
///
/// # Errors
/// A disk cannot be read here.
pub async fn copy(
    daemon: Arc<Daemon>,
    down: Down,
    wanted: CopyOut,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>, ApiError> {
    let (disturbed, name) = (down.disturbed.clone(), down.vm.name.clone());
    let opened = daemon.vms().view_of(down).await;
    let (view, down) = opened.map_err(|error| match disturbed.why() {
        // What is wrong with disks that are gone, or written to, is nothing.
        Some(_) => End::Disturbed.error(name.as_str()),
        None => error,
    })?;
    let (running, _events) = daemon.registry.begin("vm.copy")?;
    running.about(&down.vm);
    running.stage("copy", "not running: its disks are read");
    let (attached, span) = (daemon.attach(), running.span());
    let serve = move |client| async move {
        let Peer { reader, mut writer } = client;
        let (frames, queue) = mpsc::channel(QUEUE);
        let made = daemon.lasting(move || give_out(&view, &wanted, frames));
        let relay = Relay {
            writer: &mut writer,
            cancel: &running.cancel,
            disturbed: &down.disturbed,
        };
        let ended = tokio::select! {
            ended = relay.run(queue, made) => ended,
            () = gone(reader.socket()) => Err(End::ClientGone),
        };
        let (last, ended) = match ended {
            Ok(outcome) => {
                let ended = match &outcome {
                    CopyOutcome::Done { .. } => Ok(()),
                    CopyOutcome::Failed { message } => {
                        Err(ApiError::new(Code::OperationFailed, message.clone()))
                    }
                };
                (Some(Frame::Copy(CopyFrame::Outcome(outcome))), ended)
            }
            // Perhaps in the middle of a frame.
            Err(End::ClientGone) => (None, Err(Why::ClientGone.error())),
            Err(end) => {
                let error = end.error(down.vm.name.as_str());
                (Some(Frame::Error(error.clone())), Err(error))
            }
        };
        drop(down);
        let _ = running.end(ended);
        if let Some(last) = last {
            writer.send_last(&last).await;
        }
        part(reader, writer).await;
    };
    let serve = |client| serve(client).instrument(span);
    Ok(switch(attached, upgrade, serve))
}

type Packed = Result<(Sum, u64), banger_tree::Error>;

/// Reads what is asked for; ends when nobody takes it any more.
fn give_out(view: &View<File>, wanted: &CopyOut, frames: mpsc::Sender<Bytes>) -> Packed {
    let told = frames.clone();
    let warn = Box::new(move |text| {
        let _ = told.blocking_send(CopyFrame::Warning(text).encode());
    });
    let mut writer = StreamWriter::new(frames.clone(), warn);
    let what = What {
        path: &absolute(&wanted.path),
        name: wanted.name.as_ref().map_or(b"", |name| &name.0),
        follow: wanted.follow,
    };
    let packed = pack(view, &what, &mut writer, &|| frames.is_closed())?;
    Ok((writer.finish()?, packed.entries))
}

/// A relative path is relative to root's home.
fn absolute(path: &PathBytes) -> Vec<u8> {
    match path.0.starts_with(b"/") {
        true => path.0.clone(),
        false => [HOME.as_bytes(), b"/", &path.0].concat(),
    }
}

/// How a copy ended without an outcome.
enum End {
    /// The operation is to end.
    Cancelled(Why),
    /// The VM is on its way up, or away.
    Disturbed,
    /// The client left.
    ClientGone,
    /// The reader panicked.
    Bug(ApiError),
}

impl End {
    fn error(self, vm: &str) -> ApiError {
        match self {
            End::Cancelled(why) => why.error(),
            End::ClientGone => Why::ClientGone.error(),
            End::Bug(error) => error,
            End::Disturbed => {
                let message = format!(
                    "VM '{vm}' was started or deleted while its files were copied from its disks"
                );
                ApiError::new(Code::Conflict, message)
                    .hint("when banger vm list says that it runs: copy again, from the running VM")
            }
        }
    }
}

/// What goes to the client.
struct Relay<'a> {
    writer: &'a mut Writer,
    cancel: &'a Cancel,
    disturbed: &'a Cancel,
}

impl Relay<'_> {
    /// Passes on frames until their maker ends; its outcome counts if the disks were left alone until then.
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Bytes>,
        made: impl Future<Output = Result<Packed, ApiError>>,
    ) -> Result<CopyOutcome, End> {
        let made = async { Ok(made.await) };
        let sent = self.forward(&mut queue);
        // Side by side: the maker waits for its frames to be taken.
        let (made, ()) = tokio::try_join!(made, sent)?;
        if self.disturbed.why().is_some() {
            return Err(End::Disturbed);
        }
        Ok(match made.map_err(End::Bug)? {
            Ok((sum, entries)) => CopyOutcome::Done { sum, entries },
            Err(error) => CopyOutcome::Failed {
                message: error.to_string(),
            },
        })
    }

    async fn forward(&mut self, queue: &mut mpsc::Receiver<Bytes>) -> Result<(), End> {
        loop {
            let frame = tokio::select! {
                biased;
                end = ended(self.cancel, self.disturbed) => return Err(end),
                frame = queue.recv() => match frame {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let ended = ended(self.cancel, self.disturbed);
            if !self.writer.write_unless(&frame, ended).await {
                return Err(End::ClientGone);
            }
        }
    }
}

async fn ended(cancel: &Cancel, disturbed: &Cancel) -> End {
    tokio::select! {
        why = cancel.fired() => End::Cancelled(why),
        _ = disturbed.fired() => End::Disturbed,
    }
}
