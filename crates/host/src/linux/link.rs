//! Taps and bridges, by ioctl and sysfs (linux/if_tun.h, linux/if.h, linux/sockios.h).
//!
//! sysfs shows the network namespace it was mounted in; the daemon's is that of its sockets.

use super::{LinuxHost, ioctl, spawn};
use crate::{Effect, Error, ErrorKind, LinkSeen, Links, effects::Result};
use banger_model::{Label, TapName};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
const TUNSETOWNER: u32 = 0x4004_54cc;
/// What both VMMs open a tap with; EXCL refuses one that is there.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000; // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
const IFF_TUN_EXCL: u16 = 0x8000;
const IFF_UP: u16 = 1;

const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCSIFNAME: u32 = 0x8923;
const SIOCSIFHWADDR: u32 = 0x8924;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCBRADDBR: u32 = 0x89a0;
const SIOCBRDELBR: u32 = 0x89a1;
const SIOCBRADDIF: u32 = 0x89a2;
const SIOCBRDELIF: u32 = 0x89a3;

/// `struct ifreq`: a name and a union whose fields all begin at its start.
#[repr(C)]
#[derive(Clone, Copy)]
struct IfReq {
    name: [u8; 16],
    data: [u8; 24],
}

impl IfReq {
    fn new(name: &str, data: &[u8]) -> Result<Self, Errno> {
        let mut request = IfReq {
            name: ioctl::field(name)?,
            data: [0; 24],
        };
        request.data[..data.len()].copy_from_slice(data);
        Ok(request)
    }
}

/// Any ioctl of `SIOC…` that takes an ifreq, on a link by name; yields the ifreq's union.
fn request<const OPCODE: u32>(name: &str, data: &[u8]) -> Result<[u8; 24], Errno> {
    let mut request = IfReq::new(name, data)?;
    // SAFETY: these opcodes read and write a struct ifreq.
    unsafe { ioctl::change::<OPCODE, _>(control()?, &mut request) }?;
    Ok(request.data)
}

/// The socket that link ioctls are made on.
fn control() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn sysfs(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

fn exists(name: &str) -> bool {
    // A symlink into /sys/devices.
    fs::symlink_metadata(sysfs(name)).is_ok()
}

fn errno(e: &io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

fn write_attribute(name: &str, attribute: &str, value: &str) -> Result<(), Errno> {
    fs::write(sysfs(name).join(attribute), value).map_err(|e| errno(&e))
}

fn read_attribute(name: &str, attribute: &str) -> Option<String> {
    let text = fs::read_to_string(sysfs(name).join(attribute)).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

fn alias(name: &str) -> String {
    read_attribute(name, "ifalias").unwrap_or_default()
}

fn master(name: &str) -> Option<String> {
    let link = fs::read_link(sysfs(name).join("master")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn is_up(name: &str) -> bool {
    read_attribute(name, "flags")
        .and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok())
        .is_some_and(|flags| flags & u32::from(IFF_UP) != 0)
}

fn set_up(name: &str, up: bool) -> Result<(), Errno> {
    let data = request::<SIOCGIFFLAGS>(name, &[])?;
    let flags = u16::from_ne_bytes([data[0], data[1]]);
    let wanted = match up {
        true => flags | IFF_UP,
        false => flags & !IFF_UP,
    };
    request::<SIOCSIFFLAGS>(name, &wanted.to_ne_bytes()).map(drop)
}

/// Adds a link to a bridge or takes it out.
fn bridge_port<const OPCODE: u32>(bridge: &str, port: &str) -> Result<(), Errno> {
    let index = request::<SIOCGIFINDEX>(port, &[])?;
    request::<OPCODE>(bridge, &index[..4]).map(drop)
}

/// Makes or removes a bridge.
fn bridge<const OPCODE: u32>(name: &str) -> Result<(), Errno> {
    // SAFETY: SIOCBRADDBR and SIOCBRDELBR read a name of IFNAMSIZ bytes.
    unsafe { ioctl::give::<OPCODE, [u8; 16]>(control()?, ioctl::field(name)?) }
}

/// `struct sockaddr_in` in an ifreq.
fn address(ip: Ipv4Addr) -> [u8; 8] {
    let [a, b, c, d] = ip.octets();
    let [x, y] = 2_u16.to_ne_bytes(); // AF_INET
    [x, y, 0, 0, a, b, c, d]
}

fn netmask(prefix: u8) -> Ipv4Addr {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32)));
    Ipv4Addr::from(bits.unwrap_or(0))
}

/// Opens the tap's queue; with `EXCL` it must not be there yet. Until it is made persistent, the
/// link lives exactly as long as the descriptor.
fn open_tap(name: &str, flags: u16) -> Result<OwnedFd, Errno> {
    let tun = open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| match e {
        Errno::NOENT => Errno::NODEV,
        other => other,
    })?;
    let mut request = IfReq::new(name, &flags.to_ne_bytes())?;
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, whatever size its number says.
    unsafe { ioctl::change::<TUNSETIFF, _>(&tun, &mut request) }?;
    Ok(tun)
}

