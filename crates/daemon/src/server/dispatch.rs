//! From a request's path to the method that answers it.

use super::body::{self, Answer};
use super::call::Call;
use super::{copy, export, forward as forward_connection, frames, stream, upload};
use crate::daemon::Daemon;
use crate::metrics;
pub use crate::ops::Made;
use crate::ops::{Begun, Operation, Running};
use banger_wire::api::{
    self, API_VERSION, API_VERSION_HEADER, ApiError, Code, Event, MAX_REQUEST, METHODS,
    METRICS_PATH, Method, OPERATIONS, Shape, UPGRADE,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use std::{future::Future, sync::Arc};
use tokio::sync::mpsc;
use tracing::Instrument;

type Result<T> = std::result::Result<T, ApiError>;

/// Answers a request.
pub async fn dispatch(daemon: Arc<Daemon>, request: Request<Incoming>) -> Response<Answer> {
    if request.uri().path() == METRICS_PATH && request.method() == hyper::Method::GET {
        return match metrics::text(&daemon).await {
            Ok(text) => body::text(text),
            Err(error) => body::error(&error),
        };
    }
    let name = name(&request);
    // What is unknown is counted together: its names are somebody else's choice.
    let known = METHODS.iter().find(|(known, _)| *known == name);
    let method = known.map_or("unknown", |(name, _)| name);
    let response = match route(Arc::clone(&daemon), request).await {
        Ok(response) => response,
        Err(error) => body::error(&error),
    };
    daemon.requests.count(method, response.status().as_u16());
    response
}

fn name(request: &Request<Incoming>) -> String {
    let path = request.uri().path();
    path.strip_prefix("/v1/").unwrap_or_default().to_owned()
}

async fn route(daemon: Arc<Daemon>, mut request: Request<Incoming>) -> Result<Response<Answer>> {
    let name = name(&request);
    check(&request, &name)?;
    let d = Call::of(daemon, &name, request.headers())?;
    if name == api::ImageImport::NAME {
        return upload::import::<api::ImageImport>(d, request).await;
    }
    if name == api::KernelImport::NAME {
        return upload::import::<api::KernelImport>(d, request).await;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let body = Limited::new(request.into_body(), MAX_REQUEST)
        .collect()
        .await
        .map_err(|error| bad("the body of the request cannot be read").caused_by(&*error))?
        .to_bytes();
    let d = d.with(&body);
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
        "operation.show" => {
            plain::<api::OperationShow, _>(
                &body,
                |r| async move { Ok(d.operation(r.id)?.full_view()) },
            )
            .await
        }
        "operation.watch" => {
            let request: api::OperationWatch = parse(&body)?;
            Ok(stream::watch(d.operation(request.id)?))
        }
        "events" => {
            let _: api::Events = parse(&body)?;
            stream::notices(&d)
        }
        "image.pull" => {
            let request: api::ImagePull = parse(&body)?;
            events::<api::ImagePull, _>(&d, false, |d, op| async move {
                let images = d.catalogue();
                let pulled = d.lasting(move || images.pull(&request, &op)).await?;
                pulled.map(Made::from)
            })
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
        "image.history" => {
            plain::<api::ImageHistory, _>(&body, |r| async move {
                let images = d.catalogue();
                d.blocking(move || images.history(&r.image)).await?
            })
            .await
        }
        "image.build" => {
            let request: api::ImageBuild = parse(&body)?;
            events::<api::ImageBuild, _>(&d, false, |d, op| async move {
                let images = d.catalogue();
                let made = d.lasting(move || images.build(&request, &op)).await?;
                made.map(Made::from)
            })
        }
        "image.register" => {
            let request: api::ImageRegister = parse(&body)?;
            events::<api::ImageRegister, _>(&d, false, |d, op| async move {
                let images = d.catalogue();
                let made = d.lasting(move || images.register(&request, &op)).await?;
                made.map(Made::from)
            })
        }
        "image.promote" => {
            let request: api::ImagePromote = parse(&body)?;
            events::<api::ImagePromote, _>(&d, false, |d, op| async move {
                let images = d.catalogue();
                let made = d.lasting(move || images.promote(&request, &op)).await?;
                made.map(Made::from)
            })
        }
        "image.catalog" => {
            plain::<api::ImageCatalog, _>(&body, |_| async {
                let images = d.catalogue();
                d.lasting(move || images.available()).await?
            })
            .await
        }
        "image.export" => export::export(Arc::clone(&d), parse(&body)?, upgrade).await,
        "blob.prune" => {
            forward::<api::BlobPrune, _>(&d, &body, |d, _, r| async move {
                let images = d.catalogue();
                d.blocking(move || images.prune_blobs(&r)).await?
            })
            .await
        }
        "image.set" => {
            forward::<api::ImageSet, _>(&d, &body, |d, _, r| async move {
                let (images, kernels) = (d.catalogue(), d.kernels());
                let there = move |name: &str| kernels.usable(name);
                d.blocking(move || images.set(&r, there)).await?
            })
            .await
        }
        "kernel.pull" => {
            let request: api::KernelPull = parse(&body)?;
            events::<api::KernelPull, _>(&d, false, |d, op| async move {
                let kernels = d.kernels();
                let pulled = d.lasting(move || kernels.pull(&request, &op)).await?;
                pulled.map(Made::from)
            })
        }
        "kernel.build" => {
            let request: api::KernelBuild = parse(&body)?;
            events::<api::KernelBuild, _>(&d, false, |d, op| async move {
                let kernels = d.kernels();
                let built = d.lasting(move || kernels.build(&request, &op)).await?;
                built.map(Made::from)
            })
        }
        "kernel.list" => {
            plain::<api::KernelList, _>(&body, |_| async {
                let kernels = d.kernels();
                d.blocking(move || kernels.list()).await?
            })
            .await
        }
        "kernel.available" => {
            plain::<api::KernelAvailable, _>(&body, |_| async {
                let kernels = d.kernels();
                d.lasting(move || kernels.available()).await?
            })
            .await
        }
        "kernel.show" => {
            plain::<api::KernelShow, _>(&body, |r| async move {
                let kernels = d.kernels();
                d.blocking(move || kernels.show(&r.kernel)).await?
            })
            .await
        }
        "kernel.delete" => {
            forward::<api::KernelDelete, _>(&d, &body, |d, _, r| async move {
                let kernels = d.kernels();
                d.blocking(move || kernels.delete(&r.kernel)).await?
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
                d.vms().restart(&op, &request.vm).await.map(Made::from)
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
                    .map(Made::from)
            })
        }
        "vm.start" => {
            let request: api::VmStart = parse(&body)?;
            events::<api::VmStart, _>(&d, false, |d, op| async move {
                d.vms().start(&op, &request.vm).await.map(Made::from)
            })
        }
        "vm.exec" => frames::exec(Arc::clone(&d), parse(&body)?, upgrade).await,
        "vm.attach" => frames::attach(Arc::clone(&d), parse(&body)?, upgrade).await,
        "vm.copy" => copy::copy(Arc::clone(&d), parse(&body)?, upgrade).await,
        "vm.run" => frames::run(Arc::clone(&d), parse(&body)?, upgrade).await,
        "vm.forward" => forward_connection::forward(Arc::clone(&d), parse(&body)?, upgrade).await,
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
    call: &Call,
    body: &Bytes,
    work: impl FnOnce(Arc<Daemon>, Arc<Running>, M) -> F,
) -> Result<Response<Answer>>
where
    M: Method,
    F: Future<Output = Result<M::Reply>> + Send + 'static,
{
    // Before the request is looked at: every method is asked wrongly by a test.
    debug_assert!(OPERATIONS.contains(&M::NAME), "{} is an operation", M::NAME);
    let request = parse(body)?;
    let running = match call.begin(M::NAME, true)? {
        Begun::New(running) => Arc::new(running),
        Begun::Before(operation) if call.leaves => return Ok(body::begun(&operation.full_view())),
        Begun::Before(operation) => {
            operation.ended().await;
            return operation.answer().map(|reply| body::json(&reply));
        }
    };
    let view = running.view();
    let span = running.span();
    let work = work(Arc::clone(call), Arc::clone(&running), request);
    let done = async move {
        let result = work.await;
        if let Ok(reply) = &result {
            running.made(Made::Answer(
                serde_json::to_value(reply).unwrap_or_default(),
            ));
        }
        running.end(result)
    };
    let done = tokio::spawn(done.instrument(span));
    if call.leaves {
        return Ok(body::begun(&view));
    }
    done.await
        .map_err(|e| panicked(&e))?
        .map(|reply| body::json(&reply))
}

/// A method that streams events; cancelled when its client leaves, unless detached.
///
/// # Errors
/// The operation cannot begin.
pub fn events<M, F>(
    call: &Call,
    detached: bool,
    work: impl FnOnce(Arc<Daemon>, Arc<Running>) -> F,
) -> Result<Response<Answer>>
where
    M: Method,
    F: Future<Output = Result<Made>> + Send + 'static,
{
    start::<M, F>(call, detached, work).map(|started| started.answer(call))
}

/// An operation that streams events, and where its stream begins.
pub struct Started {
    /// The operation.
    pub operation: Arc<Operation>,
    /// Its events from its beginning, if this request began it.
    told: Option<mpsc::Receiver<Event>>,
}

impl Started {
    /// One that another request began.
    pub fn before(operation: Arc<Operation>) -> Self {
        Started {
            operation,
            told: None,
        }
    }

    /// The answer to whoever asked.
    pub fn answer(self, call: &Call) -> Response<Answer> {
        let operation = self.operation;
        if call.leaves {
            return body::begun(&operation.full_view());
        }
        match self.told {
            Some(told) => {
                let owns = !operation.view().detached;
                stream::of_operation(operation, told, None, owns)
            }
            None => stream::watch(operation),
        }
    }
}

/// Begins an operation that streams events.
///
/// # Errors
/// It cannot begin.
pub fn start<M, F>(
    call: &Call,
    detached: bool,
    work: impl FnOnce(Arc<Daemon>, Arc<Running>) -> F,
) -> Result<Started>
where
    M: Method,
    F: Future<Output = Result<Made>> + Send + 'static,
{
    let running = match call.begin(M::NAME, detached)? {
        Begun::New(running) => Arc::new(running),
        Begun::Before(operation) => return Ok(Started::before(operation)),
    };
    let operation = Arc::clone(&**running);
    let (told, span) = (operation.watch(), operation.span());
    let work = work(Arc::clone(call), Arc::clone(&running));
    let done = async move {
        let result = work.await.map(|made| running.made(made));
        let _ = running.end(result);
    };
    tokio::spawn(done.instrument(span));
    Ok(Started {
        operation,
        told: Some(told),
    })
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
