//! Upgraded connections: `vm.exec` and `vm.run`.
//!
//! Frames are relayed one at a time, so a slow reader slows the command and a command that does not read slows the
//! client; nothing is kept. A client that goes away ends its command.

use super::body::{self, Answer};
use super::dispatch::panicked;
use crate::daemon::Daemon;
use crate::ops::{Cancel, Running, Why};
use crate::vm::first_command;
use crate::vm::preflight;
use banger_wire::api::{self, ApiError, COMMAND_STAGE, Code, Decoder, Event, Frame, UPGRADE};
use banger_wire::guest::{
    self, ClientError, ExecEvent, ExecInput, ExecOutput, ExecStream, ExitStatus,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// How often a client that does not read is asked whether it is still there.
const LOOK: Duration = Duration::from_millis(500);

/// How long a client may take to close its end after the last frame.
const FAREWELL: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, ApiError>;

/// How a relayed command ended for us.
enum End {
    /// The guest told its status.
    Exited(ExitStatus),
    /// The client left; the command was told by SIGHUP.
    ClientGone,
    /// The guest failed.
    Failed(ClientError),
}

/// `vm.exec`.
pub async fn exec(
    daemon: Arc<Daemon>,
    request: api::VmExec,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>> {
    // What no guest could run is refused for that, whichever VM is meant.
    preflight::command(&request.command.clone().into())?;
    let (vm, guest) = daemon.vms().session(&request.vm).await?;
    let stream = guest
        .exec(&request.command.into())
        .await
        .map_err(|error| guest_error(vm.name.as_str(), &error))?;
    tokio::spawn(async move {
        let _attached = daemon.attach();
        let Some(client) = Peer::of(upgrade).await else {
            return;
        };
        let Peer {
            mut reader,
            mut writer,
        } = client;
        let end = relay(&mut reader, &mut writer, stream).await;
        daemon.vms().used(vm.id).await;
        match end {
            End::Exited(status) => writer.send(&exit(status)).await,
            End::Failed(error) => {
                let error = guest_error(vm.name.as_str(), &error);
                writer.send(&Frame::Error(error)).await;
            }
            End::ClientGone => {}
        }
        part(reader, writer).await;
    });
    Ok(switching())
}

/// `vm.run`.
pub async fn run(
    daemon: Arc<Daemon>,
    request: api::VmRun,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>> {
    let (shape, command) = (&request.shape, &request.command);
    daemon.vms().check(shape, Some(command)).await?;
    let (running, told) = daemon.registry.begin("vm.run")?;
    tokio::spawn(async move {
        let _attached = daemon.attach();
        let Some(client) = Peer::of(upgrade).await else {
            return;
        };
        run_in(daemon, request, Arc::new(running), told, client).await;
    });
    Ok(switching())
}

async fn run_in(
    daemon: Arc<Daemon>,
    request: api::VmRun,
    running: Arc<Running>,
    mut told: mpsc::Receiver<Event>,
    client: Peer,
) {
    let Peer {
        mut reader,
        mut writer,
    } = client;
    let (first, starter) = first_command();
    let mut worker = {
        let (daemon, running) = (Arc::clone(&daemon), Arc::clone(&running));
        let (shape, rm) = (request.shape, request.rm);
        tokio::spawn(async move {
            let vms = daemon.vms();
            vms.create(&running, &shape, rm, Some(&first)).await
        })
    };
    let cancel = &running.cancel;
    let command = request.command.into();
    let start = starter.exec(&command);
    let end = match telling(start, &mut told, &reader, &mut writer, cancel).await {
        Ok(stream) => {
            running.stage(COMMAND_STAGE, "running");
            writer.send(&command_started()).await;
            relay(&mut reader, &mut writer, stream).await
        }
        Err(error) => End::Failed(error),
    };
    if let End::Exited(status) = &end {
        writer.send(&exit(status.clone())).await;
    }
    // The answer to the command was the guest's word that it is ready, so this is over, or it failed.
    let created = telling(&mut worker, &mut told, &reader, &mut writer, cancel).await;
    let vm = match created.unwrap_or_else(|panic| Err(panicked(&panic))) {
        Ok(vm) => vm,
        Err(error) => {
            if let Err(error) = running.end::<()>(Err(error)) {
                writer.send(&Frame::Error(error)).await;
            }
            part(reader, writer).await;
            return;
        }
    };
    let failed = match end {
        End::Failed(error) => Some(guest_error(vm.name.as_str(), &error)),
        End::Exited(_) | End::ClientGone => None,
    };
    // From here on nothing depends on the client: with `--rm` the VM goes, whoever is still there.
    let removed = if request.rm {
        daemon.vms().remove(&running, vm.id).await
    } else {
        daemon.vms().used(vm.id).await;
        Ok(())
    };
    let ended = running.end(match (failed, removed) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(()),
    });
    match ended {
        Ok(()) => {
            let vm = if request.rm {
                None
            } else {
                daemon.vms().view(vm.id).await.ok().map(Box::new)
            };
            writer.send(&Frame::Event(Event::Done { vm })).await;
        }
        Err(error) => writer.send(&Frame::Error(error)).await,
    }
    part(reader, writer).await;
}

/// Ends a stream so that its last frames arrive: a socket that is closed with input unread is reset, and a reset
/// overtakes what the client has not read yet.
async fn part(mut reader: Reader, mut writer: Writer) {
    // A client that is gone needs no farewell.
    let _ = writer.write.shutdown().await;
    let rest = async { while reader.next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, rest).await;
}

/// Passes on what a create tells while something of it is waited for; a client that leaves cancels it.
async fn telling<T>(
    what: impl Future<Output = T>,
    told: &mut mpsc::Receiver<Event>,
    reader: &Reader,
    writer: &mut Writer,
    cancel: &Cancel,
) -> T {
    let mut what = pin!(what);
    let mut look = tokio::time::interval(LOOK);
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = told.recv() => writer.send(&Frame::Event(event)).await,
            result = &mut what => break result,
            _ = look.tick() => if reader.hung_up() {
                cancel.fire(Why::ClientGone);
            }
        }
    };
    while let Ok(event) = told.try_recv() {
        writer.send(&Frame::Event(event)).await;
    }
    result
}

