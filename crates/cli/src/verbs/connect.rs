//! `internal connect`: our stdin and stdout as a connection to a socket in a VM, or to its SSH server.

use crate::{
    args::ConnectArgs,
    connection::Daemon,
    failure::Failure,
    output::{self, Chunk},
    ssh::{self, config::SSHD_PORT},
};
use banger_model::VmName;
use banger_wire::{
    api::{ClientError, Frame, FrameReceiver, FrameSender, VmForward, VmSsh},
    guest::{PathBytes, frame::BEST_PAYLOAD, frame::Frame as GuestFrame},
};
use bytes::Bytes;
use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
    thread,
};
use tokio::sync::mpsc;

/// Chunks in flight between a thread and the event loop.
const CHUNKS: usize = 4;

/// Connects.
pub async fn connect(args: ConnectArgs) -> Result<ExitCode, Failure> {
    let vm = VmName::without_domain(&args.vm);
    if args.port.is_none() && args.socket.is_none() {
        return serve_ssh(vm).await;
    }
    let daemon = Daemon::of_this_user()?;
    if args.port == Some(SSHD_PORT) && args.host.is_none() {
        // The VM's sshd has the VM's key; it is pinned before a client looks for it.
        daemon.call(&VmSsh { vm: vm.to_owned() }).await?;
    }
    let request = VmForward {
        vm: vm.to_owned(),
        port: args.port,
        host: args.host,
        socket: args
            .socket
            .map(|p| PathBytes::from(p.as_os_str().as_bytes())),
    };
    let (sender, receiver) = daemon.frames_again(&request).await?;
    let mut received = tokio::spawn(receive(receiver));
    let received = tokio::select! {
        received = &mut received => received,
        sent = send(sender) => {
            sent?;
            received.await
        }
    };
    received.map_err(|e| Failure::new("reading frames failed").caused_by(&e))??;
    Ok(ExitCode::SUCCESS)
}

/// Speaks SSH with who has our stdin and stdout.
async fn serve_ssh(vm: &str) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let vm = daemon.call(&VmSsh { vm: vm.to_owned() }).await?;
    ssh::serve(daemon, vm).await
}

/// Passes our stdin on to its end, then keeps the connection.
async fn send(mut sender: FrameSender) -> Result<(), Failure> {
    let (chunks, mut input) = mpsc::channel(CHUNKS);
    // Nobody waits for it: a read of a terminal cannot be ended.
    thread::spawn(move || {
        let mut buffer = vec![0; BEST_PAYLOAD];
        loop {
            let read = match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|count| Bytes::copy_from_slice(&buffer[..count])),
            };
            let last = read.as_ref().map_or(true, Bytes::is_empty);
            if chunks.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    while let Some(read) = input.recv().await {
        let data = read.map_err(|e| Failure::new("cannot read stdin").caused_by(&e))?;
        let frame = match data.is_empty() {
            true => GuestFrame::StdinEof,
            false => GuestFrame::Stdin(data),
        };
        if sender.send(&Frame::Command(frame)).await.is_err() {
            // What comes in tells why.
            break;
        }
    }
    std::future::pending().await
}

/// Passes on what comes. The end of what comes closes our stdout; that of both directions is the end of all.
async fn receive(mut receiver: FrameReceiver) -> Result<(), Failure> {
    let (output, writer) = output::start(CHUNKS);
    let mut open = Some((output, writer));
    loop {
        match receiver.next().await {
            Ok(Some(Frame::Command(GuestFrame::Stdout(data)))) => {
                let Some((output, _)) = &open else { continue };
                if output.send(Chunk::Stdout(data)).await.is_err() {
                    // Whoever closed our stdout wants no more.
                    return written(open).await;
                }
            }
            Ok(Some(Frame::Command(GuestFrame::StdinEof))) => written(open.take()).await?,
            Ok(Some(Frame::Command(GuestFrame::End))) => return Ok(()),
            Ok(Some(_)) => {}
            Ok(None) => return Err(ClientError::Cut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

type Open = (mpsc::Sender<Chunk>, thread::JoinHandle<io::Result<()>>);

/// Waits until all is written, and closes our stdout.
async fn written(open: Option<Open>) -> Result<(), Failure> {
    let Some((output, writer)) = open else {
        return Ok(());
    };
    drop(output);
    let failed = |error: &io::Error| Failure::new("cannot write to stdout").caused_by(error);
    match tokio::task::spawn_blocking(move || writer.join()).await {
        Ok(Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(failed(&error));
        }
        _ => {}
    }
    // Number 1 stays taken: what is opened next must not become our stdout.
    let nothing = std::fs::File::options().write(true).open("/dev/null");
    nothing
        .and_then(|nothing| Ok(rustix::stdio::dup2_stdout(nothing)?))
        .map_err(|e| failed(&e))
}
