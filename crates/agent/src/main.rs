//! banger-agent: init and services in the guest.
//!
//! As PID 1 it boots the guest (see [`boot`]) and serves the guest channel on a virtio-serial port; where the image's
//! own init is to be PID 1 it does so from a process beside it (see [`init`]). As
//! `banger-agent local TOKEN` it serves the channel on the socket that is its standard input, in the place and
//! with the rights it was started with: that is how tests run the real agent without a VM.

mod boot;
mod clock;
mod console;
mod exec;
mod farewell;
mod files;
mod forward;
mod guest;
mod init;
mod inspect;
mod orders;
mod port;
mod power;
mod reaper;
mod serve;
mod session;
mod slot;
mod spawn;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use banger_wire::guest::handshake::Token;
use banger_wire::guest::{PowerOff, hex};

use guest::{Guest, Place};
use port::Port;
use reaper::Reaper;
use rustix::process::Pid;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        boot::run_as_init();
    }
    let mut arguments = std::env::args().skip(1);
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (Some("local"), Some(token), None) => match local(&token) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("banger-agent: {error}");
                ExitCode::FAILURE
            }
        },
        // Only PID 1 knows what to say on standard input.
        (Some("service"), None, None) if rustix::process::getppid() == Some(Pid::INIT) => {
            boot::run(Place::Service)
        }
        (Some("version"), None, None) => {
            println!("banger-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "banger-agent runs as PID 1 of a guest; elsewhere: `banger-agent local TOKEN` (channel on \
                 standard input) or `banger-agent version`"
            );
            ExitCode::from(2)
        }
    }
}

/// Serves the channel on standard input until the other end closes it.
fn local(token: &str) -> std::io::Result<()> {
    let token = hex::decode16(token)
        .map(Token)
        .ok_or_else(|| std::io::Error::other("TOKEN must be 32 hexadecimal digits"))?;
    // Orphans of commands come to this process as they come to PID 1.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = std::io::stdin().as_fd().try_clone_to_owned()?;
        let guest = Arc::new(Guest::new(
            token,
            PowerOff::PowerOff,
            Place::Local,
            Reaper::start()?,
        ));
        guest.set_ready();
        session::serve(Port::new(stream)?, guest).await
    })
}
