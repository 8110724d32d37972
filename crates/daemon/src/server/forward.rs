//! Upgraded connections: `vm.forward`.

use super::body::Answer;
use super::guest_error::{Asked, guest_error};
use super::peer::{Peer, Reader, Writer, gone, part, switch};
use crate::daemon::Daemon;
use banger_wire::api::{self, ApiError, Code, Frame};
use banger_wire::guest::frame::Frame as GuestFrame;
use banger_wire::guest::{ClientError, ForwardEvent, ForwardInput, ForwardOutput, ForwardStream};
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;

/// `vm.forward`.
pub async fn forward(
    daemon: Arc<Daemon>,
    request: api::VmForward,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>, ApiError> {
    let target = request.target();
    let target = target.map_err(|message| ApiError::new(Code::BadRequest, message))?;
    let (vm, guest) = daemon.vms().session_again(&request.vm).await?;
    let in_use = daemon.vms().in_use(vm.id);
    let stream = guest
        .forward(&target)
        .await
        .map_err(|error| guest_error(vm.name.as_str(), Asked::Forward, &error))?;
    Ok(switch(daemon.attach(), upgrade, move |client| async move {
        let Peer {
            mut reader,
            mut writer,
        } = client;
        if let Err(error) = relay(&mut reader, &mut writer, stream).await {
            let error = guest_error(vm.name.as_str(), Asked::Forward, &error);
            writer.send(&Frame::Error(error)).await;
        }
        drop(in_use);
        part(reader, writer).await;
    }))
}

/// Relays until both directions have ended or the client is gone; a connection that breaks in the guest is an error.
async fn relay(
    reader: &mut Reader,
    writer: &mut Writer,
    stream: ForwardStream,
) -> Result<(), ClientError> {
    let ForwardStream { input, mut output } = stream;
    let socket = reader.socket();
    tokio::select! {
        end = to_client(&mut output, writer) => end,
        () = to_guest(reader, &input) => Ok(()),
        () = gone(socket) => Ok(()),
    }
}

/// Ends when both directions have ended in order, or the client is gone.
async fn to_client(output: &mut ForwardOutput, writer: &mut Writer) -> Result<(), ClientError> {
    loop {
        let frame = match output.next().await? {
            Some(ForwardEvent::Data(data)) => GuestFrame::Stdout(data),
            Some(ForwardEvent::Eof) => GuestFrame::StdinEof,
            None => GuestFrame::End,
        };
        let last = frame == GuestFrame::End;
        if writer.write(&Frame::Command(frame)).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Ends when the client is gone or sends what is no part of a connection. A guest that takes no more says so by its end.
async fn to_guest(reader: &mut Reader, input: &ForwardInput) {
    while let Some(Frame::Command(frame)) = reader.next().await {
        let _ = match frame {
            GuestFrame::Stdin(data) => input.send(data).await,
            GuestFrame::StdinEof => input.eof().await,
            _ => return,
        };
    }
}
