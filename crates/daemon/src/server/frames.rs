//! Upgraded connections: `vm.exec`, `vm.run` and `vm.attach`.
//!
//! A client that goes away ends its command; one whose connection, daemon or session was lost comes back to it.

use super::body::Answer;
use super::dispatch::panicked;
use super::guest_error::{self, Asked, older_agent};
use super::peer::{LOOK, Peer, Reader, Writer, part, switch};
use super::relay::{Command, End, relay};
use crate::daemon::Daemon;
use crate::ops::{Cancel, Running, Why};
use crate::vm::first_command;
use crate::vm::run_as;
use banger_model::{Vm, VmId};
use banger_wire::api::{self, ApiError, COMMAND_STAGE, Code, Event, Frame};
use banger_wire::guest::{AttachRequest, ClientError, ExecId};
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use std::{future::Future, pin::pin, sync::Arc};
use tokio::sync::mpsc;
use tracing::Instrument;

type Result<T> = std::result::Result<T, ApiError>;

/// `vm.exec`.
pub async fn exec(
    daemon: Arc<Daemon>,
    request: api::VmExec,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>> {
    // What no guest could run is refused for that, whichever VM is meant.
    run_as::check(&request.command)?;
    if request.command.id == Some(ExecId::MAIN) {
        return Err(bad("this id is that of the command of a vm.run"));
    }
    let (vm, guest) = daemon.vms().session(&request.vm).await?;
    let command = run_as::decide(request.command, vm.spec.image_config.as_ref())?;
    let in_use = daemon.vms().in_use(vm.id);
    if command.detach && !guest.knows_ids() {
        return Err(older_agent(
            vm.name.as_str(),
            "start a command and leave it alone",
        ));
    }
    let stream = guest
        .exec(&command)
        .await
        .map_err(|error| guest_error(vm.name.as_str(), &error))?;
    let command = Command {
        vm: Some(vm.id),
        named: command.id.is_some(),
        stream,
    };
    Ok(switch(daemon.attach(), upgrade, move |client| async move {
        let Peer {
            mut reader,
            mut writer,
        } = client;
        let end = relay(&daemon, &mut reader, &mut writer, command).await;
        drop(in_use);
        if let End::Failed(error) = end {
            let error = guest_error(vm.name.as_str(), &error);
            writer.send(&Frame::Error(error)).await;
        }
        part(reader, writer).await;
    }))
}

/// `vm.attach`.
pub async fn attach(
    daemon: Arc<Daemon>,
    request: api::VmAttach,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>> {
    let (vm, guest) = match daemon.vms().session_again(&request.vm).await {
        Ok(found) => found,
        // It runs, and its agent cannot be reached yet: that is not its end.
        Err(error) if error.code == Code::Unavailable => return Err(error),
        Err(error) => return Err(ended(&request.vm, &error)),
    };
    let in_use = daemon.vms().in_use(vm.id);
    let wanted = AttachRequest {
        id: request.id,
        output: request.output,
    };
    let stream = match guest.attach(&wanted).await {
        Ok(stream) => stream,
        Err(error) if error.unknown() => return Err(forgotten(&vm, &error)),
        Err(error) => return Err(guest_error(vm.name.as_str(), &error)),
    };
    let command = Command {
        vm: Some(vm.id),
        named: true,
        stream,
    };
    Ok(switch(daemon.attach(), upgrade, move |client| async move {
        let Peer {
            mut reader,
            mut writer,
        } = client;
        let end = relay(&daemon, &mut reader, &mut writer, command).await;
        drop(in_use);
        let last = match end {
            End::Exited if request.id == ExecId::MAIN => Some(after_main(&daemon, &vm).await),
            End::Failed(error) => Some(Frame::Error(guest_error(vm.name.as_str(), &error))),
            End::Exited | End::ClientGone | End::Cut => None,
        };
        if let Some(last) = last {
            writer.send(&last).await;
        }
        part(reader, writer).await;
    }))
}

/// What follows the command of a `vm.run` that was attached to again.
async fn after_main(daemon: &Arc<Daemon>, vm: &Vm) -> Frame {
    if !vm.spec.remove_on_exit {
        return done(daemon, vm.id, false).await;
    }
    let removed = match daemon.registry.begin("vm.delete") {
        Ok((running, _events)) => {
            running.about(vm);
            let removing = daemon.vms();
            let removing = removing.remove(&running, vm.id);
            running.end(removing.instrument(running.span()).await)
        }
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => done(daemon, vm.id, true).await,
        Err(error) => Frame::Error(error),
    }
}

async fn done(daemon: &Arc<Daemon>, vm: VmId, removed: bool) -> Frame {
    let vm = if removed {
        None
    } else {
        daemon.vms().view(vm).await.ok().map(Box::new)
    };
    Frame::Event(Event::Done { vm })
}

/// `vm.run`.
pub async fn run(
    daemon: Arc<Daemon>,
    request: api::VmRun,
    upgrade: OnUpgrade,
) -> Result<Response<Answer>> {
    let (shape, command) = (&request.shape, &request.command);
    daemon.vms().check(shape, Some(command)).await?;
    if command.detach && request.rm {
        return Err(
            bad("a command that is left alone has no end that its VM could be deleted at")
                .hint("leave out rm, or detach"),
        );
    }
    let (running, told) = daemon.registry.begin("vm.run")?;
    let span = running.span();
    Ok(switch(daemon.attach(), upgrade, |client| {
        run_in(daemon, request, Arc::new(running), told, client).instrument(span)
    }))
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
    let (first, starter) = first_command(api::Command {
        id: Some(ExecId::MAIN),
        ..request.command
    });
    let mut worker = {
        let (daemon, running) = (Arc::clone(&daemon), Arc::clone(&running));
        let (shape, rm) = (request.shape, request.rm);
        let span = running.span();
        let create = async move {
            let vms = daemon.vms();
            vms.create(&running, &shape, rm, Some(&first)).await
        };
        tokio::spawn(create.instrument(span))
    };
    let cancel = &running.cancel;
    let start = starter.exec();
    let started = telling(start, &mut told, &reader, &mut writer, cancel).await;
    let end = match started {
        Ok(stream) => {
            running.stage(COMMAND_STAGE, "running");
            writer.send(&command_started()).await;
            let vm = running.view().vm;
            let _in_use = vm.map(|vm| daemon.vms().in_use(vm));
            let command = Command {
                vm,
                named: true,
                stream,
            };
            relay(&daemon, &mut reader, &mut writer, command).await
        }
        Err(error) => End::Failed(error),
    };
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
        End::Cut => {
            // The command goes on. Its client comes back for it; whether it does or not, the VM goes with it.
            if request.rm {
                daemon.vms().remove_when_collected(vm.id);
            }
            let _ = running.end(Ok(()));
            part(reader, writer).await;
            return;
        }
        End::Failed(error) => Some(guest_error(vm.name.as_str(), &error)),
        End::Exited | End::ClientGone => None,
    };
    // From here on nothing depends on the client: with `--rm` the VM goes, whoever is still there.
    let removed = if request.rm {
        daemon.vms().remove(&running, vm.id).await
    } else {
        Ok(())
    };
    let ended = running.end(match (failed, removed) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(()),
    });
    let last = match ended {
        Ok(()) => done(&daemon, vm.id, request.rm).await,
        Err(error) => Frame::Error(error),
    };
    writer.send(&last).await;
    part(reader, writer).await;
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

fn guest_error(vm: &str, error: &ClientError) -> ApiError {
    guest_error::guest_error(vm, Asked::Command, error)
}

/// A command that cannot be come back to, because its VM is not there any more or does not answer.
fn ended(vm: &str, error: &ApiError) -> ApiError {
    ApiError::new(
        Code::OperationFailed,
        format!("VM '{vm}' ended, or its agent did, while the command ran"),
    )
    .caused_by(error)
    .hint("banger vm list")
}

/// A command that cannot be come back to, because its guest does not know it.
fn forgotten(vm: &Vm, error: &ClientError) -> ApiError {
    ApiError::new(
        Code::NotFound,
        format!(
            "the command in VM '{}' is gone; how it ended is unknown",
            vm.name
        ),
    )
    .caused_by(error)
    .hint(format!("banger vm show {}", vm.name))
}

fn bad(message: &str) -> ApiError {
    ApiError::new(Code::BadRequest, message)
}

/// Tells the client that signals and keys are the command's from now on.
fn command_started() -> Frame {
    Frame::Event(Event::Progress {
        stage: COMMAND_STAGE.to_owned(),
        detail: "running".to_owned(),
        done: None,
        total: None,
        parts: Vec::new(),
    })
}
