//! A copy seen from here: our files to the guest, the guest's to ours. A thread reads or writes files, for that may
//! block; this task speaks frames. Leaving ends both sides, and neither keeps half a file under its name.

use crate::{
    failure::{Failure, tell},
    meter::Meter,
    signals::Signals,
};
use banger_tree::{
    Chunk, Destination, Output, Owner, Pack, Reach, Shown, StreamReader, StreamWriter, Unpack,
    pack, unpack,
};
use banger_wire::{
    api::{Frame, FrameReceiver, FrameSender},
    guest::{CopyFrame, CopyOutcome, Sum},
};
use bytes::Bytes;
use std::{
    io::{self, BufRead, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// Frames in flight between the thread and the event loop.
const CHUNKS: usize = 8;
/// The system's word for a full disk.
const FULL: &str = "No space left on device";
/// How long the thread may take to remove what it has begun when we leave.
const TIDY: Duration = Duration::from_secs(10);

/// Where a copy into a guest comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory.
    Here(PathBuf),
    /// A tar stream.
    Stdin,
}

/// Where a copy out of a guest goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A file or directory.
    Here(Destination),
    /// A tar stream.
    Stdout,
}

type Frames = (FrameSender, FrameReceiver);

/// Copies into a guest. `Some` is the exit status after a signal.
///
/// # Errors
/// What failed, here or there.
pub async fn put(
    (sender, receiver): Frames,
    vm: &str,
    source: Source,
    follow: bool,
) -> Result<Option<ExitCode>, Failure> {
    let mut signals = listen()?;
    let (frames, queue) = mpsc::channel(CHUNKS);
    let reader = spawn_blocking(move || send(source, follow, frames));
    let meter = Meter::default();
    tokio::select! {
        outcome = outcome(receiver, vm, None, &meter) => outcome.map(|()| None),
        failure = feed(sender, queue, reader, &meter) => Err(failure),
        number = signals.next() => Ok(Some(ExitCode::from(128 + number))),
        never = meter.show() => match never {},
    }
}

/// Reads what is to be sent.
fn send(source: Source, follow: bool, frames: mpsc::Sender<Bytes>) -> Result<Sum, Failure> {
    let mut writer = StreamWriter::new(frames, Box::new(|text| warn(&text)));
    match source {
        Source::Here(path) => {
            let what = Pack {
                source: &path,
                follow,
                name: b"",
            };
            pack(&what, &mut writer).map_err(|e| Failure::new(e.to_string()))?;
        }
        Source::Stdin => loop {
            let space = writer.space().map_err(gone)?;
            match io::stdin().lock().read(space) {
                Ok(0) => break,
                Ok(count) => writer.advance(count).map_err(gone)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::new("cannot read stdin").caused_by(&error)),
            }
        },
    }
    writer.finish().map_err(|e| Failure::new(e.to_string()))
}

/// Only seen when something else has ended the copy, and told.
fn gone(error: io::Error) -> Failure {
    Failure::new("the copy has ended").caused_by(&error)
}

/// Sends frames and then the end. Ends only if reading failed: how the copy ended is for the guest to say.
async fn feed(
    mut sender: FrameSender,
    mut queue: mpsc::Receiver<Bytes>,
    reader: JoinHandle<Result<Sum, Failure>>,
    meter: &Meter,
) -> Failure {
    while let Some(frame) = queue.recv().await {
        meter.add(frame.len());
        if sender.send_encoded(&frame).await.is_err() {
            return std::future::pending().await;
        }
    }
    let end = match reader.await {
        Ok(Ok(sum)) => CopyFrame::End(sum),
        Ok(Err(failure)) => return failure,
        Err(error) => return Failure::new("reading files failed").caused_by(&error),
    };
    // If that fails, the other side says why.
    let _ = sender.send(&Frame::Copy(end)).await;
    std::future::pending().await
}

/// How writing ended, but for success.
enum Unwritten {
    /// The stream was cut; whoever cut it knows why.
    Cut,
    /// Nobody reads our stdout any more.
    NoReader,
    Failed(Failure),
}