/// Relays between a client and a command until the command ends or the client goes.
async fn relay(reader: &mut Reader, writer: &mut Writer, exec: ExecStream) -> End {
    let (input, output) = exec.split();
    let look = reader.socket();
    let gone = async {
        let mut look_again = tokio::time::interval(LOOK);
        loop {
            look_again.tick().await;
            if hung_up(&look) {
                return;
            }
        }
    };
    // Side by side: a terminal's echo must flow while input waits, and a client must be missed while either does.
    tokio::select! {
        end = forward_output(output, writer) => end,
        () = forward_input(reader, input) => End::ClientGone,
        () = gone => End::ClientGone,
    }
}

async fn forward_output(mut output: ExecOutput, writer: &mut Writer) -> End {
    loop {
        let frame = match output.next().await {
            Ok(Some(ExecEvent::Stdout(data))) => guest::frame::Frame::Stdout(data),
            Ok(Some(ExecEvent::Stderr(data))) => guest::frame::Frame::Stderr(data),
            Ok(Some(ExecEvent::Exit(status))) => return End::Exited(status),
            Ok(None) => return End::Failed(ClientError::ConnectionLost),
            Err(error) => return End::Failed(error),
        };
        if writer.write(&Frame::Command(frame)).await.is_err() {
            return End::ClientGone;
        }
    }
}

/// Ends when the client is gone or sends what is no frame. A command that takes no more input is told by its output;
/// the client's frames are read on, so that its leaving is seen.
async fn forward_input(reader: &mut Reader, input: ExecInput) {
    while let Some(frame) = reader.next().await {
        let Frame::Command(frame) = frame else {
            return;
        };
        let _ = match frame {
            guest::frame::Frame::Stdin(data) => input.stdin(data).await,
            guest::frame::Frame::StdinEof => input.eof().await,
            guest::frame::Frame::Resize(size) => input.resize(size).await,
            guest::frame::Frame::Signal(number) => input.signal(number).await,
            // Frames of the other direction.
            _ => return,
        };
    }
}

/// What a failed call to the guest means for the command's caller: exit status 125.
fn guest_error(vm: &str, error: &ClientError) -> ApiError {
    match error {
        ClientError::ConnectionLost => ApiError::new(
            Code::OperationFailed,
            format!("VM '{vm}' ended, or its agent did, while the command ran"),
        )
        .hint(format!("banger vm logs {vm}")),
        ClientError::Refused { .. } => ApiError::new(
            Code::OperationFailed,
            format!("the guest of VM '{vm}' cannot run commands"),
        )
        .caused_by(error)
        .hint(format!("banger vm logs {vm}")),
        _ => ApiError::new(
            Code::OperationFailed,
            format!("the agent of VM '{vm}' cannot be understood"),
        )
        .caused_by(error),
    }
}

/// Tells the client that signals and keys are the command's from now on.
fn command_started() -> Frame {
    Frame::Event(Event::Progress {
        stage: COMMAND_STAGE.to_owned(),
        detail: "running".to_owned(),
        done: None,
        total: None,
    })
}

const fn exit(status: ExitStatus) -> Frame {
    Frame::Command(guest::frame::Frame::Exit(status))
}

fn switching() -> Response<Answer> {
    let mut response = body::answer(
        StatusCode::SWITCHING_PROTOCOLS,
        "application/octet-stream",
        Answer::Whole(None),
    );
    let headers = response.headers_mut();
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("upgrade"),
    );
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
    response
}

/// The two halves of an upgraded connection.
struct Peer {
    reader: Reader,
    writer: Writer,
}

impl Peer {
    /// `None` if the client left before the upgrade was done.
    async fn of(upgrade: OnUpgrade) -> Option<Peer> {
        let upgraded = upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
        let (read, write) = parts.io.into_inner().into_split();
        let mut decoder = Decoder::default();
        decoder.push(&parts.read_buf);
        let reader = Reader { read, decoder };
        let writer = Writer {
            write,
            broken: false,
        };
        Some(Peer { reader, writer })
    }
}

struct Reader {
    read: OwnedReadHalf,
    decoder: Decoder,
}

impl Reader {
    /// The next frame; `None` if the client left or sent what is none.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().ok()? {
                return Some(frame);
            }
            let buffer = self.decoder.buffer();
            buffer.reserve(16 * 1024);
            if self.read.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// A second descriptor of the socket to ask about its state while this one is read.
    fn socket(&self) -> Option<std::os::fd::OwnedFd> {
        use std::os::fd::AsFd;
        self.read.as_ref().as_fd().try_clone_to_owned().ok()
    }

    /// Whether the client is gone, unread bytes or not.
    fn hung_up(&self) -> bool {
        hung_up(&self.socket())
    }
}

fn hung_up(socket: &Option<std::os::fd::OwnedFd>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(socket) = socket else {
        return true;
    };
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok()
        && fds[0]
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

struct Writer {
    write: OwnedWriteHalf,
    broken: bool,
}

impl Writer {
    async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.write.write_all(&frame.encode()).await
    }

    /// Sends, or gives up for good: a client that left reads nothing.
    async fn send(&mut self, frame: &Frame) {
        if !self.broken && self.write(frame).await.is_err() {
            self.broken = true;
        }
    }
}
