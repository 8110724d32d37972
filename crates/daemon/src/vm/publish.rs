//! Published ports (R-NET-3): the daemon listens on the host, and carries each connection through the agent channel.
//!
//! A port is bound before its VM exists, so that one that is taken is a refusal, and again at every start and by every
//! daemon that finds the VM running. One that is taken then is no reason to keep the VM down: it is told, and tried again
//! until it is free.

use super::{Result, VmService};
use banger_model::publish::MOST_PORTS;
use banger_model::{PortWish, PublishedPort, Vm, VmId};
use banger_wire::api::{ApiError, Code, Event, PublishedView};
use banger_wire::guest::forward::MOST_FORWARDS;
use banger_wire::guest::{
    ClientError, ForwardEvent, ForwardInput, ForwardOutput, ForwardStream, ForwardTarget,
};
use bytes::Bytes;
use rustix::net::sockopt::set_socket_linger;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Wait before a port that was taken is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Wait after an accept that failed: descriptors may have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// What is read at once.
const CHUNK: usize = 32 * 1024;
/// How long who is answered already may go on sending.
const FAREWELL: Duration = Duration::from_secs(2);
/// Connections to one VM through all its ports; the rest waits to be accepted. Some of the guest's are left to `ssh`
/// and `vm.forward`.
const MOST_CONNECTIONS: usize = MOST_FORWARDS - 16;

/// A port and what came of binding it.
type Bound = std::result::Result<std::net::TcpListener, String>;

/// The published ports of a VM that runs or comes up.
#[derive(Debug)]
pub struct Ports {
    bound: Mutex<BTreeMap<PublishedPort, Bound>>,
    connections: Arc<Semaphore>,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            bound: Mutex::default(),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        }
    }
}

impl Ports {
    /// Takes over listeners that were bound before their VM existed.
    pub fn put(&self, listeners: Vec<(PublishedPort, std::net::TcpListener)>) {
        let bound = listeners.into_iter().map(|(port, l)| (port, Ok(l)));
        self.lock().extend(bound);
    }

    /// Gives the ports up. Who accepts from one has a descriptor of its own, and ends with the VM.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Binds what is not bound; gives what cannot be, with the reason.
    fn bind(&self, ports: &[PublishedPort]) -> Vec<(PublishedPort, String)> {
        let mut bound = self.lock();
        let mut taken = Vec::new();
        for port in ports {
            let entry = bound.entry(*port).or_insert_with(|| Err(String::new()));
            if entry.is_err() {
                *entry = std::net::TcpListener::bind(port.on_host()).map_err(|e| e.to_string());
            }
            taken.extend(entry.as_ref().err().map(|why| (*port, why.clone())));
        }
        taken
    }

    /// A descriptor of the listener of a port, bound if it was not.
    fn listener(&self, port: PublishedPort) -> std::result::Result<TcpListener, String> {
        self.bind(&[port]);
        let bound = self.lock();
        let listener = match bound.get(&port) {
            Some(Ok(listener)) => listener.try_clone(),
            Some(Err(why)) => return Err(why.clone()),
            None => return Err("given up".to_owned()),
        };
        listener
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .and_then(TcpListener::from_std)
            .map_err(|e| e.to_string())
    }

    /// How the ports of a VM stand.
    pub fn view(&self, ports: &[PublishedPort]) -> Vec<PublishedView> {
        let bound = self.lock();
        let view = |port: &PublishedPort| {
            let bound = bound.get(port);
            PublishedView {
                port: *port,
                listening: matches!(bound, Some(Ok(_))),
                reason: bound.and_then(|b| b.as_ref().err()).cloned(),
            }
        };
        ports.iter().map(view).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PublishedPort, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds the ports of a VM that does not exist yet.
///
/// # Errors
/// All that cannot be bound, each with its way out.
pub fn reserve(wishes: &[PortWish]) -> Result<Vec<(PublishedPort, std::net::TcpListener)>> {
    if wishes.len() > MOST_PORTS {
        let message = format!(
            "a VM publishes at most {MOST_PORTS} ports, not {}",
            wishes.len()
        );
        return Err(ApiError::new(Code::BadRequest, message));
    }
    let (mut bound, mut refused) = (Vec::new(), Vec::new());
    for wish in wishes {
        let on_host = wish.on_host();
        let listener = std::net::TcpListener::bind(on_host);
        match listener.and_then(|l| Ok((l.local_addr()?.port(), l))) {
            Ok((host, listener)) => {
                let port = PublishedPort {
                    address: on_host.ip(),
                    host,
                    guest: wish.guest,
                };
                bound.push((port, listener));
            }
            Err(error) => refused.push(cannot_bind(wish, &error)),
        }
    }
    ApiError::all(refused)?;
    Ok(bound)
}

fn cannot_bind(wish: &PortWish, error: &io::Error) -> ApiError {
    let guest = wish.guest;
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another port, or -p {guest} for a free one"),
        io::ErrorKind::PermissionDenied => {
            format!("a port from 1024 on, or -p {guest} for a free one")
        }
        _ => "an address of this host (ip address)".to_owned(),
    };
    let message = format!("port {} of the host cannot be published", wish.on_host());
    ApiError::new(Code::Precondition, message)
        .caused_by(error)
        .hint(hint)
}

/// What is to be said of ports that others than users of this machine reach.
pub fn exposed(ports: &[PublishedPort]) -> Option<Event> {
    let reached = |port: &&PublishedPort| !port.address.is_loopback();
    let open: Vec<String> = ports
        .iter()
        .filter(reached)
        .map(ToString::to_string)
        .collect();
    (!open.is_empty()).then(|| Event::Warning {
        message: format!("reached from other machines: {}", open.join(", ")),
        hint: Some("-p HOST:GUEST without an address is for this machine only".to_owned()),
    })
}

impl VmService {
    /// Binds the ports of a VM that is about to start; what cannot be is told, and tried again.
    pub(crate) fn bind_again(&self, vm: &Vm) -> Vec<Event> {
        let taken = self.set.entry(vm.id).ports.bind(&vm.spec.ports);
        let warning = |(port, why): (PublishedPort, String)| {
            tracing::warn!(vm = %vm.id, %port, why, "a port cannot be published; it is tried again");
            Event::Warning {
                message: format!("{port} is not published: {why}"),
                hint: Some(format!("it is tried again every {} s", AGAIN.as_secs())),
            }
        };
        taken.into_iter().map(warning).collect()
    }

