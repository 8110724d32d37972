//! The SSH server that the user's own `ssh` speaks to through `ProxyCommand`: over our stdin and stdout, on this side of
//! the agent channel. So `ssh`, `rsync`, `git` and editors reach a VM of any image, and none needs an sshd.
//!
//! Nobody is authenticated here: whoever can start us can speak to the daemon's socket, which is this user alone, and may
//! run any command as root in the VM anyway. The host's key is the VM's, and pinned before it is used.

pub mod config;
mod forward;
mod process;
mod session;

use crate::{connection::Daemon, failure::Failure};
use banger_wire::api::SshView;
use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{Channel, ChannelOpenFailure, SshId};
use std::{borrow::Cow, process::ExitCode, sync::Arc, time::Duration};

/// How often a client that says nothing is asked whether it is there.
const ALIVE: Duration = Duration::from_secs(30);
/// Messages of a channel that wait for the guest. More stop the whole connection, so there is room for a window.
const CHANNEL_BUFFER: usize = 128;
/// What a channel's client may send before it is told to go on.
const WINDOW: u32 = 2 * 1024 * 1024;

/// Serves one SSH connection on our stdin and stdout.
///
/// # Errors
/// The VM's key is none, or the client does not speak SSH.
pub async fn serve(daemon: Daemon, vm: SshView) -> Result<ExitCode, Failure> {
    let key = PrivateKey::from_openssh(&vm.host_key)
        .map_err(|e| Failure::new("the VM's host key cannot be read").caused_by(&e))?;
    let id = concat!("SSH-2.0-banger_", env!("CARGO_PKG_VERSION"));
    let config = Config {
        server_id: SshId::Standard(Cow::Borrowed(id)),
        keys: vec![key],
        window_size: WINDOW,
        channel_buffer_size: CHANNEL_BUFFER,
        inactivity_timeout: None,
        keepalive_interval: Some(ALIVE),
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    };
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let client = Client {
        guest: Guest {
            daemon,
            vm: vm.id.to_string(),
        },
        user: String::new(),
    };
    let failed = |e: russh::Error| Failure::new("the SSH connection failed").caused_by(&e);
    let running = russh::server::run_stream(Arc::new(config), stream, client)
        .await
        .map_err(failed)?;
    match running.await {
        // A client that is gone has all it wants.
        Ok(()) | Err(russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_)) => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The VM that is served.
#[derive(Debug, Clone)]
struct Guest {
    daemon: Daemon,
    vm: String,
}

/// One SSH client.
struct Client {
    guest: Guest,
    user: String,
}

impl Client {
    fn welcome(&mut self, user: &str) -> Result<Auth, russh::Error> {
        user.clone_into(&mut self.user);
        Ok(Auth::Accept)
    }

    /// Makes a connection in the guest and joins it to a channel.
    fn join(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, to: forward::To) {
        let guest = self.guest.clone();
        // Not waited for: what connects slowly must not hold up the other channels.
        tokio::spawn(async move {
            match forward::connect(&guest, to).await {
                Ok(frames) => {
                    reply.accept().await;
                    forward::carry(channel, frames).await;
                }
                Err(failure) => {
                    crate::failure::tell(&failure.text());
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            }
        });
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.welcome(user)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        _: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.welcome(user)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        _: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.welcome(user)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let (guest, user) = (self.guest.clone(), self.user.clone());
        let served = session::serve(guest, user, channel, session.handle());
        tokio::spawn(served);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let host = host.to_owned();
        self.join(channel, reply, forward::To::Port { host, port });
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.join(channel, reply, forward::To::Socket(path.to_owned()));
        Ok(())
    }
}
