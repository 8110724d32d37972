//! One stream of the host, attached to a command: its frames in, the command's frames out.

use std::sync::Arc;

use banger_wire::guest::frame::{Frame, Output, output_header};
use bytes::{BufMut, Bytes, BytesMut};
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::command::{Command, Hold, News};
use crate::serve::Frames;

/// Frames that may wait for the host, at most 32 KiB each.
const OUTPUT_QUEUE: usize = 2;

type Sender = mpsc::Sender<Bytes>;

/// From where a stream goes on.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// The command's beginning.
    Start,
    /// This offset of its output; what has arrived of its input is said first.
    Offset(u64),
}

/// Attaches a stream; the receiver gives the frames of its answer, the last of them the exit status.
pub fn attach(command: Arc<Command>, from: From, frames: Frames) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
    tokio::spawn(async move {
        let hold = command.hold();
        let obeying = async {
            obey(&command, hold, frames).await;
            // A body that ends is no hang-up and no end of input.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = tell(&command, hold, from, &sender) => {}
            () = obeying => {}
            () = sender.closed() => {}
        }
        command.let_go(hold);
    });
    receiver
}

/// Sends what comes from a command until the stream has had all of it.
async fn tell(command: &Command, hold: Hold, from: From, sender: &Sender) {
    let (mut offset, mut told) = match from {
        From::Start => (0, Some(banger_wire::guest::frame::Taken::default())),
        From::Offset(offset) => (offset, None),
    };
    loop {
        let frame = match command.news(hold, offset, told).await {
            News::Output(output, bytes) => {
                offset += bytes.len() as u64;
                output_frame(output, &bytes)
            }
            News::Taken(taken) => {
                told = Some(taken);
                Frame::Taken(taken).encode()
            }
            News::Exit(status) => {
                let sent = sender.send(Frame::Exit(status).encode()).await;
                if sent.is_ok() && command.named() {
                    // Kept until the host has said that it got this.
                    command.left().await;
                }
                return;
            }
            News::Over => return,
        };
        if sender.send(frame).await.is_err() {
            return;
        }
        if !command.named() {
            command.got(offset);
        }
    }
}

/// A frame of output.
pub fn output_frame(output: Output, bytes: &[u8]) -> Bytes {
    let header = output_header(output, bytes.len());
    let mut frame = BytesMut::with_capacity(header.len() + bytes.len());
    frame.put_slice(&header);
    frame.put_slice(bytes);
    frame.freeze()
}

/// Obeys the host's frames until there are no more, or none that count.
async fn obey(command: &Command, hold: Hold, mut frames: Frames) {
    while let Some(frame) = frames.next().await {
        if !command.is_held_by(hold) {
            return;
        }
        match frame {
            Frame::Stdin(data) => command.put(hold, &data).await,
            Frame::StdinEof => command.end_input(),
            Frame::Resize(size) => command.resize(size),
            Frame::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                    command.signal(signal);
                }
            }
            Frame::Got(offset) => command.got(offset),
            Frame::Leave => command.leave(),
            _ => return,
        }
    }
}