/// Copies out of a guest. `Some` is the exit status after a signal.
///
/// # Errors
/// What failed, here or there.
pub async fn get(
    (sender, receiver): Frames,
    vm: &str,
    target: Target,
) -> Result<Option<ExitCode>, Failure> {
    let mut signals = listen()?;
    let (chunks, queue) = mpsc::channel(CHUNKS);
    let mut writer = spawn_blocking(move || receive(target, StreamReader::new(queue)));
    let meter = Meter::default();
    let ended = tokio::select! {
        ended = async { (outcome(receiver, vm, Some(chunks), &meter).await, (&mut writer).await) } => Ok(ended),
        number = signals.next() => Err(number),
        never = meter.show() => match never {},
    };
    // Our leaving ends the guest's side.
    drop(sender);
    let (told, written) = match ended {
        Ok(ended) => ended,
        Err(number) => {
            // The stream is cut now; what the thread has begun is removed before we go.
            let _ = timeout(TIDY, writer).await;
            return Ok(Some(ExitCode::from(128 + number)));
        }
    };
    let written = written.map_err(|e| Failure::new("writing files failed").caused_by(&e))?;
    match (written, told) {
        (Err(Unwritten::Failed(failure)), _) => Err(failure),
        // As a program ends that got SIGPIPE.
        (Err(Unwritten::NoReader), _) => Ok(Some(ExitCode::from(128 + 13))),
        (_, Err(failure)) => Err(failure),
        (Err(Unwritten::Cut), Ok(())) => Err(cut()),
        (Ok(()), Ok(())) => Ok(None),
    }
}

/// Writes what comes.
fn receive(target: Target, mut reader: StreamReader) -> Result<(), Unwritten> {
    match target {
        Target::Here(destination) => {
            let how = Unpack {
                destination,
                archive: false,
                owner: Owner::Us,
                reach: Reach::NoLinks,
            };
            unpack(reader, &how, &mut |text| warn(&text))
                .map(drop)
                .map_err(|error| match error {
                    error if error.is_lost_stream() => Unwritten::Cut,
                    error => Unwritten::Failed(Failure::new(error.to_string())),
                })
        }
        Target::Stdout => loop {
            let data = reader.fill_buf().map_err(|_| Unwritten::Cut)?;
            if data.is_empty() {
                return Ok(());
            }
            let count = data.len();
            io::stdout().lock().write_all(data).map_err(unwritable)?;
            io::stdout().lock().flush().map_err(unwritable)?;
            reader.consume(count);
        },
    }
}

fn unwritable(error: io::Error) -> Unwritten {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Unwritten::NoReader;
    }
    Unwritten::Failed(Failure::new("cannot write to stdout").caused_by(&error))
}

/// Hears the guest until it tells how the copy ended. The stream's data goes to the thread that writes it; if that
/// takes no more it says why.
async fn outcome(
    mut receiver: FrameReceiver,
    vm: &str,
    chunks: Option<mpsc::Sender<Chunk>>,
    meter: &Meter,
) -> Result<(), Failure> {
    loop {
        let frame = match receiver.next().await? {
            Some(Frame::Copy(frame)) => frame,
            Some(_) => continue,
            None => return Err(cut()),
        };
        match (frame, &chunks) {
            (CopyFrame::Data(data), Some(chunks)) => {
                meter.add(data.len());
                if chunks.send(Chunk::Data(data)).await.is_err() {
                    return Ok(());
                }
            }
            (CopyFrame::Warning(text), _) => warn(&text),
            (CopyFrame::Outcome(CopyOutcome::Done { sum, .. }), chunks) => {
                if let Some(chunks) = chunks {
                    let _ = chunks.send(Chunk::End(sum)).await;
                }
                return Ok(());
            }
            (CopyFrame::Outcome(CopyOutcome::Failed { message }), _) => {
                let message = Shown(message.as_bytes()).to_string();
                let failure = Failure::new(format!("in the guest: {message}"));
                return Err(if message.ends_with(FULL) {
                    failure.hint(format!("banger vm exec {vm} -- df -h"))
                } else {
                    failure
                });
            }
            _ => {}
        }
    }
}

fn cut() -> Failure {
    Failure::new("the connection ended before the copy did").hint("banger vm list")
}

/// What the guest says is not trusted to drive our terminal.
fn warn(text: &str) {
    tell(&format!("warning: {}", Shown(text.as_bytes())));
}

fn listen() -> Result<Signals, Failure> {
    Signals::listen().map_err(|e| Failure::new("signals cannot be listened to").caused_by(&e))
}
