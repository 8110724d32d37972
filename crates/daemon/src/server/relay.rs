//! Between a client and a command.
//!
//! Frames are relayed one at a time, so a slow reader slows the command and a command that does not read slows the
//! client; nothing is kept here. What a command with an id has written and its client has not got is kept by its agent:
//! a client whose stream is cut comes back for it (`vm.attach`), whichever end of ours was lost.

use super::peer::{Reader, Writer, gone};
use crate::daemon::Daemon;
use banger_model::VmId;
use banger_wire::api::Frame;
use banger_wire::guest::frame::{Frame as GuestFrame, Taken};
use banger_wire::guest::{ClientError, ExecEvent, ExecInput, ExecOutput, ExecStream};
use tokio::sync::watch;

/// How a relayed command ended for us.
pub enum End {
    /// The guest told its status, and the client was told.
    Exited,
    /// The client left; the guest knows.
    ClientGone,
    /// The session with the guest is lost, or we are to end; the command goes on, and its client may come back.
    Cut,
    /// The guest failed.
    Failed(ClientError),
}

/// A command under relay.
pub struct Command {
    /// Where it runs, if that is known.
    pub vm: Option<VmId>,
    /// Whether its client can come back to it.
    pub named: bool,
    /// Its frames.
    pub stream: ExecStream,
}

/// Relays between a client and a command until the command ends, the client goes, or either cannot be reached.
pub async fn relay(
    daemon: &Daemon,
    reader: &mut Reader,
    writer: &mut Writer,
    command: Command,
) -> End {
    let Command { vm, named, stream } = command;
    let (input, mut output) = stream.split();
    // An agent that knows no ids knows neither of those who come back nor of windows.
    let named = named && input.knows_ids();
    let (passed_on, taken) = watch::channel(0);
    let socket = reader.socket();
    // Side by side: a terminal's echo must flow while input waits, and a client must be missed while either does.
    let end = tokio::select! {
        end = forward_output(&mut output, writer, taken) => end,
        () = forward_input(reader, &input, &passed_on) => End::ClientGone,
        () = gone(socket) => End::ClientGone,
        () = daemon.ending(), if named => End::Cut,
    };
    let outlives = async {
        match vm {
            Some(vm) => daemon.vms().outlives_session(vm).await,
            None => false,
        }
    };
    match end {
        End::Exited | End::ClientGone => {
            // Nobody waits for that: the client has all it wants.
            tokio::spawn(input.leave(output));
            end
        }
        End::Failed(ClientError::ConnectionLost) if named && outlives.await => End::Cut,
        end => end,
    }
}

async fn forward_output(
    output: &mut ExecOutput,
    writer: &mut Writer,
    mut passed_on: watch::Receiver<u64>,
) -> End {
    loop {
        let event = tokio::select! {
            event = output.next() => event,
            Ok(()) = passed_on.changed() => {
                let all = *passed_on.borrow_and_update();
                Ok(Some(ExecEvent::Taken(Taken { received: all, consumed: all })))
            }
        };
        let frame = match event {
            Ok(Some(ExecEvent::Stdout(data))) => GuestFrame::Stdout(data),
            Ok(Some(ExecEvent::Stderr(data))) => GuestFrame::Stderr(data),
            Ok(Some(ExecEvent::Taken(taken))) => GuestFrame::Taken(taken),
            Ok(Some(ExecEvent::Exit(status))) => GuestFrame::Exit(status),
            Ok(None) => return End::Failed(ClientError::ConnectionLost),
            Err(error) => return End::Failed(error),
        };
        let last = matches!(frame, GuestFrame::Exit(_));
        if writer.write(&Frame::Command(frame)).await.is_err() {
            return End::ClientGone;
        }
        if last {
            return End::Exited;
        }
    }
}

/// Ends when the client is gone or sends what is no frame. A command that takes no more input is told by its output;
/// the client's frames are read on, so that its leaving is seen.
async fn forward_input(reader: &mut Reader, input: &ExecInput, passed_on: &watch::Sender<u64>) {
    while let Some(frame) = reader.next().await {
        let Frame::Command(frame) = frame else {
            return;
        };
        let _ = match frame {
            GuestFrame::Stdin(data) => {
                let count = data.len() as u64;
                let sent = input.stdin(data).await;
                if !input.knows_ids() {
                    // It tells nothing of its input, and the client waits to be told.
                    passed_on.send_modify(|all| *all += count);
                }
                sent
            }
            GuestFrame::StdinEof => input.eof().await,
            GuestFrame::Resize(size) => input.resize(size).await,
            GuestFrame::Signal(number) => input.signal(number).await,
            GuestFrame::Got(offset) => input.got(offset).await,
            GuestFrame::Leave => return,
            // Frames of the other direction.
            _ => return,
        };
    }
}
