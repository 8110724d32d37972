//! Answers that come as lines: the events of an operation, and what happens in the daemon.

use super::body::{Answer, answer};
use crate::daemon::Daemon;
use crate::feed::notice;
use crate::ops::{Operation, Why};
use banger_wire::api::{ApiError, Code, Event, What};
use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Lines that wait for the client.
const LINES: usize = 8;
/// Notices that are put into one piece of the answer at most.
const TOGETHER: usize = 64;

fn lines(body: mpsc::Receiver<Bytes>) -> Response<Answer> {
    answer(StatusCode::OK, "application/x-ndjson", Answer::Lines(body))
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The events of an operation and its outcome. Who `owns` it takes it along when it leaves.
pub fn of_operation(
    operation: Arc<Operation>,
    mut told: mpsc::Receiver<Event>,
    first: Option<Event>,
    owns: bool,
) -> Response<Answer> {
    let (sender, body) = mpsc::channel(LINES);
    tokio::spawn(async move {
        // A client that left reads nothing; that is seen below.
        if let Some(event) = first {
            let _ = sender.send(line(&event).into()).await;
        }
        loop {
            tokio::select! {
                biased;
                event = told.recv() => match event {
                    Some(event) => drop(sender.send(line(&event).into()).await),
                    None => break,
                },
                () = sender.closed() => {
                    if owns {
                        operation.cancel.fire(Why::ClientGone);
                    }
                    return;
                }
            }
        }
        for event in operation.last_events() {
            let _ = sender.send(line(&event).into()).await;
        }
    });
    lines(body)
}

/// `operation.watch`.
pub fn watch(operation: Arc<Operation>) -> Response<Answer> {
    let told = operation.watch();
    let first = Some(operation.standing());
    of_operation(operation, told, first, false)
}

/// `events`. Counts as no attached stream: its reader comes back to the next daemon by itself.
///
/// # Errors
/// The daemon ends.
pub fn notices(daemon: &Daemon) -> Result<Response<Answer>, ApiError> {
    let mut heard = daemon.feed().listen().ok_or_else(|| {
        ApiError::new(Code::Unavailable, "the daemon is shutting down").hint("ask again")
    })?;
    let (sender, body) = mpsc::channel(LINES);
    let pid = std::process::id();
    tokio::spawn(async move {
        let mut piece = line(&notice(What::Listening { pid }));
        loop {
            if sender.send(piece.into()).await.is_err() {
                return;
            }
            let next = tokio::select! {
                next = heard.recv() => next,
                () = sender.closed() => return,
            };
            piece = match next {
                Ok(notice) => line(&*notice),
                Err(RecvError::Lagged(count)) => line(&notice(What::Lost { count })),
                Err(RecvError::Closed) => return,
            };
            // What waits already goes along: a slow reader costs wake-ups, not one for each.
            for _ in 1..TOGETHER {
                match heard.try_recv() {
                    Ok(notice) => piece.extend(line(&*notice)),
                    Err(_) => break,
                }
            }
        }
    });
    Ok(lines(body))
}
