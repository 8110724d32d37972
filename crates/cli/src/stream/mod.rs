//! A command in a guest, seen from here: our stdin to it, its output to ours, signals through.
//!
//! It is carried over one connection after the other: when the daemon ends, or its session with the guest, the next
//! daemon is started and the command taken up where it was (R-PROG-2). No byte is lost or comes twice in either
//! direction: the guest keeps output until we say that we have it, and we keep input until the guest has it.

mod feed;

use crate::{
    connection::Daemon,
    failure::{Failure, tell},
    output::{self, Chunk},
    progress::Progress,
    terminal,
    verbs::print_text,
};
use banger_wire::{
    api::{
        COMMAND_STAGE, ClientError, Event, Frame, FrameReceiver, FrameSender, VmAttach, VmState,
        VmView,
    },
    guest::{
        ExecId, ExitStatus, FailureKind,
        frame::{Frame as GuestFrame, Taken},
    },
};
use feed::{Feed, Leave, Told};
use std::{io, process::ExitCode};
use tokio::sync::{mpsc, watch};

/// Chunks in flight between the event loop and the writing thread.
const CHUNKS: usize = 8;

/// What is carried.
#[derive(Debug)]
pub struct Carried {
    /// The command has a terminal.
    pub tty: bool,
    /// What it is known by.
    pub id: ExecId,
    /// Where it runs. For a command that a VM is being made for the daemon tells, and when it runs: until then keys and
    /// signals are ours.
    pub vm: Option<String>,
    /// Its VM goes when it ends.
    pub removes: bool,
    /// It is the shell of the image.
    pub shell: bool,
    /// It is started and left alone; of a VM that was made for it the name is printed.
    pub left_alone: bool,
}

/// Carries a command to its end.
///
/// # Errors
/// The connection broke and could not be made anew, the daemon says what failed, or our own streams did.
pub async fn carry(
    daemon: &Daemon,
    frames: (FrameSender, FrameReceiver),
    what: Carried,
) -> Result<ExitCode, Failure> {
    let (started, runs) = watch::channel(false);
    let (see_taken, taken) = watch::channel(Taken::default());
    let (see_got, got) = watch::channel(0);
    let told = Told { runs, taken, got };
    let feed = Feed::start(what.tty, told)
        .map_err(|e| Failure::new("signals cannot be listened to").caused_by(&e))?;
    let begun = what.vm.is_some();
    let mut session = Session {
        what,
        raw: None,
        started,
        taken: see_taken,
        got: see_got,
        end: None,
        done: false,
        progress: Progress::default(),
        stays: None,
    };
    if begun {
        session.begin();
    }
    let (output, writer) = output::start(CHUNKS);
    let over = session.follow(daemon, frames, feed, &output).await;
    drop(output);
    let written = writer.join();
    // The terminal is the user's again before anything is said on it.
    session.raw = None;
    match written {
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // As a program ends that got SIGPIPE.
            return Ok(ExitCode::from(128 + 13));
        }
        Ok(Err(error)) => {
            return Err(Failure::new("cannot write the command's output").caused_by(&error));
        }
        _ => {}
    }
    match over {
        Over::Ended => session.conclude(daemon).await,
        Over::Left(Leave::Signal(number)) => Ok(ExitCode::from(128 + number)),
        Over::Left(Leave::Unreadable(error)) => {
            Err(Failure::new("cannot read stdin").caused_by(&error))
        }
        Over::Failed(failure) => Err(*failure),
    }
}

/// How carrying ended.
enum Over {
    /// The daemon has nothing more to say, or nobody takes our output.
    Ended,
    /// We leave, and our leaving ends the operation, or the command.
    Left(Leave),
    /// The daemon says what failed, or cannot be reached.
    Failed(Box<Failure>),
}

/// How a connection ended.
enum Connection {
    /// In order.
    Ended,
    /// In the middle.
    Cut,
    /// With a failure.
    Failed(ClientError),
}

/// What the daemon's frames have told so far.
struct Session {
    what: Carried,
    raw: Option<terminal::RawMode>,
    /// Told when the command runs.
    started: watch::Sender<bool>,
    /// What has arrived of the input.
    taken: watch::Sender<Taken>,
    /// Bytes of output that have been passed on.
    got: watch::Sender<u64>,
    end: Option<ExitStatus>,
    /// The last event has come.
    done: bool,
    progress: Progress,
    /// The VM that is left behind.
    stays: Option<Box<VmView>>,
}

impl Session {
    /// Keys and signals are the command's from now on.
    fn begin(&mut self) {
        if self.what.tty && self.raw.is_none() {
            self.raw = terminal::RawMode::enter().ok();
        }
        self.started.send_replace(true);
    }

