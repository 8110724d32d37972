//! `ssh -L`, `-W`, `-D` and `-J`: connections in the guest.

use super::{Guest, process};
use crate::failure::Failure;
use banger_wire::{
    api::{Frame, FrameReceiver, FrameSender, VmForward},
    guest::{PathBytes, frame::Frame as GuestFrame, frame::split},
};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, server::Msg};
use std::net::IpAddr;

/// Where a client wants to be connected to.
pub enum To {
    /// A port of a host, as the guest knows it.
    Port { host: String, port: u16 },
    /// A Unix socket.
    Socket(String),
}

/// Connects.
///
/// # Errors
/// The name is not known in the guest, or nobody listens there.
pub async fn connect(guest: &Guest, to: To) -> Result<(FrameSender, FrameReceiver), Failure> {
    let mut request = VmForward {
        vm: guest.vm.clone(),
        ..VmForward::default()
    };
    match to {
        To::Socket(path) => request.socket = Some(PathBytes(path.into_bytes())),
        To::Port { host, port } => {
            request.port = Some(port);
            request.host = address(guest, &host).await?;
        }
    }
    guest.daemon.frames_again(&request).await
}

/// The address of a name; that of the loopback is the agent's choice.
async fn address(guest: &Guest, host: &str) -> Result<Option<IpAddr>, Failure> {
    if host == "localhost" {
        return Ok(None);
    }
    if let Ok(address) = host.parse() {
        return Ok(Some(address));
    }
    // Names are the image's: its files and its resolver say what they mean.
    let found = process::output(guest, &["getent", "ahosts", "--", host]).await?;
    let first = found.split_whitespace().next().and_then(|a| a.parse().ok());
    first.map(Some).ok_or_else(|| {
        Failure::new(format!("the guest does not know the name '{host}'")).hint("give an address")
    })
}

/// Carries a connection until both directions have ended.
pub async fn carry(channel: Channel<Msg>, (sender, receiver): (FrameSender, FrameReceiver)) {
    let (read, write) = channel.split();
    tokio::select! {
        () = to_client(receiver, &write) => {}
        () = to_guest(read, sender) => {}
    }
    let _ = write.close().await;
}

async fn to_client(mut receiver: FrameReceiver, write: &ChannelWriteHalf<Msg>) {
    loop {
        let sent = match receiver.next().await {
            Ok(Some(Frame::Command(GuestFrame::Stdout(data)))) => write.data_bytes(data).await,
            Ok(Some(Frame::Command(GuestFrame::StdinEof))) => write.eof().await,
            Ok(Some(Frame::Command(GuestFrame::End)) | None) | Err(_) => return,
            Ok(Some(_)) => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Ends when the client closes the channel; its end of file is only its own direction's.
async fn to_guest(mut read: ChannelReadHalf, mut sender: FrameSender) {
    while let Some(message) = read.wait().await {
        let frames: Vec<GuestFrame> = match message {
            ChannelMsg::Data { data } => split(data).map(GuestFrame::Stdin).collect(),
            ChannelMsg::Eof => vec![GuestFrame::StdinEof],
            ChannelMsg::Close => return,
            _ => continue,
        };
        for frame in frames {
            // A guest that takes no more says so by its end.
            let _ = sender.send(&Frame::Command(frame)).await;
        }
    }
}
