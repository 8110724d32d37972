//! A session channel: one command or shell in the guest.

use super::{Guest, process, process::End};
use crate::failure::Failure;
use banger_wire::{
    api::{Command, Frame, FrameReceiver, FrameSender, Program, VmExec},
    guest::{TtySize, frame::Frame as GuestFrame, frame::split},
};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::collections::BTreeMap;

/// What of a session's output is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// Exit status of banger's own failures.
const FAILED: u32 = 125;

/// What a client has asked for so far.
#[derive(Debug, Default)]
struct Wanted {
    env: BTreeMap<String, String>,
    tty: Option<TtySize>,
}

/// Serves a session channel to its end.
pub async fn serve(guest: Guest, user: String, channel: Channel<Msg>, handle: Handle) {
    let id = channel.id();
    let (mut read, write) = channel.split();
    let mut wanted = Wanted::default();
    // Who leaves before anything was begun has nothing to be told.
    while let Some(message) = read.wait().await {
        let mut program = Program::Argv;
        let (argv, reply) = match message {
            ChannelMsg::RequestShell { want_reply } => {
                program = Program::UserShell;
                (Some(Vec::new()), want_reply)
            }
            ChannelMsg::Exec {
                want_reply,
                command,
            } => {
                let line = String::from_utf8_lossy(&command);
                (Some(process::command(&line)), want_reply)
            }
            ChannelMsg::RequestSubsystem { want_reply, name } => {
                (process::subsystem(&guest, &name).await, want_reply)
            }
            ChannelMsg::Close => return,
            other => {
                let answered = match prepare(&mut wanted, other) {
                    Some(true) => handle.channel_success(id).await,
                    Some(false) => handle.channel_failure(id).await,
                    None => Ok(()),
                };
                if answered.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(argv) = argv else {
            let _ = handle.channel_failure(id).await;
            continue;
        };
        if reply && handle.channel_success(id).await.is_err() {
            return;
        }
        let end = run(&guest, command(program, argv, user, wanted), read, &write).await;
        conclude(&write, &handle, end).await;
        return;
    }
}

/// Notes what is asked for before a command; gives what to answer.
fn prepare(wanted: &mut Wanted, message: ChannelMsg) -> Option<bool> {
    match message {
        ChannelMsg::RequestPty {
            want_reply,
            term,
            col_width,
            row_height,
            ..
        } => {
            wanted.tty = Some(size(row_height, col_width));
            wanted.env.insert("TERM".to_owned(), term);
            want_reply.then_some(true)
        }
        ChannelMsg::SetEnv {
            want_reply,
            variable_name,
            variable_value,
        } => {
            wanted.env.insert(variable_name, variable_value);
            want_reply.then_some(true)
        }
        ChannelMsg::AgentForward { want_reply } | ChannelMsg::RequestX11 { want_reply, .. } => {
            want_reply.then_some(false)
        }
        ChannelMsg::WindowChange {
            col_width,
            row_height,
            ..
        } => {
            if let Some(tty) = &mut wanted.tty {
                *tty = size(row_height, col_width);
            }
            None
        }
        _ => None,
    }
}

fn size(rows: u32, cols: u32) -> TtySize {
    let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    TtySize {
        rows: cells(rows),
        cols: cells(cols),
    }
}

fn command(program: Program, argv: Vec<String>, user: String, wanted: Wanted) -> Command {
    let mut env = wanted.env;
    // What programs know a session of SSH by; there are no addresses on the way.
    let connection = "127.0.0.1 0 127.0.0.1 22";
    env.insert("SSH_CONNECTION".to_owned(), connection.to_owned());
    Command {
        argv,
        program,
        env,
        user: Some(user),
        tty: wanted.tty,
        ..Command::default()
    }
}

/// Runs a command; its end, or why there is none.
async fn run(
    guest: &Guest,
    command: Command,
    read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
) -> Result<Option<End>, Failure> {
    let request = VmExec {
        vm: guest.vm.clone(),
        command,
    };
    let (sender, receiver) = guest.daemon.frames(&request).await?;
    tokio::select! {
        end = to_client(receiver, write) => end,
        // A client that closed the channel hears no end; its command gets SIGHUP.
        () = to_guest(read, sender) => Ok(None),
    }
}

async fn to_client(
    mut receiver: FrameReceiver,
    write: &ChannelWriteHalf<Msg>,
) -> Result<Option<End>, Failure> {
    while let Some(frame) = receiver.next().await? {
        let sent = match frame {
            Frame::Command(GuestFrame::Stdout(data)) => write.data_bytes(data).await,
            Frame::Command(GuestFrame::Stderr(data)) => {
                write.extended_data_bytes(STDERR, data).await
            }
            Frame::Command(GuestFrame::Exit(status)) => {
                if let banger_wire::guest::ExitStatus::Failed(failure) = &status {
                    let text = format!("banger: {}\n", failure.message);
                    let _ = write.extended_data_bytes(STDERR, text).await;
                }
                return Ok(Some(End::from(&status)));
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return Ok(None);
        }
    }
    let lost = "the connection to the daemon ended before the command did; how it ended is unknown";
    Err(Failure::new(lost).hint("banger vm list"))
}

/// Ends when the client closes the channel.
async fn to_guest(mut read: ChannelReadHalf, mut sender: FrameSender) {
    while let Some(message) = read.wait().await {
        let frames: Vec<GuestFrame> = match message {
            ChannelMsg::Data { data } => split(data).map(GuestFrame::Stdin).collect(),
            ChannelMsg::Eof => vec![GuestFrame::StdinEof],
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                ..
            } => vec![GuestFrame::Resize(size(row_height, col_width))],
            ChannelMsg::Signal { signal } => process::number(&signal)
                .map(GuestFrame::Signal)
                .into_iter()
                .collect(),
            ChannelMsg::Close => return,
            _ => continue,
        };
        for frame in frames {
            // A command that is over says so by its end.
            let _ = sender.send(&Frame::Command(frame)).await;
        }
    }
}

/// Tells the client the end, and closes the channel.
async fn conclude(
    write: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    end: Result<Option<End>, Failure>,
) {
    let end = match end {
        Ok(end) => end,
        Err(failure) => {
            let text = format!("{}\n", failure.text());
            let _ = write.extended_data_bytes(STDERR, text).await;
            Some(End::Status(FAILED))
        }
    };
    // A client that is gone needs none of it.
    let _ = write.eof().await;
    let _ = match end {
        Some(End::Status(status)) => write.exit_status(status).await.map_err(drop),
        Some(End::Signal(number)) => match process::named(number) {
            Some(name) => {
                let none = String::new;
                handle
                    .exit_signal_request(write.id(), name, false, none(), none())
                    .await
            }
            None => Ok(()),
        },
        None => Ok(()),
    };
    let _ = write.close().await;
}
