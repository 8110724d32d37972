//! What goes on around a running command: its output read, its input written, its end awaited.

use std::io;
use std::sync::Arc;

use banger_wire::guest::ExitStatus;
use banger_wire::guest::frame::{BEST_PAYLOAD, Output};
use rustix::process::{Signal, WaitStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::command::{Command, Process};
use super::input::Next;
use super::resource;
use super::stdio::{GRACE, Stream, UntilDeadline};
use crate::reaper::Reaper;
use crate::spawn::{Running, Streams};

/// What ends input on a terminal: ^D.
const END_OF_TEXT: [u8; 1] = [4];

/// Attends to a running command until it has ended and its output is read, or nobody will come for it any more.
pub fn attend(command: Arc<Command>, reaper: &Reaper, running: Running) {
    let Running {
        pid,
        mut exit,
        streams,
    } = running;
    let ends = connect(streams);
    let terminal = ends.as_ref().ok().and_then(Ends::terminal);
    command.started(Process {
        reaper: reaper.clone(),
        pid,
        terminal: terminal.map(Arc::downgrade),
    });
    let ends = match ends {
        Ok(ends) => ends,
        Err(error) => {
            command.signal(Signal::KILL);
            let message = format!("the guest could not attach the command's streams: {error}");
            return command.ended(ExitStatus::Failed(resource(message)));
        }
    };
    tokio::spawn(async move {
        let (deadline, deadline_seen) = watch::channel(None);
        let mut readers = JoinSet::new();
        for (output, stream) in ends.outputs {
            let command = Arc::clone(&command);
            readers.spawn(pump(command, output, stream, deadline_seen.clone()));
        }
        // Ends with this task, and with it our end of the input.
        let mut writer = JoinSet::new();
        if let Some(stdin) = ends.stdin {
            writer.spawn(feed(Arc::clone(&command), stdin, ends.terminal));
        }
        let status = tokio::select! {
            status = &mut exit => status.ok(),
            () = command.left() => None,
        };
        writer.abort_all();
        let Some(status) = status else {
            return;
        };
        command.close_input();
        deadline.send_replace(Some(Instant::now() + GRACE));
        while readers.join_next().await.is_some() {}
        command.ended(exit_status(status));
    });
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => ExitStatus::Signaled {
            signal: byte(signal),
        },
        (code, None) => ExitStatus::Exited {
            code: byte(code.unwrap_or(i32::from(u8::MAX))),
        },
    }
}

/// Our ends of a command's streams, ready for use.
struct Ends {
    stdin: Option<Arc<Stream>>,
    outputs: Vec<(Output, Arc<Stream>)>,
    terminal: bool,
}

impl Ends {
    fn terminal(&self) -> Option<&Arc<Stream>> {
        self.stdin.as_ref().filter(|_| self.terminal)
    }
}

fn connect(streams: Streams) -> io::Result<Ends> {
    Ok(match streams {
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => Ends {
            stdin: Some(Arc::new(Stream::writer(stdin)?)),
            outputs: vec![
                (Output::Stdout, Arc::new(Stream::reader(stdout)?)),
                (Output::Stderr, Arc::new(Stream::reader(stderr)?)),
            ],
            terminal: false,
        },
        Streams::Terminal(master) => {
            let master = Arc::new(Stream::both(master)?);
            Ends {
                stdin: Some(Arc::clone(&master)),
                outputs: vec![(Output::Stdout, master)],
                terminal: true,
            }
        }
        Streams::None => Ends {
            stdin: None,
            outputs: Vec::new(),
            terminal: false,
        },
    })
}

/// Reads one stream into the command's log; waits while the host does not take it.
async fn pump(
    command: Arc<Command>,
    output: Output,
    stream: Arc<Stream>,
    deadline: watch::Receiver<Option<Instant>>,
) {
    let mut reader = UntilDeadline::new(&stream, deadline);
    let mut buffer = vec![0_u8; BEST_PAYLOAD];
    while command.output_room().await {
        let count = reader.read(&mut buffer).await;
        if count == 0 {
            return;
        }
        command.wrote(output, &buffer[..count]);
    }
}

/// Writes the command's input as it comes.
async fn feed(command: Arc<Command>, stdin: Arc<Stream>, terminal: bool) {
    loop {
        match command.next_input().await {
            Next::Write(bytes) => {
                let refused = stdin.write_all(&bytes).await.is_err();
                command.input_written(bytes.len());
                if refused && !terminal {
                    // The command has closed it; the rest of the input is dropped as it comes.
                    return command.close_input();
                }
            }
            Next::End => {
                if terminal {
                    let _ = stdin.write_all(&END_OF_TEXT).await;
                }
                return;
            }
            Next::Nothing => {}
        }
    }
}
