//! `vm ports`: what listens in a VM, and where the host leads to it.

use super::{print_json, print_text};
use crate::{args::PortsArgs, connection::Daemon, failure::Failure, failure::tell, render};
use banger_wire::{
    api::{PublishedView, VmPorts},
    guest::{ListeningSocket, Protocol},
};
use serde::Serialize;
use std::{net::SocketAddr, process::ExitCode};

/// Ports of the guest whose service is likely to want TLS; others are guessed to be plain HTTP.
const TLS: [u16; 2] = [443, 8443];

/// A socket with the way to it.
#[derive(Debug, Serialize)]
struct Reached<'a> {
    #[serde(flatten)]
    socket: &'a ListeningSocket,
    /// Where the host listens for it.
    published: Vec<SocketAddr>,
    /// What to type into a browser, if it speaks HTTP.
    urls: Vec<String>,
}

/// Lists the sockets in a VM that wait for others.
pub async fn ports(args: PortsArgs) -> Result<ExitCode, Failure> {
    let answer = Daemon::of_this_user()?
        .call(&VmPorts { vm: args.vm })
        .await?;
    let reached = |socket| reached(socket, &answer.published);
    let rows: Vec<_> = answer.ports.iter().map(reached).collect();
    if args.json {
        print_json(&rows)?;
    } else {
        let rows: Vec<_> = rows.iter().map(row).collect();
        let header = [
            "PROTO",
            "ADDRESS",
            "PORT",
            "PROCESS",
            "PID",
            "UID",
            "PUBLISHED",
        ];
        print_text(&render::table(&header, &rows))?;
    }
    for port in &answer.published {
        if !port.listening {
            tell(&format!("banger: {}", published(port)));
        } else if !answer.ports.iter().any(|s| leads_to(port, s)) {
            let guest = port.port.guest;
            tell(&format!(
                "banger: {}: nothing listens on port {guest} in the guest",
                port.port
            ));
        }
    }
    if answer.truncated {
        tell(
            "banger: there is more in the guest than was looked at: sockets or owners may be missing",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A published port as `ps` shows it.
pub fn published(view: &PublishedView) -> String {
    match &view.reason {
        Some(why) => format!("{} (not published: {why})", view.port),
        None => view.port.to_string(),
    }
}

/// Published ports lead to the guest's loopback.
fn leads_to(port: &PublishedView, socket: &ListeningSocket) -> bool {
    let loopback = ["*", "0.0.0.0", "::", "127.0.0.1", "::1"].contains(&socket.address.as_str());
    loopback && socket.protocol == Protocol::Tcp && socket.port == port.port.guest
}

fn reached<'a>(socket: &'a ListeningSocket, published: &[PublishedView]) -> Reached<'a> {
    let published: Vec<SocketAddr> = published
        .iter()
        .filter(|port| port.listening && leads_to(port, socket))
        .map(|port| port.port.on_host())
        .collect();
    let scheme = if TLS.contains(&socket.port) {
        "https"
    } else {
        "http"
    };
    let url = |on_host: &SocketAddr| format!("{scheme}://{}", at_home(*on_host));
    Reached {
        socket,
        urls: published.iter().map(url).collect(),
        published,
    }
}

/// An address that listens everywhere is reached here by the loopback's.
fn at_home(mut on_host: SocketAddr) -> SocketAddr {
    if on_host.ip().is_unspecified() {
        on_host.set_ip(match on_host {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    on_host
}

fn row(reached: &Reached<'_>) -> Vec<String> {
    let socket = reached.socket;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        socket.protocol.to_string(),
        socket.address.clone(),
        socket.port.to_string(),
        or_dash(socket.process.as_deref().map(render::plain)),
        or_dash(socket.pid.map(|pid| pid.to_string())),
        socket.uid.to_string(),
        or_dash((!reached.urls.is_empty()).then(|| reached.urls.join(" "))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::PublishedPort;

    fn view(address: &str, guest: u16, listening: bool) -> PublishedView {
        PublishedView {
            port: PublishedPort {
                address: address.parse().unwrap(),
                host: 8080,
                guest,
            },
            listening,
            reason: (!listening).then(|| "taken".to_owned()),
        }
    }

    fn socket(address: &str, port: u16) -> ListeningSocket {
        ListeningSocket {
            protocol: Protocol::Tcp,
            address: address.to_owned(),
            port,
            uid: 0,
            pid: None,
            process: None,
        }
    }

    #[test]
    fn a_socket_has_the_url_of_the_port_that_leads_to_it() {
        let ports = [view("0.0.0.0", 80, true), view("::1", 443, true)];
        let urls = |address, port| reached(&socket(address, port), &ports).urls;
        assert_eq!(urls("*", 80), ["http://127.0.0.1:8080"]);
        assert_eq!(urls("127.0.0.1", 443), ["https://[::1]:8080"]);
        assert!(urls("10.0.2.15", 80).is_empty() && urls("*", 81).is_empty());
        let closed = [view("127.0.0.1", 80, false)];
        assert!(reached(&socket("*", 80), &closed).published.is_empty());
        let shown = published(&closed[0]);
        assert_eq!(shown, "127.0.0.1:8080->80/tcp (not published: taken)");
    }
}