    /// Carries the command over one connection after the other.
    async fn follow(
        &mut self,
        daemon: &Daemon,
        (sender, mut receiver): (FrameSender, FrameReceiver),
        mut feed: Feed,
        output: &mpsc::Sender<Chunk>,
    ) -> Over {
        let mut connection = tokio::select! {
            connection = self.receive(&mut receiver, output) => connection,
            leave = feed.run(sender) => return Over::Left(leave),
        };
        loop {
            match connection {
                Connection::Ended => return Over::Ended,
                Connection::Failed(error) => return Over::Failed(Box::new(error.into())),
                Connection::Cut => {}
            }
            let Some(request) = self.again() else {
                return Over::Ended;
            };
            feed.forget_taken();
            let again = tokio::select! {
                again = daemon.take_up(&request) => again,
                leave = feed.interrupted() => return Over::Left(leave),
            };
            let (sender, mut receiver) = match again {
                Ok(frames) => frames,
                Err(failure) => return Over::Failed(Box::new(failure)),
            };
            connection = tokio::select! {
                connection = self.receive(&mut receiver, output) => connection,
                leave = feed.resume(sender) => return Over::Left(leave),
            };
        }
    }

    /// What takes up the command where it is; `None` if it has not begun, or ended.
    fn again(&self) -> Option<VmAttach> {
        let begun = *self.started.borrow() && self.end.is_none();
        let vm = self.what.vm.clone().filter(|_| begun)?;
        Some(VmAttach {
            vm,
            id: self.what.id,
            output: *self.got.borrow(),
        })
    }

    /// Passes on what comes over one connection.
    async fn receive(
        &mut self,
        receiver: &mut FrameReceiver,
        output: &mpsc::Sender<Chunk>,
    ) -> Connection {
        loop {
            let frame = match receiver.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) if self.done => return Connection::Ended,
                Ok(None) | Err(ClientError::Lost(_) | ClientError::Cut) => return Connection::Cut,
                Err(error) => return Connection::Failed(error),
            };
            let (chunk, count) = match frame {
                Frame::Command(GuestFrame::Stdout(bytes)) => {
                    let count = bytes.len();
                    (Chunk::Stdout(bytes), count)
                }
                Frame::Command(GuestFrame::Stderr(bytes)) => {
                    let count = bytes.len();
                    (Chunk::Stderr(bytes), count)
                }
                Frame::Command(GuestFrame::Taken(taken)) => {
                    self.taken.send_replace(taken);
                    continue;
                }
                Frame::Command(GuestFrame::Exit(status)) => {
                    self.end = Some(status);
                    if self.what.id == ExecId::MAIN {
                        // What becomes of its VM is still to be told.
                        continue;
                    }
                    return Connection::Ended;
                }
                Frame::Event(event) => {
                    self.event(event);
                    continue;
                }
                Frame::Command(_) | Frame::Copy(_) | Frame::Error(_) => continue,
            };
            if output.send(chunk).await.is_err() {
                // Nobody takes our output any more; the writer says why.
                return Connection::Ended;
            }
            self.got.send_modify(|got| *got += count as u64);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Progress { stage, .. } if stage == COMMAND_STAGE => self.begin(),
            Event::Done { vm } => {
                self.done = true;
                self.stays = vm;
            }
            Event::Accepted { id, .. } => self.what.vm = Some(id.to_string()),
            event if self.end.is_none() => self.progress.event(&event),
            _ => {}
        }
    }

    async fn conclude(self, daemon: &Daemon) -> Result<ExitCode, Failure> {
        let Some(status) = &self.end else {
            let failure = if *self.started.borrow() {
                Failure::new("the connection ended before the command did; how it ended is unknown")
            } else {
                Failure::new(
                    "the daemon ended before it said that the command runs; a VM that was not made by then is undone",
                )
            };
            return Err(failure.hint("banger vm list"));
        };
        let missing =
            matches!(status, ExitStatus::Failed(why) if why.reason == FailureKind::NotFound);
        let no_shell = self.what.shell && missing;
        let code = match status {
            ExitStatus::Failed(failure) if no_shell => {
                let what = format!("the image has no shell: {}", failure.message);
                tell(&Failure::new(what).hint(NO_SHELL).text());
                failure.reason.code()
            }
            ExitStatus::Failed(failure) => {
                tell(&format!("banger: {}", failure.message));
                failure.reason.code()
            }
            status => status.code(),
        };
        match &self.stays {
            Some(vm) if self.what.left_alone && code == 0 => print_text(&format!("{}\n", vm.name))?,
            Some(vm) => tell(&reminder(vm, if no_shell { "PROGRAM" } else { "sh" })),
            None => {}
        }
        if self.what.removes
            && !self.done
            && let Some(vm) = &self.what.vm
        {
            // The daemon ended between the command's end and the VM's; the next one goes on with it.
            daemon.until_gone(vm).await?;
        }
        Ok(ExitCode::from(code))
    }
}

/// The way out for an image without a shell.
const NO_SHELL: &str =
    "banger vm run … -- PROGRAM ARGUMENT…, or --entrypoint for the image's own program";

/// One line for whoever leaves a VM behind (R-CLI-1): how to enter it and how to be rid of it.
fn reminder(vm: &VmView, program: &str) -> String {
    let VmView { name, state, .. } = vm;
    let enter = if *state == VmState::Running {
        format!("banger vm exec {name} -- {program}")
    } else {
        format!("banger vm start {name}")
    };
    format!("VM '{name}' stays ({state}): {enter} | banger vm delete --force {name}")
}
