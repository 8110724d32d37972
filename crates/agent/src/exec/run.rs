//! One command from its start to its exit frame.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_wire::guest::exec::DEFAULT_PATH;
use banger_wire::guest::frame::{BEST_PAYLOAD, Frame, HEADER, Output, output_header};
use banger_wire::guest::{ExecFailure, ExecRequest, ExitStatus, FailureKind, TtySize};
use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::stdio::{GRACE, Stream, UntilDeadline};
use super::{lookup, user};
use crate::guest::Guest;
use crate::reaper::Reaper;
use crate::serve::Frames;
use crate::spawn::{self, Launch, Running, Streams};

/// Frames that may wait for the host, at most 32 KiB each.
const OUTPUT_QUEUE: usize = 2;
/// What ends input on a terminal: ^D.
const END_OF_TEXT: [u8; 1] = [4];

type Sender = mpsc::Sender<Bytes>;

/// Starts the command; the receiver gives its frames, the last of them the exit status.
pub fn start(guest: &Arc<Guest>, request: ExecRequest, input: Frames) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
    let reaper = guest.reaper.clone();
    tokio::spawn(async move {
        let status = match launch(&reaper, &request) {
            Ok(running) => attend(&reaper, running, input, &sender).await,
            Err(failure) => Some(ExitStatus::Failed(failure)),
        };
        if let Some(status) = status {
            // The host may have gone meanwhile.
            let _ = sender.send(Frame::Exit(status).encode()).await;
        }
    });
    receiver
}

/// Decides user, directory, environment and file, and starts the program.
fn launch(reaper: &Reaper, request: &ExecRequest) -> Result<Running, ExecFailure> {
    let user = user::find(request.user.as_deref()).map_err(|message| ExecFailure {
        reason: FailureKind::User,
        message,
    })?;
    let cwd = directory(request.cwd.as_deref(), &user.home)?;
    let env = environment(request, &user);
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, path)| path);
    let name = request.argv.first().map_or("", String::as_str);
    let program = lookup::find(name, path, &cwd)?;
    let launch = Launch {
        program: &program,
        argv: &request.argv,
        env: &env,
        cwd: &cwd,
        uid: user.uid,
        gid: user.gid,
        groups: &user.groups,
        tty: request.tty,
    };
    spawn::spawn(reaper, &launch).map_err(|error| lookup::spawn_failure(name, &error))
}

/// The directory asked for, which must exist; else the home, which need not.
fn directory(wanted: Option<&str>, home: &Path) -> Result<PathBuf, ExecFailure> {
    let Some(wanted) = wanted else {
        let home_is_there = home.is_dir();
        return Ok(if home_is_there {
            home.to_owned()
        } else {
            PathBuf::from("/")
        });
    };
    let wanted = PathBuf::from(wanted);
    if wanted.is_absolute() && wanted.is_dir() {
        return Ok(wanted);
    }
    Err(ExecFailure {
        reason: FailureKind::Cwd,
        message: format!(
            "{} is not an absolute path of a directory in the guest",
            wanted.display()
        ),
    })
}

