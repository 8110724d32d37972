//! Running commands, and coming back to them.
//!
//! A command is one thing and a stream of the host that is attached to it another: a command with an id outlives its
//! stream, keeps its output until the host has got it, and is found again by its id.

mod attach;
mod attend;
mod command;
mod commands;
mod input;
mod launch;
mod log;
mod lookup;
mod stdio;
mod user;

use std::sync::Arc;

use banger_wire::guest::{
    AttachRequest, ExecFailure, ExecId, ExecRequest, ExitStatus, FailureKind,
};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};

use crate::guest::Guest;
use crate::serve::{self, Answer, AnswerBody, Frames, Refusal};
use attach::From;
pub use attach::output_frame;
use command::Command;
use commands::Claim;
pub use commands::Commands;
pub use stdio::Stream;

/// Starts a command, or attaches to the one that has its id; the answer's body is its frames.
pub async fn exec(guest: &Arc<Guest>, body: Incoming) -> Answer {
    let mut frames = Frames::new(body);
    let request: ExecRequest = serve::read_request(&mut frames).await?;
    let bad = |error| Refusal(StatusCode::BAD_REQUEST, format!("{error}"));
    request.check().map_err(bad)?;
    serve::ready(guest).await?;
    let command = match request.id.map(|id| (id, guest.commands.claim(id))) {
        None => {
            let command = Arc::new(Command::unstarted(false));
            start(guest, &command, &request);
            command
        }
        Some((id, Claim::New(command))) => {
            commands::keep(guest, id, Arc::clone(&command));
            start(guest, &command, &request);
            command
        }
        Some((_, Claim::Known(command))) => return attach_at(command, 0, frames),
        Some((_, Claim::Full)) => {
            let message = "the guest keeps as many commands as it can".to_owned();
            return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, message));
        }
    };
    let stream = attach::attach(command, From::Start, frames);
    Ok(Response::new(AnswerBody::stream(stream)))
}

fn start(guest: &Arc<Guest>, command: &Arc<Command>, request: &ExecRequest) {
    let launched = launch::launch(&guest.reaper, request);
    if let (Ok(running), Some(signal)) = (&launched, request.stop_signal) {
        guest.farewells.owe(running.pid, signal);
    }
    match launched {
        Ok(_detached) if request.detach => command.ended(ExitStatus::Exited { code: 0 }),
        Ok(running) => attend::attend(Arc::clone(command), &guest.reaper, running),
        Err(failure) => command.ended(ExitStatus::Failed(failure)),
    }
}

/// Attaches to a command again.
pub async fn attach(guest: &Guest, body: Incoming) -> Answer {
    let mut frames = Frames::new(body);
    let request: AttachRequest = serve::read_request(&mut frames).await?;
    let Some(command) = guest.commands.get(request.id) else {
        let message = "the guest knows no such command: it ended and was collected, or nobody came back for it";
        return Err(Refusal(StatusCode::NOT_FOUND, message.to_owned()));
    };
    attach_at(command, request.output, frames)
}

fn attach_at(command: Arc<Command>, output: u64, frames: Frames) -> Answer {
    if !command.keeps(output) {
        let message = format!("the command's output is not kept from byte {output} on");
        return Err(Refusal(StatusCode::CONFLICT, message));
    }
    // Whoever asks for what follows has what is before; the frame that said so may be lost.
    command.got(output);
    let stream = attach::attach(command, From::Offset(output), frames);
    Ok(Response::new(AnswerBody::stream(stream)))
}

/// Waits until a command is not kept any more.
pub async fn collected(guest: &Guest, id: &str) -> Answer {
    let id: ExecId = id
        .parse()
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("{error}")))?;
    if let Some(command) = guest.commands.get(id) {
        command.left().await;
    }
    serve::json(&())
}

fn resource(message: String) -> ExecFailure {
    ExecFailure {
        reason: FailureKind::Resource,
        message,
    }
}
