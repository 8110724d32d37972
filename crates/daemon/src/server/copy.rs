//! Upgraded connections: `vm.copy`.
//!
//! Frames are relayed one at a time, as a command's are; the daemon opens no file of either side (R-OPS-3) and keeps
//! nothing. A client that goes away ends its copy.

use super::body::Answer;
use super::frames::switching;
use super::guest_error::{Asked, guest_error};
use super::peer::{Peer, Reader, Writer, gone, part};
use crate::daemon::Daemon;
use banger_wire::api::{self, ApiError, Code, Frame};
use banger_wire::guest::copy::CopyFrames;
use banger_wire::guest::{ClientError, CopyFrame, CopyStream};
use bytes::Bytes;
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How a relayed copy ended for us.
enum End {
    /// The guest told the outcome, and it was passed on.
    Told,
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
    let (vm, guest) = daemon.vms().session(&request.vm).await?;
    let stream = guest
        .copy(&request.copy)
        .await
        .map_err(|error| guest_error(vm.name.as_str(), Asked::Copy, &error))?;
    tokio::spawn(async move {
        let _attached = daemon.attach();
        let Some(client) = Peer::of(upgrade).await else {
            return;
        };
        let Peer {
            mut reader,
            mut writer,
        } = client;
        let end = relay(&mut reader, &mut writer, stream).await;
        daemon.vms().used(vm.id).await;
        if let End::Failed(error) = end {
            let error = guest_error(vm.name.as_str(), Asked::Copy, &error);
            writer.send(&Frame::Error(error)).await;
        }
        part(reader, writer).await;
    });
    Ok(switching())
}

/// Relays between a client and a copy until the copy ends or the client goes.
async fn relay(reader: &mut Reader, writer: &mut Writer, copy: CopyStream) -> End {
    let CopyStream {
        input,
        output,
        session: _session,
    } = copy;
    let socket = reader.socket();
    // Side by side: a copy that fails must be heard while its input waits.
    tokio::select! {
        end = forward_output(output, writer) => end,
        () = forward_input(reader, input) => End::ClientGone,
        () = gone(socket) => End::ClientGone,
    }
}

async fn forward_output(mut output: CopyFrames, writer: &mut Writer) -> End {
    loop {
        let frame = match output.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Failed(ClientError::ConnectionLost),
            Err(error) => return End::Failed(ClientError::Frame(error)),
        };
        let last = matches!(frame, CopyFrame::Outcome(_));
        if writer.write(&Frame::Copy(frame)).await.is_err() {
            return End::ClientGone;
        }
        if last {
            return End::Told;
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