fn environment(request: &ExecRequest, user: &user::User) -> Vec<(String, String)> {
    let mut env = request.env.clone();
    let mut default = |name: &str, value: &str| {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", &user.home.to_string_lossy());
    default("USER", &user.name);
    default("LOGNAME", &user.name);
    default("SHELL", &user.shell);
    if request.tty.is_some() {
        default("TERM", "xterm");
    }
    env.into_iter().collect()
}

/// Serves a running command until it has ended and its output is read; `None` if the host went away first.
async fn attend(
    reaper: &Reaper,
    running: Running,
    input: Frames,
    sender: &Sender,
) -> Option<ExitStatus> {
    let Running {
        pid,
        mut exit,
        streams,
    } = running;
    let (deadline, deadline_seen) = watch::channel(None);
    let (input, readers) = match connect(streams) {
        Ok(ends) => {
            let Ends {
                stdin,
                outputs,
                terminal,
            } = ends;
            let mut readers = tokio::task::JoinSet::new();
            for (output, stream) in outputs {
                readers.spawn(pump(output, stream, deadline_seen.clone(), sender.clone()));
            }
            let target = InputTarget {
                reaper: reaper.clone(),
                pid,
                stdin,
                terminal,
            };
            (tokio::spawn(target.feed(input)), readers)
        }
        Err(error) => {
            signal_group(reaper, pid, Signal::KILL);
            let message = format!("the guest could not attach the command's streams: {error}");
            return Some(ExitStatus::Failed(ExecFailure {
                reason: FailureKind::Resource,
                message,
            }));
        }
    };
    let mut readers = readers;
    let status = tokio::select! {
        status = &mut exit => status.ok(),
        () = sender.closed() => None,
    };
    input.abort();
    let Some(status) = status else {
        // The host is gone; readers end with this function, and with them our ends of pipes and terminal.
        signal_group(reaper, pid, Signal::HUP);
        return None;
    };
    deadline.send_replace(Some(Instant::now() + GRACE));
    tokio::select! {
        () = async { while readers.join_next().await.is_some() {} } => {}
        () = sender.closed() => return None,
    }
    Some(exit_status(status))
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

fn signal_group(reaper: &Reaper, pid: Pid, signal: Signal) {
    reaper.if_alive(pid, || {
        // It may have ended this instant.
        let _ = kill_process_group(pid, signal);
    });
}

/// Our ends of a command's streams, ready for use.
struct Ends {
    stdin: Arc<Stream>,
    outputs: Vec<(Output, Arc<Stream>)>,
    terminal: bool,
}

fn connect(streams: Streams) -> io::Result<Ends> {
    Ok(match streams {
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => Ends {
            stdin: Arc::new(Stream::writer(stdin)?),
            outputs: vec![
                (Output::Stdout, Arc::new(Stream::reader(stdout)?)),
                (Output::Stderr, Arc::new(Stream::reader(stderr)?)),
            ],
            terminal: false,
        },
        Streams::Terminal(master) => {
            let master = Arc::new(Stream::both(master)?);
            Ends {
                stdin: Arc::clone(&master),
                outputs: vec![(Output::Stdout, master)],
                terminal: true,
            }
        }
    })
}

/// Sends what comes out of one stream; waits while the host does not take it.
async fn pump(
    output: Output,
    stream: Arc<Stream>,
    deadline: watch::Receiver<Option<Instant>>,
    sender: Sender,
) {
    let mut reader = UntilDeadline::new(&stream, deadline);
    let mut buffer = vec![0_u8; HEADER + BEST_PAYLOAD];
    loop {
        let count = reader.read(&mut buffer[HEADER..]).await;
        if count == 0 {
            return;
        }
        buffer[..HEADER].copy_from_slice(&output_header(output, count));
        if sender
            .send(Bytes::copy_from_slice(&buffer[..HEADER + count]))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Where the host's frames go.
struct InputTarget {
    reaper: Reaper,
    pid: Pid,
    stdin: Arc<Stream>,
    terminal: bool,
}

impl InputTarget {
    /// Obeys the host's frames until there are no more. Bytes are written before the next frame is read, so a
    /// command that does not read slows the host down. A body that ends without the EOF frame is no EOF.
    async fn feed(self, mut frames: Frames) {
        let Self {
            reaper,
            pid,
            stdin,
            terminal,
        } = self;
        let mut stdin = Some(stdin);
        let mut size: Option<TtySize> = None;
        while let Some(frame) = frames.next().await {
            match (frame, &stdin) {
                (Frame::Stdin(data), Some(stream)) => {
                    let closed = stream.write_all(&data).await.is_err();
                    if closed && !terminal {
                        // The command has closed it; the rest of the input is read and dropped.
                        stdin = None;
                    }
                }
                (Frame::StdinEof, Some(stream)) if terminal => {
                    let _ = stream.write_all(&END_OF_TEXT).await;
                }
                (Frame::StdinEof, _) => stdin = None,
                (Frame::Resize(wanted), Some(stream)) if terminal && size != Some(wanted) => {
                    size = Some(wanted);
                    let _ = spawn::resize(stream.fd(), wanted);
                }
                (Frame::Signal(number), _) => {
                    if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                        signal_group(&reaper, pid, signal);
                    }
                }
                _ => {}
            }
        }
        // Without an EOF frame the command's input stays open until the command ends.
        let _kept = stdin;
        std::future::pending::<()>().await;
    }
}
