//! What a VM holds for its whole life: an address, a MAC, a vsock context id. Durable (R-STATE-1).

use crate::VmId;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")))]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The MAC of a VM: its id with the locally-administered bit set and the group bit clear
    /// (IEEE 802 section 8.2).
    pub const fn of_vm(vm: VmId) -> Self {
        let mut bytes = vm.bytes();
        bytes[0] = (bytes[0] & 0xfc) | 0x02;
        MacAddress(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not six hex pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address")]
pub struct MacError(String);

impl FromStr for MacAddress {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(MacAddress(bytes))
        }
    }
}
impl TryFrom<String> for MacAddress {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}
impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

/// The leases of one VM. Taken with the row, freed with the row, never before the teardown is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lease {
    /// Guest address on the bridge's network (unused by the user network, leased all the same).
    pub ip: Ipv4Addr,
    /// MAC of the guest's first interface.
    pub mac: MacAddress,
    /// vsock context id, at least 3 (linux/vm_sockets.h: 0 to 2 are reserved).
    pub cid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_local_unicast_and_round_trip() {
        for first in [0x00, 0x01, 0xff, 0xfe] {
            let mac = MacAddress::of_vm(VmId::from_bytes([first, 1, 2, 3, 4, 5]));
            assert_eq!(mac.0[0] & 0x03, 0x02);
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
        assert!("00:11:22:33:44".parse::<MacAddress>().is_err());
    }
}
