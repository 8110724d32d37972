//! From a request's path to the method that answers it.

use super::body::{self, Answer, answer};
use super::{copy, forward as forward_connection, frames, upload};
use crate::daemon::Daemon;
use crate::ops::{Running, Why};
use banger_wire::api::{
    self, API_VERSION, API_VERSION_HEADER, ApiError, Code, Event, ImageView, MAX_REQUEST, METHODS,
    Method, Shape, UPGRADE, VmView,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use std::{future::Future, sync::Arc};
use tokio::sync::mpsc;

type Result<T> = std::result::Result<T, ApiError>;

/// Answers a request.
pub async fn dispatch(daemon: Arc<Daemon>, request: Request<Incoming>) -> Response<Answer> {
    match route(daemon, request).await {
        Ok(response) => response,
        Err(error) => body::error(&error),
    }
}

async fn route(daemon: Arc<Daemon>, mut request: Request<Incoming>) -> Result<Response<Answer>> {
    let name = request
        .uri()
        .path()
        .strip_prefix("/v1/")
        .unwrap_or_default()
        .to_owned();
    check(&request, &name)?;
    if name == api::ImageImport::NAME {
        return upload::import(&daemon, request).await;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let body = Limited::new(request.into_body(), MAX_REQUEST)
        .collect()
        .await
        .map_err(|error| bad("the body of the request cannot be read").caused_by(&*error))?
        .to_bytes();
    let d = daemon;
    match name.as_str() {
        "ping" => plain::<api::Ping, _>(&body, |_| async { Ok(api::Empty {}) }).await,
        "version" => {
            plain::<api::GetVersion, _>(&body, |_| async { Ok(api::Version::current()) }).await
        }
        "daemon.status" => {
            plain::<api::DaemonStatus, _>(&body, |_| async { d.status().await }).await
        }
        "shutdown" => plain::<api::Shutdown, _>(&body, |_| async { Ok(d.shutdown()) }).await,
        "operation.list" => {
            plain::<api::OperationList, _>(&body, |_| async { Ok(d.registry.list()) }).await
        }
        "operation.cancel" => {
            plain::<api::OperationCancel, _>(&body, |r| async move { d.cancel(r.id) }).await
        }
        "image.list" => {
            plain::<api::ImageList, _>(&body, |_| async {
                let images = d.catalogue();
                d.blocking(move || images.list()).await?
            })
            .await
        }
        "image.show" => {
            plain::<api::ImageShow, _>(&body, |r| async move {
                let images = d.catalogue();
                d.blocking(move || images.show(&r.image)).await?
            })
            .await
        }
        "image.delete" => {
            forward::<api::ImageDelete, _>(&d, &body, |d, _, r| async move {
                let images = d.catalogue();
                d.blocking(move || images.delete(&r)).await?
            })
            .await
        }
        "recover" => plain::<api::Recover, _>(&body, |_| async { d.recover().await }).await,
        "vm.list" => {
            plain::<api::VmList, _>(&body, |r| async move { d.vms().list(&r).await }).await
        }
        "vm.show" => {
            plain::<api::VmShow, _>(&body, |r| async move { d.vms().show(&r.vm).await }).await
        }
        "vm.ssh" => {
            plain::<api::VmSsh, _>(&body, |r| async move { d.vms().ssh(&r.vm).await }).await
        }
        "vm.logs" => {
            plain::<api::VmLogs, _>(&body, |r| async move { d.vms().logs(&r).await }).await
        }
        "vm.health" => {
            plain::<api::VmHealth, _>(&body, |r| async move { d.vms().health(&r.vm).await }).await
        }
        "vm.ports" => {
            plain::<api::VmPorts, _>(&body, |r| async move { d.vms().ports(&r.vm).await }).await
        }
        "vm.stats" => {
            plain::<api::VmStats, _>(&body, |r| async move { d.vms().stats(&r).await }).await
        }
        "vm.stop" => {
            forward::<api::VmStop, _>(&d, &body, |d, op, r| async move {
                d.vms().stop(&op, &r.vm).await
            })
            .await
        }
        "vm.kill" => {
            forward::<api::VmKill, _>(&d, &body, |d, op, r| async move {
                d.vms().kill(&op, &r.vm).await
            })
            .await
        }
        "vm.wait" => {
            plain::<api::VmWait, _>(
                &body,
                |r| async move { d.vms().wait_for(&r, d.ending()).await },
            )
            .await
        }
        "vm.rename" => {
            forward::<api::VmRename, _>(&d, &body, |d, op, r| async move {
                d.vms().rename(&op, &r).await
            })
            .await
        }
        "vm.prune" => {
            forward::<api::VmPrune, _>(
                &d,
                &body,
                |d, op, r| async move { d.vms().prune(&op, &r).await },
            )
            .await
        }
        "vm.restart" => {
            let request: api::VmRestart = parse(&body)?;
            // Half of it is worse than none: it goes on when its client leaves.
            events::<api::VmRestart, _>(&d, true, |d, op| async move {
                d.vms().restart(&op, &request.vm).await.map(Made::Vm)
            })
        }
        "vm.set" => {
            forward::<api::VmSet, _>(
                &d,
                &body,
                |d, op, r| async move { d.vms().set(&op, &r).await },
            )
            .await
        }
        "vm.delete" => {
            forward::<api::VmDelete, _>(&d, &body, |d, op, r| async move {
                d.vms().delete(&op, &r).await
            })
            .await
        }
        "vm.create" => {
            let request: api::VmCreate = parse(&body)?;
            let detached = request.detached;
            events::<api::VmCreate, _>(&d, detached, |d, op| async move {
                d.vms()
                    .create(&op, &request.shape, false, None)
                    .await
                    .map(Made::Vm)
            })
        }
        "vm.start" => {
            let request: api::VmStart = parse(&body)?;
            events::<api::VmStart, _>(&d, false, |d, op| async move {
                d.vms().start(&op, &request.vm).await.map(Made::Vm)
            })
        }
        "vm.exec" => frames::exec(d, parse(&body)?, upgrade).await,
        "vm.attach" => frames::attach(d, parse(&body)?, upgrade).await,
        "vm.copy" => copy::copy(d, parse(&body)?, upgrade).await,
        "vm.forward" => forward_connection::forward(d, parse(&body)?, upgrade).await,
        "vm.run" => frames::run(d, parse(&body)?, upgrade).await,
        _ => Err(unknown(&name)),
    }
}

/// Refuses what no method would understand.
fn check(request: &Request<Incoming>, name: &str) -> Result<()> {
    if let Some(version) = request.headers().get(API_VERSION_HEADER)
        && version.to_str().ok().and_then(|v| v.parse().ok()) != Some(API_VERSION)
    {
        return Err(ApiError::new(
            Code::BadVersion,
            format!("this daemon speaks version {API_VERSION} of the API, the client another one"),
        )
        .hint("banger daemon stop"));
    }
    let Some((_, shape)) = METHODS.iter().find(|(n, _)| *n == name) else {
        return Err(unknown(name));
    };
    if request.method() != hyper::Method::POST {
        return Err(bad("every method is a POST"));
    }
    let wants_upgrade = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(UPGRADE.as_bytes()));
    if *shape == Shape::Frames && !wants_upgrade {
        return Err(bad(&format!(
            "{name} needs the header 'Upgrade: {UPGRADE}'"
        )));
    }
    Ok(())
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no method '{name}'"))
}

/// A request that is wrong.
pub fn bad(message: &str) -> ApiError {
    ApiError::new(Code::BadRequest, message)
}

/// A request from its JSON.
///
/// # Errors
/// It is none of this method.
pub fn parse<M: Method>(body: &Bytes) -> Result<M> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text)
        .map_err(|error| bad(&format!("the request to {} is wrong", M::NAME)).caused_by(&error))
}

