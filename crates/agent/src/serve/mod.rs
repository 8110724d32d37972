//! The methods of the channel: from a request's path to its answer.

mod body;
mod whole;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use banger_wire::guest::clock::CLOCK_PATH;
use banger_wire::guest::copy::COPY_PATH;
use banger_wire::guest::exec::{
    ATTACH_PATH, COLLECTED_PATH, EXEC_PATH, GuestError, HEALTH_PATH, POWER_OFF_PATH, READY_PATH,
    SYNC_PATH,
};
use banger_wire::guest::forward::FORWARD_PATH;
use banger_wire::guest::frame::{Frame, MAX_REQUEST};
use banger_wire::guest::inspect::{PORTS_PATH, SSHD_PATH, STATS_PATH};
pub use body::{AnswerBody, Frames};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
pub use whole::read_json;

use crate::guest::Guest;
use crate::{clock, exec, files, forward, inspect, power};

/// How long the frames with the request may take.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Why a request is refused: a status and one sentence.
pub struct Refusal(pub StatusCode, pub String);

/// What a method answers.
pub type Answer = Result<Response<AnswerBody>, Refusal>;

/// Answers one request.
pub async fn route(
    guest: Arc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::POST, EXEC_PATH) => exec::exec(&guest, request.into_body()).await,
        (&Method::POST, ATTACH_PATH) => exec::attach(&guest, request.into_body()).await,
        (&Method::GET, path) if path.starts_with(COLLECTED_PATH) => {
            exec::collected(&guest, &path[COLLECTED_PATH.len()..]).await
        }
        (&Method::POST, path) if path.starts_with(FORWARD_PATH) => {
            let target = path[FORWARD_PATH.len()..].to_owned();
            forward::forward(&guest, &target, request.into_body()).await
        }
        (&Method::POST, COPY_PATH) => files::copy(&guest, request.into_body()).await,
        (&Method::GET, HEALTH_PATH) => json(&guest.health()),
        (&Method::GET, READY_PATH) => ready(&guest).await.and_then(|()| json(&())),
        (&Method::POST, POWER_OFF_PATH) => {
            power::begin(guest, power::End::PowerOff);
            json(&())
        }
        (&Method::POST, SYNC_PATH) => sync().await,
        (&Method::GET, CLOCK_PATH) => clock::read(),
        (&Method::POST, CLOCK_PATH) => clock::set(&guest, request.into_body()).await,
        (&Method::GET, PORTS_PATH) => inspect::answer(&guest, inspect::ports).await,
        (&Method::GET, STATS_PATH) => inspect::answer(&guest, inspect::stats).await,
        (&Method::GET, SSHD_PATH) => inspect::answer(&guest, inspect::sshd).await,
        (method, path) => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("this agent has no method {method} {path}"),
        )),
    };
    Ok(answer.unwrap_or_else(|Refusal(status, message)| {
        let text = serde_json::to_vec(&GuestError { message }).unwrap_or_default();
        let mut response = Response::new(AnswerBody::whole(text.into()));
        *response.status_mut() = status;
        response
    }))
}

/// An answer of one JSON value.
pub fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => Ok(Response::new(AnswerBody::whole(Bytes::from(text)))),
        Err(error) => Err(Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

async fn sync() -> Answer {
    match tokio::task::spawn_blocking(rustix::fs::sync).await {
        Ok(()) => json(&()),
        Err(error) => Err(Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

/// Waits until commands may run, for a bounded time.
pub async fn ready(guest: &Guest) -> Result<(), Refusal> {
    let ready = guest.ready().await;
    ready.map_err(|reason| Refusal(StatusCode::SERVICE_UNAVAILABLE, reason))
}

/// Reads the frames that carry a request, for a bounded time; the body's other frames come after them.
pub async fn read_request<T: DeserializeOwned>(frames: &mut Frames) -> Result<T, Refusal> {
    match tokio::time::timeout(REQUEST_LIMIT, request_json(frames)).await {
        Ok(request) => request.map_err(|message| Refusal(StatusCode::BAD_REQUEST, message)),
        Err(_) => {
            let message = format!("the request was not complete after {REQUEST_LIMIT:?}");
            Err(Refusal(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

async fn request_json<T: DeserializeOwned>(frames: &mut Frames) -> Result<T, String> {
    let mut json = Vec::new();
    loop {
        match frames.next().await {
            Some(Frame::Request { part, last }) => {
                json.extend_from_slice(&part);
                if json.len() > MAX_REQUEST {
                    return Err(format!("the request is longer than {MAX_REQUEST} bytes"));
                }
                if last {
                    break;
                }
            }
            Some(_) => return Err("the body must begin with the request".to_owned()),
            None => return Err("the body ended before the request was complete".to_owned()),
        }
    }
    serde_json::from_slice(&json).map_err(|error| format!("the request cannot be read: {error}"))
}
