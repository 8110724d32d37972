//! A command in a guest, seen from here: our stdin to it, its output to ours, signals through.

use crate::{
    failure::{Failure, tell},
    output::{self, Chunk},
    progress::Progress,
    signals::{Resizes, Signals},
    terminal,
};
use banger_wire::{
    api::{COMMAND_STAGE, Event, Frame, FrameReceiver, FrameSender, VmState, VmView},
    guest::{
        ExitStatus,
        frame::{BEST_PAYLOAD, Frame as GuestFrame},
    },
};
use bytes::Bytes;
use std::{
    io::{self, Read},
    pin::pin,
    process::ExitCode,
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Chunks in flight between a thread and the event loop.
const CHUNKS: usize = 8;
/// How long a signal waits for input in front of it that the command does not read.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many signals end us, whatever the command makes of them.
const INSISTENT: u32 = 3;

/// Who keys and signals belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A VM is being made: they are ours, until the daemon says that the command runs.
    WhenTold,
    /// The command has them from the start.
    AtOnce,
}

/// Why we leave before the command ends.
enum Leave {
    Signal(u8),
    Unreadable(io::Error),
}

/// Carries a command to its end.
///
/// # Errors
/// The connection broke before the exit frame, the daemon says what failed, or our own streams did.
pub async fn carry(
    frames: (FrameSender, FrameReceiver),
    tty: bool,
    begin: Begin,
) -> Result<ExitCode, Failure> {
    let (sender, receiver) = frames;
    let signals = Signals::listen()
        .and_then(|signals| Ok((signals, Resizes::listen()?)))
        .map_err(|e| Failure::new("signals cannot be listened to").caused_by(&e))?;
    let (started, runs) = watch::channel(false);
    let mut session = Session {
        raw: None,
        tty,
        started,
        end: None,
        progress: Progress::default(),
        stays: None,
    };
    if begin == Begin::AtOnce {
        session.begin();
    }
    let outcome = tokio::select! {
        outcome = session.receive(receiver) => outcome,
        leave = feed(sender, signals, tty, runs) => Err(left(leave)),
    };
    // The terminal is the user's again before anything is said on it.
    session.raw = None;
    match outcome {
        Ok(()) => session.conclude(),
        Err(Ending::Status(code)) => Ok(code),
        Err(Ending::Failed(failure)) => Err(failure),
    }
}

/// How it ends when not by the command.
enum Ending {
    Status(ExitCode),
    Failed(Failure),
}

/// Our leaving ends the operation, or the command, in the daemon.
fn left(leave: Leave) -> Ending {
    match leave {
        Leave::Signal(number) => Ending::Status(ExitCode::from(128 + number)),
        Leave::Unreadable(error) => {
            Ending::Failed(Failure::new("cannot read stdin").caused_by(&error))
        }
    }
}

/// What the daemon's frames have told so far.
struct Session {
    raw: Option<terminal::RawMode>,
    tty: bool,
    /// Told when the command runs.
    started: watch::Sender<bool>,
    end: Option<ExitStatus>,
    progress: Progress,
    /// The VM that is left behind.
    stays: Option<Box<VmView>>,
}

impl Session {
    /// Keys and signals are the command's from now on.
    fn begin(&mut self) {
        if self.tty && self.raw.is_none() {
            self.raw = terminal::RawMode::enter().ok();
        }
        self.started.send_replace(true);
    }