/// A method that only looks; ends with its connection.
async fn plain<M, F>(body: &Bytes, work: impl FnOnce(M) -> F) -> Result<Response<Answer>>
where
    M: Method,
    F: Future<Output = Result<M::Reply>>,
{
    work(parse(body)?).await.map(|reply| body::json(&reply))
}

/// A method that only goes forward: it goes on when its client leaves (R-STATE-11).
async fn forward<M, F>(
    daemon: &Arc<Daemon>,
    body: &Bytes,
    work: impl FnOnce(Arc<Daemon>, Arc<Running>, M) -> F,
) -> Result<Response<Answer>>
where
    M: Method,
    F: Future<Output = Result<M::Reply>> + Send + 'static,
{
    let request = parse(body)?;
    let (running, _events) = daemon.registry.begin(M::NAME)?;
    let running = Arc::new(running);
    let work = work(Arc::clone(daemon), Arc::clone(&running), request);
    let done = tokio::spawn(async move { running.end(work.await) });
    done.await
        .map_err(|e| panicked(&e))?
        .map(|reply| body::json(&reply))
}

/// What a method that streams events has made.
pub enum Made {
    /// A VM that runs.
    Vm(VmView),
    /// An image.
    Image(ImageView),
}

/// A method that streams events; cancelled when its client leaves, unless detached.
///
/// # Errors
/// The operation cannot begin.
pub fn events<M, F>(
    daemon: &Arc<Daemon>,
    detached: bool,
    work: impl FnOnce(Arc<Daemon>, Arc<Running>) -> F,
) -> Result<Response<Answer>>
where
    M: Method,
    F: Future<Output = Result<Made>> + Send + 'static,
{
    let (running, mut told) = daemon.registry.begin(M::NAME)?;
    let running = Arc::new(running);
    let cancel = running.cancel.clone();
    let work = work(Arc::clone(daemon), Arc::clone(&running));
    let mut worker = tokio::spawn(async move { running.end(work.await) });
    let (lines, body) = mpsc::channel(8);
    tokio::spawn(async move {
        let result = loop {
            tokio::select! {
                biased;
                Some(event) = told.recv() => send(&lines, &event).await,
                result = &mut worker => break result,
                () = lines.closed(), if !detached && cancel.why().is_none() => cancel.fire(Why::ClientGone),
            }
        };
        while let Ok(event) = told.try_recv() {
            send(&lines, &event).await;
        }
        let last = match result {
            Ok(Ok(Made::Vm(vm))) => Event::Done {
                vm: Some(Box::new(vm)),
            },
            Ok(Ok(Made::Image(image))) => {
                let image = Box::new(image);
                send(&lines, &Event::Image { image }).await;
                Event::Done { vm: None }
            }
            Ok(Err(error)) => Event::Failed { error },
            Err(panic) => Event::Failed {
                error: panicked(&panic),
            },
        };
        send(&lines, &last).await;
    });
    Ok(answer(
        StatusCode::OK,
        "application/x-ndjson",
        Answer::Lines(body),
    ))
}

async fn send(lines: &mpsc::Sender<Bytes>, event: &Event) {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    // A client that left reads nothing; the operation was told by its cancel token.
    let _ = lines.send(line.into()).await;
}

/// A task of ours that panicked: a bug, and no reason to leave the client without an answer.
pub fn panicked(error: &tokio::task::JoinError) -> ApiError {
    ApiError::new(
        Code::OperationFailed,
        "the daemon has a bug: a task ended unexpectedly",
    )
    .caused_by(error)
    .hint("banger daemon logs")
}
