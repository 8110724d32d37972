//! Running commands.

mod lookup;
mod run;
mod stdio;
mod user;

use std::sync::Arc;

use banger_wire::guest::ExecRequest;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};

use crate::guest::Guest;
use crate::serve::{self, Answer, AnswerBody, Frames, Refusal};

/// Starts a command; the answer's body is its frames.
pub async fn exec(guest: &Arc<Guest>, body: Incoming) -> Answer {
    let mut frames = Frames::new(body);
    let request: ExecRequest = serve::read_request(&mut frames).await?;
    let bad = |error| Refusal(StatusCode::BAD_REQUEST, format!("{error}"));
    request.check().map_err(bad)?;
    serve::ready(guest).await?;
    Ok(Response::new(AnswerBody::stream(run::start(
        guest, request, frames,
    ))))
}
