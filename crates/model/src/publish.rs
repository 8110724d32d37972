//! Ports of the host that lead to a VM (R-NET-3), written as docker writes them.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Where a port is published unless an address is named: for users of this machine only.
pub const PUBLISH_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The most ports one VM publishes.
pub const MOST_PORTS: usize = 64;

/// A TCP port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublishedPort {
    /// Address of the host.
    pub address: IpAddr,
    /// Port of the host.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
}

impl PublishedPort {
    /// Where the host listens.
    pub const fn on_host(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.host)
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/tcp", self.on_host(), self.guest)
    }
}

/// What `-p` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PortWish {
    /// Address of the host; [`PUBLISH_ADDRESS`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Port of the host; a free one if absent, kept for the VM's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// Port of the guest.
    pub guest: u16,
}

impl PortWish {
    /// Where the host is to listen; port 0 is a free one.
    pub fn on_host(&self) -> SocketAddr {
        let address = self.address.unwrap_or(PUBLISH_ADDRESS);
        SocketAddr::new(address, self.host.unwrap_or(0))
    }
}

/// What is no port to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not the form.
    #[error("'{0}' is not [[ADDRESS:]HOST:]GUEST, like 8080:80, 127.0.0.1:8080:80 or 80")]
    Form(String),
    /// A number that is no port.
    #[error("'{0}' is no port; ports are 1 to 65535")]
    Number(String),
    /// An address that is none.
    #[error("'{0}' is no address of this host; give numbers, like 127.0.0.1 or [::1]")]
    Address(String),
    /// Not TCP.
    #[error("'{0}': only TCP can be published; a connection is carried, and {1} has none")]
    Protocol(String, String),
    /// Ranges of different lengths, or backwards.
    #[error("'{0}': both ranges must have the same length, the lower port first")]
    Range(String),
}

/// Reads one `-p`: `[[ADDRESS:][HOST]:]GUEST[/tcp]`; `HOST` and `GUEST` may be ranges of one length.
///
/// # Errors
/// It is none.
pub fn parse_publish(text: &str) -> Result<Vec<PortWish>, PortError> {
    let form = || PortError::Form(text.to_owned());
    let ports = match text.rsplit_once('/') {
        None => text,
        Some((ports, "tcp")) => ports,
        Some((_, other)) => return Err(PortError::Protocol(text.to_owned(), other.to_owned())),
    };
    let (address, ports) = split_address(ports).ok_or_else(form)?;
    let address = match address {
        None | Some("") => None,
        Some(address) => Some(
            address
                .parse()
                .map_err(|_| PortError::Address(address.to_owned()))?,
        ),
    };
    let (host, guest) = match ports.split_once(':') {
        None => (None, ports),
        Some(("", guest)) => (None, guest),
        Some((host, guest)) => (Some(host), guest),
    };
    if guest.is_empty() || guest.contains(':') {
        return Err(form());
    }
    let wrong = || PortError::Range(text.to_owned());
    let guests = range(guest)?.ok_or_else(wrong)?;
    let Some(host) = host else {
        return Ok(guests
            .map(|guest| PortWish {
                address,
                host: None,
                guest,
            })
            .collect());
    };
    let hosts = range(host)?.ok_or_else(wrong)?;
    if hosts.len() != guests.len() {
        return Err(wrong());
    }
    let wish = |(host, guest)| PortWish {
        address,
        host: Some(host),
        guest,
    };
    Ok(hosts.zip(guests).map(wish).collect())
}

/// The address before the ports, without the brackets of an IPv6 one.
fn split_address(text: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return Some((Some(address), rest.strip_prefix(':')?));
    }
    match text.split(':').count() {
        1 | 2 => Some((None, text)),
        3 => text
            .split_once(':')
            .map(|(address, rest)| (Some(address), rest)),
        _ => None,
    }
}

/// `None` for a range that runs backwards.
fn range(text: &str) -> Result<Option<std::ops::RangeInclusive<u16>>, PortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    Ok((first <= last).then_some(first..=last))
}

fn port(text: &str) -> Result<u16, PortError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten();
    port.filter(|port| *port != 0)
        .ok_or_else(|| PortError::Number(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(address: Option<&str>, host: Option<u16>, guest: u16) -> PortWish {
        PortWish {
            address: address.map(|a| a.parse().unwrap()),
            host,
            guest,
        }
    }

    #[test]
    fn the_forms_of_docker() {
        for (text, expected) in [
            ("8080:80", vec![wish(None, Some(8080), 80)]),
            ("80", vec![wish(None, None, 80)]),
            ("80/tcp", vec![wish(None, None, 80)]),
            (
                "127.0.0.1:8080:80",
                vec![wish(Some("127.0.0.1"), Some(8080), 80)],
            ),
            (
                "0.0.0.0:8080:80/tcp",
                vec![wish(Some("0.0.0.0"), Some(8080), 80)],
            ),
            ("127.0.0.1::80", vec![wish(Some("127.0.0.1"), None, 80)]),
            ("[::1]:8080:80", vec![wish(Some("::1"), Some(8080), 80)]),
            (":80", vec![wish(None, None, 80)]),
            (
                "8000-8001:80-81",
                vec![wish(None, Some(8000), 80), wish(None, Some(8001), 81)],
            ),
            (
                "3000-3001",
                vec![wish(None, None, 3000), wish(None, None, 3001)],
            ),
        ] {
            assert_eq!(parse_publish(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "[[ADDRESS:]HOST:]GUEST"),
            ("8080:", "[[ADDRESS:]HOST:]GUEST"),
            ("1:2:3:4", "[[ADDRESS:]HOST:]GUEST"),
            ("[::1]", "[[ADDRESS:]HOST:]GUEST"),
            ("[::1:80", "[[ADDRESS:]HOST:]GUEST"),
            ("0:80", "'0' is no port"),
            ("80:65536", "'65536' is no port"),
            ("x:80", "'x' is no port"),
            ("+1:80", "'+1' is no port"),
            ("127.0.0.1:80", "'127.0.0.1' is no port"),
            ("localhost:1:80", "'localhost' is no address"),
            ("53:53/udp", "only TCP can be published"),
            ("80-81:80", "same length"),
            ("81-80", "same length"),
        ] {
            let error = parse_publish(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_shown_as_docker_shows_it() {
        let mut port = PublishedPort {
            address: PUBLISH_ADDRESS,
            host: 8080,
            guest: 80,
        };
        assert_eq!(port.to_string(), "127.0.0.1:8080->80/tcp");
        port.address = "::1".parse().unwrap();
        assert_eq!(port.to_string(), "[::1]:8080->80/tcp");
    }
}
