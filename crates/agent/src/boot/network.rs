//! Addresses and routes by ioctl(2), as in netdevice(7): no program of the image is needed.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_wire::guest::{Network, StaticNetwork};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};
use rustix::net::{AddressFamily, SocketType, socket};

use super::Reason;

/// How long the interface may take to appear after its driver is there.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(1);

// linux/sockios.h
const SIOCADDRT: u32 = 0x890b;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCSIFNETMASK: u32 = 0x891c;
// linux/if.h: IFF_UP | IFF_RUNNING
const UP_AND_RUNNING: u16 = 0x1 | 0x40;
// linux/route.h: RTF_UP | RTF_GATEWAY
const UP_AND_GATEWAY: u16 = 0x1 | 0x2;

/// `struct sockaddr_in`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Address {
    family: u16,
    port: u16,
    address: [u8; 4],
    zero: [u8; 8],
}

impl Address {
    fn new(address: Ipv4Addr) -> Self {
        Self {
            family: AddressFamily::INET.as_raw(),
            port: 0,
            address: address.octets(),
            zero: [0; 8],
        }
    }
}

/// `struct ifreq` with an address.
#[repr(C)]
struct AddressRequest {
    name: [u8; 16],
    address: Address,
    rest: [u8; 8],
}

/// `struct ifreq` with flags.
#[repr(C)]
struct FlagsRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `struct rtentry` on 64-bit machines.
#[repr(C)]
struct RouteRequest {
    pad1: u64,
    destination: Address,
    gateway: Address,
    mask: Address,
    flags: u16,
    pad2: i16,
    pad3: u64,
    pad4: u64,
    metric: i16,
    device: u64,
    mtu: u64,
    window: u64,
    round_trip: u16,
}

/// Brings up the loopback interface and, if asked for, the first real one.
pub fn configure(network: &Network) -> Result<(), Reason> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| format!("the guest's kernel has no IPv4: {error}"))?;
    bring_up(&socket, "lo")
        .map_err(|error| format!("interface lo cannot be brought up: {error}"))?;
    let Network::Static(wanted) = network else {
        return Ok(());
    };
    let name = find(wanted.mac.as_deref())?;
    set(&socket, &name, wanted)
        .map_err(|(what, error)| format!("{what} of interface {name} cannot be set: {error}"))
}

fn set(socket: &OwnedFd, name: &str, wanted: &StaticNetwork) -> Result<(), (&'static str, Errno)> {
    let request = |address| AddressRequest {
        name: field(name),
        address: Address::new(address),
        rest: [0; 8],
    };
    let mask = Ipv4Addr::from(
        u32::MAX
            .checked_shl(32 - u32::from(wanted.prefix.min(32)))
            .unwrap_or(0),
    );
    // SAFETY: each structure has the layout that the kernel reads for that number.
    unsafe {
        ioctl(
            socket,
            Setter::<SIOCSIFADDR, _>::new(request(wanted.address)),
        )
        .map_err(|error| ("the address", error))?;
        ioctl(socket, Setter::<SIOCSIFNETMASK, _>::new(request(mask)))
            .map_err(|error| ("the network mask", error))?;
    }
    bring_up(socket, name).map_err(|error| ("the state", error))?;
    let Some(gateway) = wanted.gateway else {
        return Ok(());
    };
    let route = RouteRequest {
        pad1: 0,
        destination: Address::new(Ipv4Addr::UNSPECIFIED),
        gateway: Address::new(gateway),
        mask: Address::new(Ipv4Addr::UNSPECIFIED),
        flags: UP_AND_GATEWAY,
        pad2: 0,
        pad3: 0,
        pad4: 0,
        metric: 0,
        device: 0,
        mtu: 0,
        window: 0,
        round_trip: 0,
    };
    // SAFETY: `RouteRequest` is the `struct rtentry` that SIOCADDRT reads; its device pointer is null.
    match unsafe { ioctl(socket, Setter::<SIOCADDRT, _>::new(route)) } {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(("the default route", error)),
    }
}

fn bring_up(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    let request = FlagsRequest {
        name: field(name),
        flags: UP_AND_RUNNING,
        rest: [0; 22],
    };
    // SAFETY: `FlagsRequest` is the `struct ifreq` that SIOCSIFFLAGS reads.
    unsafe { ioctl(socket, Setter::<SIOCSIFFLAGS, _>::new(request)) }
}

fn field(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    // The kernel's names have at most 15 bytes; the last byte stays zero.
    for (to, from) in field.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    field
}

/// The interface that is configured, if it is there.
pub fn interface(mac: Option<&str>) -> Option<String> {
    look(mac)
}

/// Waits for the interface with this MAC address, or the first one that is a card.
fn find(mac: Option<&str>) -> Result<String, Reason> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(name) = look(mac) {
            return Ok(name);
        }
        if Instant::now() >= end {
            let which = mac.map_or_else(
                || "no network interface".to_owned(),
                |mac| format!("no network interface with address {mac}"),
            );
            return Err(format!(
                "{which} after {} s (is virtio_net loaded?)",
                LIMIT.as_secs()
            ));
        }
        std::thread::sleep(LOOK);
    }
}

fn look(mac: Option<&str>) -> Option<String> {
    let interfaces = std::fs::read_dir("/sys/class/net").ok()?;
    let read = |name: &str, file: &str| {
        let path = Path::new("/sys/class/net").join(name).join(file);
        std::fs::read_to_string(path)
            .map(|text| text.trim_end().to_owned())
            .ok()
    };
    interfaces
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        // Neither the loopback nor what a kernel with drivers built in makes by itself (dummy0, bond0): a card.
        .filter(|name| {
            Path::new("/sys/class/net")
                .join(name)
                .join("device")
                .exists()
        })
        .filter(|name| mac.is_none_or(|mac| read(name, "address").as_deref() == Some(mac)))
        .min_by_key(|name| read(name, "ifindex").and_then(|index| index.parse::<u32>().ok()))
}