fn make_tap(name: &str, label: &str, owner_uid: u32) -> Result<(), Errno> {
    // A child forked meanwhile would hold a copy of the queue until its exec, and the VMM that opens
    // the tap next would find it busy.
    let _alone = spawn::alone();
    let tun = open_tap(name, TAP_FLAGS | IFF_TUN_EXCL)?;
    write_attribute(name, "ifalias", label)?;
    let owner = usize::try_from(owner_uid).map_err(|_| Errno::INVAL)?;
    // SAFETY: both take their argument by value.
    unsafe {
        ioctl::number(&tun, TUNSETOWNER, owner)?;
        ioctl::number(&tun, TUNSETPERSIST, 1)?;
    }
    Ok(())
}

fn remove_tap(name: &str) -> Result<(), Errno> {
    let _alone = spawn::alone(); // as above
    let tun = open_tap(name, TAP_FLAGS)?;
    // SAFETY: as above; the link goes when the descriptor is closed.
    unsafe { ioctl::number(&tun, TUNSETPERSIST, 0) }.map(drop)
}

/// Joins, isolates, brings up: in this order no unisolated port ever carries a frame. What is done
/// already is not done again, so a half-made port is finished.
fn join(name: &str, to: &str) -> Result<(), Errno> {
    match master(name) {
        Some(there) if there == to => {}
        Some(_) => return Err(Errno::BUSY),
        None => bridge_port::<SIOCBRADDIF>(to, name)?,
    }
    write_attribute(name, "brport/isolated", "1")?;
    set_up(name, true)
}

/// A new bridge, complete but for being up, under a name that says whose it is though it has no
/// label yet; only then it gets its own name.
fn make_bridge(
    draft: &str,
    name: &str,
    label: &str,
    ip: Ipv4Addr,
    prefix: u8,
) -> Result<(), Errno> {
    if exists(draft) {
        bridge::<SIOCBRDELBR>(draft)?;
    }
    bridge::<SIOCBRADDBR>(draft)?;
    write_attribute(draft, "ifalias", label)?;
    keep_mac(draft)?;
    set_address(draft, ip, prefix)?;
    request::<SIOCSIFNAME>(draft, &ioctl::field::<16>(name)?)?;
    set_up(name, true)
}

/// Says the bridge's random address is meant: else it changes with its ports, and every guest's
/// neighbour entry of its gateway is wrong.
fn keep_mac(name: &str) -> Result<(), Errno> {
    let text = read_attribute(name, "address").ok_or(Errno::NODEV)?;
    let mut data = [0; 8];
    data[..2].copy_from_slice(&1_u16.to_ne_bytes()); // ARPHRD_ETHER
    for (byte, hex) in data[2..].iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(hex, 16).map_err(|_| Errno::INVAL)?;
    }
    request::<SIOCSIFHWADDR>(name, &data).map(drop)
}

fn set_address(name: &str, ip: Ipv4Addr, prefix: u8) -> Result<(), Errno> {
    request::<SIOCSIFADDR>(name, &address(ip))?;
    request::<SIOCSIFNETMASK>(name, &address(netmask(prefix))).map(drop)
}

fn error(effect: Effect, what: &'static str, name: &str, source: Errno) -> Error {
    let kind = ErrorKind::of_io(&source.into());
    Error::new(effect, what, name, kind, io::Error::from(source))
}

/// `NotFound` or `Foreign` unless the link is there and carries the label.
fn ours(effect: Effect, what: &'static str, name: &str, label: &Label) -> Result<()> {
    if !exists(name) {
        let why = "there is no such link";
        return Err(Error::new(effect, what, name, ErrorKind::NotFound, why));
    }
    let alias = alias(name);
    if alias == label.to_string() {
        return Ok(());
    }
    let why = format!("its alias is '{alias}', not our label");
    Err(Error::new(effect, what, name, ErrorKind::Foreign, why))
}