    /// Passes on what comes until the daemon has nothing more to say.
    async fn receive(&mut self, mut receiver: FrameReceiver) -> Result<(), Ending> {
        let (output, writer) = output::start(CHUNKS);
        let outcome = loop {
            let frame = match receiver.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Ending::Failed(Failure::from(error))),
            };
            let chunk = match frame {
                Frame::Command(GuestFrame::Stdout(bytes)) => Chunk::Stdout(bytes),
                Frame::Command(GuestFrame::Stderr(bytes)) => Chunk::Stderr(bytes),
                Frame::Command(GuestFrame::Exit(status)) => {
                    self.end = Some(status);
                    continue;
                }
                Frame::Event(event) => {
                    self.event(event);
                    continue;
                }
                Frame::Command(_) | Frame::Error(_) => continue,
            };
            if output.send(chunk).await.is_err() {
                // Nobody takes our output any more; the writer says why.
                break Ok(());
            }
        };
        drop(output);
        match writer.join() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                // As a program ends that got SIGPIPE.
                Err(Ending::Status(ExitCode::from(128 + 13)))
            }
            Ok(Err(error)) => Err(Ending::Failed(
                Failure::new("cannot write the command's output").caused_by(&error),
            )),
            _ => outcome,
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Progress { stage, .. } if stage == COMMAND_STAGE => self.begin(),
            Event::Done { vm } => self.stays = vm,
            event if self.end.is_none() => self.progress.event(&event),
            _ => {}
        }
    }

    fn conclude(self) -> Result<ExitCode, Failure> {
        let Some(status) = self.end else {
            return Err(Failure::new(
                "the connection ended before the command did; how it ended is unknown",
            )
            .hint("banger vm list"));
        };
        let code = match &status {
            ExitStatus::Failed(failure) => {
                tell(&format!("banger: {}", failure.message));
                failure.reason.code()
            }
            status => status.code(),
        };
        if let Some(vm) = &self.stays {
            tell(&reminder(vm));
        }
        Ok(ExitCode::from(code))
    }
}

/// One line for whoever leaves a VM behind (R-CLI-1): how to enter it and how to be rid of it.
fn reminder(vm: &VmView) -> String {
    let VmView { name, state, .. } = vm;
    let enter = if *state == VmState::Running {
        format!("banger vm exec {name} -- sh")
    } else {
        format!("banger vm start {name}")
    };
    format!("VM '{name}' stays ({state}): {enter} | banger vm delete --force {name}")
}

/// Our stdin, signals and terminal size, to the command. Ends only if we are to leave.
async fn feed(
    mut sender: FrameSender,
    (mut signals, mut resizes): (Signals, Resizes),
    tty: bool,
    runs: watch::Receiver<bool>,
) -> Leave {
    let mut input = start_reader();
    let mut ended = false;
    let mut insisted = 0;
    let mut waiting = None;
    loop {
        let frame = match waiting.take() {
            Some(number) => {
                insisted += 1;
                if !*runs.borrow() || insisted >= INSISTENT {
                    return Leave::Signal(number);
                }
                GuestFrame::Signal(number)
            }
            None => tokio::select! {
                chunk = input.recv(), if !ended => match chunk {
                    Some(Ok(bytes)) => GuestFrame::Stdin(bytes),
                    Some(Err(error)) => return Leave::Unreadable(error),
                    None => { ended = true; GuestFrame::StdinEof }
                },
                number = signals.next() => { waiting = Some(number); continue; }
                () = resizes.next(), if tty => match terminal::size() {
                    Some(size) => GuestFrame::Resize(size),
                    None => continue,
                },
            },
        };
        match deliver(&mut sender, &mut signals, frame).await {
            Ok(meanwhile) => waiting = meanwhile,
            Err(leave) => return leave,
        }
    }
}

/// Sends a frame; gives the signal that came meanwhile. A frame goes out only when the command has taken the input
/// before it: a signal behind input that nobody reads ends us instead, and our leaving the command.
async fn deliver(
    sender: &mut FrameSender,
    signals: &mut Signals,
    frame: GuestFrame,
) -> Result<Option<u8>, Leave> {
    let frame = Frame::Command(frame);
    let mut sending = pin!(sender.send(&frame));
    let (sent, number) = tokio::select! {
        sent = &mut sending => (sent, None),
        number = signals.next() => match tokio::time::timeout(PATIENCE, sending).await {
            Ok(sent) => (sent, Some(number)),
            Err(_) => return Err(Leave::Signal(number)),
        },
    };
    if sent.is_err() {
        // The connection is gone; what the daemon said last is still to be read.
        std::future::pending::<()>().await;
    }
    Ok(number)
}

fn start_reader() -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; BEST_PAYLOAD];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|n| Bytes::copy_from_slice(&buffer[..n])),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
