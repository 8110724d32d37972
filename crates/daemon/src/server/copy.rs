//! Upgraded connections: `vm.copy`.
//!
//! Frames are relayed one at a time, as a command's are; the daemon opens no file of either side (R-OPS-3) and keeps
//! nothing. A client that goes away ends its copy. It is an operation: a daemon that is to end waits for it (R-CLI-6).

use super::body::Answer;
use super::copy_down;
use super::guest_error::{Asked, guest_error};
use super::peer::{Peer, Reader, Writer, gone, part, switch};
use crate::daemon::Daemon;
use crate::ops::{Cancel, Why};
use banger_wire::api::{self, ApiError, Code, Frame};
use banger_wire::guest::copy::{CopyFrames, CopyRequest};
use banger_wire::guest::{ClientError, CopyFrame, CopyOutcome, CopyStream};
use bytes::Bytes;
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::Instrument;

/// How a relayed copy ended for us.
enum End {
    /// The guest told the outcome, and it was passed on.
    Told(CopyOutcome),
    /// The operation is to end.
    Cancelled(Why),
    /// The client left.
    ClientGone,
    /// The guest failed.
    Failed(ClientError),
}

/// `vm.copy`.
pub async fn copy(
    daemon: Arc<Daemon>,
    request: api::VmCopy,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>, ApiError> {
    let checked = request.copy.check();
    checked.map_err(|message| ApiError::new(Code::BadRequest, message))?;
    // What is down is read from its disks; nothing is written to them but by its guest.
    if let CopyRequest::Out(out) = &request.copy
        && let Some(down) = daemon.vms().down_now(&request.vm).await?
    {
        let out = out.clone();
        return copy_down::copy(daemon, down, out, upgrade).await;
    }
    let (vm, guest) = daemon.vms().session(&request.vm).await?;
    let in_use = daemon.vms().in_use(vm.id);
    let stream = guest
        .copy(&request.copy)
        .await
        .map_err(|error| guest_error(vm.name.as_str(), Asked::Copy, &error))?;
    let (running, _events) = daemon.registry.begin("vm.copy")?;
    running.about(&vm);
    running.stage("copy", "running");
    let (attached, span) = (daemon.attach(), running.span());
    let serve = move |client| async move {
        let Peer {
            mut reader,
            mut writer,
        } = client;
        let end = relay(&mut reader, &mut writer, stream, &running.cancel).await;
        drop(in_use);
        let untold = match end {
            End::Told(CopyOutcome::Done { .. }) => {
                let _ = running.end(Ok(()));
                None
            }
            End::Told(CopyOutcome::Failed { message }) => {
                let error = ApiError::new(Code::OperationFailed, message);
                let _ = running.end::<()>(Err(error));
                None
            }
            End::ClientGone => {
                running.cancel.fire(Why::ClientGone);
                None
            }
            End::Cancelled(why) => running.end::<()>(Err(why.error())).err(),
            End::Failed(error) => {
                let error = guest_error(vm.name.as_str(), Asked::Copy, &error);
                running.end::<()>(Err(error)).err()
            }
        };
        if let Some(error) = untold {
            writer.send_last(&Frame::Error(error)).await;
        }
        // The operation is over when its last frame has arrived: a daemon that is to end waits that long.
        part(reader, writer).await;
    };
    let serve = |client| serve(client).instrument(span);
    Ok(switch(attached, upgrade, serve))
}

/// Relays between a client and a copy until the copy ends, the client goes or the operation is to end.
async fn relay(reader: &mut Reader, writer: &mut Writer, copy: CopyStream, cancel: &Cancel) -> End {
    let CopyStream {
        input,
        output,
        session: _session,
    } = copy;
    let socket = reader.socket();
    // Side by side: a copy that fails must be heard while its input waits.
    tokio::select! {
        end = forward_output(output, writer, cancel) => end,
        () = forward_input(reader, input) => End::ClientGone,
        () = gone(socket) => End::ClientGone,
    }
}

/// Ends between two frames when the operation is to end, so that its reason can follow; a client that does not read is
/// not told.
async fn forward_output(mut output: CopyFrames, writer: &mut Writer, cancel: &Cancel) -> End {
    loop {
        let next = tokio::select! {
            next = output.next() => next,
            why = cancel.fired() => return End::Cancelled(why),
        };
        let frame = match next {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Failed(ClientError::ConnectionLost),
            Err(error) => return End::Failed(ClientError::Frame(error)),
        };
        let outcome = match &frame {
            CopyFrame::Outcome(outcome) => Some(outcome.clone()),
            _ => None,
        };
        let frame = Frame::Copy(frame);
        if !writer.write_unless(&frame.encode(), cancel.fired()).await {
            return End::ClientGone;
        }
        if let Some(outcome) = outcome {
            return End::Told(outcome);
        }
    }
}

/// Ends when the client is gone or sends what is no part of a copy. A guest that takes no more says why in its outcome.
async fn forward_input(reader: &mut Reader, input: mpsc::Sender<Bytes>) {
    while let Some(frame) = reader.next().await {
        let Frame::Copy(frame @ (CopyFrame::Data(_) | CopyFrame::End(_))) = frame else {
            return;
        };
        let _ = input.send(frame.encode()).await;
    }
}