/// `Exists` or `Foreign` if a link of that name is there.
fn absent(effect: Effect, what: &'static str, name: &str, label: &Label) -> Result<()> {
    match ours(effect, what, name, label) {
        Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => {
            let why = "it is there, and ours";
            Err(Error::new(effect, what, name, ErrorKind::Exists, why))
        }
    }
}

impl Links for LinuxHost {
    fn links(&self) -> Result<Vec<LinkSeen>> {
        let dir = Path::new("/sys/class/net");
        let fail = |e| super::fail(Effect::LinkList, "list the links in", dir, e);
        let mut seen = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let Some(name) = name.to_str() else { continue };
            // A file of the bonding driver, not a link.
            if name == "bonding_masters" {
                continue;
            }
            let alias = alias(name);
            // A port of ours that is not isolated or not up is not finished: it is no port yet.
            let half = alias.parse::<Label>().is_ok()
                && !(is_up(name)
                    && read_attribute(name, "brport/isolated").as_deref() == Some("1"));
            seen.push(LinkSeen {
                name: name.to_owned(),
                alias,
                master: master(name).filter(|_| !half),
            });
        }
        seen.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(seen)
    }

    fn tap_create(&self, name: &TapName, label: &Label, owner_uid: u32) -> Result<()> {
        let (effect, what) = (Effect::TapCreate, "make the tap");
        absent(effect, what, name.as_str(), label)?;
        make_tap(name.as_str(), &label.to_string(), owner_uid)
            .map_err(|e| error(effect, what, name.as_str(), e))
    }

    fn set_master(&self, name: &TapName, label: &Label, bridge: &str) -> Result<()> {
        let (effect, what) = (Effect::SetMaster, "join to the bridge");
        ours(effect, what, name.as_str(), label)?;
        if !sysfs(bridge).join("bridge").is_dir() {
            let why = format!("there is no bridge {bridge}");
            let kind = ErrorKind::NoDevice;
            return Err(Error::new(effect, what, name.as_str(), kind, why));
        }
        join(name.as_str(), bridge).map_err(|e| error(effect, what, name.as_str(), e))
    }

    fn clear_master(&self, name: &TapName, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::SetMaster, "take from its bridge");
        ours(effect, what, name.as_str(), label)?;
        match master(name.as_str()) {
            None => Ok(()),
            Some(bridge) => bridge_port::<SIOCBRDELIF>(&bridge, name.as_str())
                .map_err(|e| error(effect, what, name.as_str(), e)),
        }
    }

    fn link_delete(&self, name: &TapName, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::LinkDelete, "delete the tap");
        ours(effect, what, name.as_str(), label)?;
        remove_tap(name.as_str()).map_err(|e| error(effect, what, name.as_str(), e))
    }

    fn bridge_create(
        &self,
        name: &str,
        label: &Label,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<()> {
        let (effect, what) = (Effect::BridgeCreate, "make the bridge");
        let fail = |e| error(effect, what, name, e);
        match absent(effect, what, name, label) {
            // Died between naming it and bringing it up.
            Err(there) if there.kind == ErrorKind::Exists => {
                set_address(name, address, prefix)
                    .and_then(|()| set_up(name, true))
                    .map_err(fail)?;
                Err(there)
            }
            Err(theirs) if theirs.kind == ErrorKind::Foreign => Err(Error::new(
                effect,
                what,
                name,
                ErrorKind::Foreign,
                format!(
                    "{}; give this banger another `bridge_name` and `bridge_ip` in its configuration",
                    theirs.source
                ),
            )),
            Err(other) => Err(other),
            Ok(()) => {
                let draft = format!("bgr-{}", label.instance);
                make_bridge(&draft, name, &label.to_string(), address, prefix).map_err(fail)
            }
        }
    }

    fn bridge_delete(&self, name: &str, label: &Label) -> Result<()> {
        let (effect, what) = (Effect::LinkDelete, "delete the bridge");
        ours(effect, what, name, label)?;
        if !sysfs(name).join("bridge").is_dir() {
            // As the kernel would say, but before the link is taken down for it.
            return Err(error(effect, what, name, Errno::PERM));
        }
        set_up(name, false)
            .and_then(|()| bridge::<SIOCBRDELBR>(name))
            .map_err(|e| error(effect, what, name, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_are_those_of_their_prefix() {
        for (prefix, mask) in [
            (0, [0, 0, 0, 0]),
            (8, [255, 0, 0, 0]),
            (20, [255, 255, 240, 0]),
            (24, [255, 255, 255, 0]),
            (32, [255; 4]),
        ] {
            assert_eq!(netmask(prefix).octets(), mask, "/{prefix}");
        }
    }
}