    /// Serves the published ports of a running VM; never ends by itself.
    pub(super) async fn keep_published(self: &Arc<Self>, id: VmId) {
        let row = loop {
            match self.row(id).await {
                Ok(row) => break row,
                Err(error) => tracing::warn!(vm = %id, %error, "its ports cannot be served yet"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        if let Some(vm) = row {
            let mut ports = JoinSet::new();
            for port in &vm.spec.ports {
                ports.spawn(Arc::clone(self).keep_port(id, *port));
            }
            while ports.join_next().await.is_some() {}
        }
        std::future::pending().await
    }

    async fn keep_port(self: Arc<Self>, id: VmId, port: PublishedPort) {
        let entry = self.set.entry(id);
        let listener = loop {
            match entry.ports.listener(port) {
                Ok(listener) => break listener,
                Err(why) => tracing::warn!(vm = %id, %port, why, "a port cannot be published"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        tracing::info!(vm = %id, %port, "published");
        loop {
            // Taken before the connection: what is too much waits where the kernel keeps it.
            let Ok(permit) = Arc::clone(&entry.ports.connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, _)) => {
                    let service = Arc::clone(&self);
                    // Not ended with us: a connection whose VM ends breaks, and tells so.
                    tokio::spawn(async move {
                        if let Err(error) = service.connection(id, port, socket).await {
                            tracing::debug!(vm = %id, %port, %error, "a connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(vm = %id, %port, %error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Carries one connection. However it ends but in order, also with this process, the client sees it reset, and does
    /// not take a part for the whole.
    async fn connection(
        self: &Arc<Self>,
        id: VmId,
        port: PublishedPort,
        mut socket: TcpStream,
    ) -> Result<()> {
        let failed = |error: &io::Error| {
            ApiError::new(Code::OperationFailed, "the client's socket failed").caused_by(error)
        };
        let linger = |socket: &TcpStream, time| set_socket_linger(socket, time).map_err(Into::into);
        linger(&socket, Some(Duration::ZERO)).map_err(|e| failed(&e))?;
        socket.set_nodelay(true).map_err(|e| failed(&e))?;
        let (_, guest) = self.session_again(&id.to_string()).await?;
        let _in_use = self.in_use(id);
        let target = ForwardTarget::Loopback(port.guest);
        let stream = guest.forward(&target).await;
        let stream = stream.map_err(|e| ApiError::of(Code::Unavailable, &e))?;
        carry(&mut socket, stream)
            .await
            .map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
        linger(&socket, None).map_err(|e| failed(&e))
    }
}

/// Carries both directions until each has ended.
async fn carry(
    socket: &mut TcpStream,
    stream: ForwardStream,
) -> std::result::Result<(), ClientError> {
    let ForwardStream { input, mut output } = stream;
    // Borrowed: dropping an owned half tells the client an end that was none.
    let (mut read, mut write) = socket.split();
    let guest_done = {
        let mut to_client = std::pin::pin!(to_client(&mut output, &mut write));
        tokio::select! {
            done = &mut to_client => { done?; true }
            sent = to_guest(&mut read, &input) => { let ended = sent?; to_client.await?; !ended }
        }
    };
    if guest_done {
        // A socket that is closed with input unread is reset, and a reset overtakes the answer.
        let mut rest = [0; 4096];
        let drained = async { while read.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(FAREWELL, drained).await;
    }
    Ok(())
}

/// Until the guest neither sends nor takes any more.
async fn to_client(
    output: &mut ForwardOutput,
    write: &mut WriteHalf<'_>,
) -> std::result::Result<(), ClientError> {
    while let Some(event) = output.next().await? {
        let written = match event {
            ForwardEvent::Data(data) => write.write_all(&data).await,
            ForwardEvent::Eof => write.shutdown().await,
        };
        written.map_err(|_| ClientError::ConnectionLost)?;
    }
    Ok(())
}

/// Until the client sends no more (true), or the guest takes no more: what comes from it then tells why.
async fn to_guest(
    read: &mut ReadHalf<'_>,
    input: &ForwardInput,
) -> std::result::Result<bool, ClientError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = read.read(&mut buffer).await;
        match count.map_err(|_| ClientError::ConnectionLost)? {
            0 => {
                let _ = input.eof().await;
                return Ok(true);
            }
            count => {
                let data = Bytes::copy_from_slice(&buffer[..count]);
                if input.send(data).await.is_err() {
                    return Ok(false);
                }
            }
        }
    }
}
