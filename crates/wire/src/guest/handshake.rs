//! The handshake that finds the start of a session in the byte stream, as pure incremental scanners.
//!
//! A virtio-serial port carries one endless stream: what an earlier host process wrote runs straight into
//! what the next one writes, cut anywhere. So the host begins with a hello that the guest can find in any
//! junk, and discards what it reads until the answer with its own nonce arrives.
//!
//! ```text
//! hello (host to guest, 40 bytes): token[16] | nonce[16] | version u16 | flags u16 | crc32 u32
//! ack   (guest to host, 62 bytes): ACK_MAGIC[16] | nonce[16] | version u16 | flags u16
//!                                  | boot nonce[16] | agent version 3 × u16 | crc32 u32
//! ```
//! All numbers are big-endian; each checksum (CRC-32, IEEE) covers everything before it.

use std::fmt;

use memchr::memmem;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hex;

/// The newest protocol version this code speaks; the ack names the one that the session uses.
pub const PROTOCOL_VERSION: u16 = 2;
/// Length of a hello in bytes.
pub const HELLO_LEN: usize = 40;
/// Length of an ack in bytes.
pub const ACK_LEN: usize = 62;
/// First bytes of every ack; fixed random bytes, no secret.
pub const ACK_MAGIC: [u8; 16] = [
    0xb4, 0x4e, 0x67, 0xe1, 0x0c, 0x93, 0x5d, 0xf8, 0x21, 0xaa, 0x76, 0x3f, 0xc5, 0x08, 0x9b, 0xd2,
];

/// Length of a token and of a nonce in bytes.
const KEY: usize = 16;

/// The per-VM secret that starts every hello.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// A random value that names one connection attempt, or one boot of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Token {
    /// A fresh token from the system's random source.
    pub fn random() -> Result<Self, getrandom::Error> {
        random16().map(Self)
    }
}

impl Nonce {
    /// A fresh nonce from the system's random source.
    pub fn random() -> Result<Self, getrandom::Error> {
        random16().map(Self)
    }
}

fn random16() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Shows nothing of the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode16(&text)
            .ok_or_else(|| de::Error::custom("a channel token is 32 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}

/// What the host says first, without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Names this connection attempt.
    pub nonce: Nonce,
    /// The newest protocol version the host speaks.
    pub version: u16,
    /// Reserved; the guest ignores bits it does not know.
    pub flags: u16,
}

impl Hello {
    /// A hello of this code's protocol version.
    pub fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            version: PROTOCOL_VERSION,
            flags: 0,
        }
    }

    /// The bytes on the stream.
    pub fn encode(&self, token: &Token) -> [u8; HELLO_LEN] {
        let mut bytes = [0_u8; HELLO_LEN];
        bytes[..16].copy_from_slice(&token.0);
        bytes[16..32].copy_from_slice(&self.nonce.0);
        bytes[32..34].copy_from_slice(&self.version.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.flags.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads a whole hello whose token has been found already; `None` if the checksum is wrong.
    fn decode(bytes: &[u8; HELLO_LEN]) -> Option<Self> {
        if crc32fast::hash(&bytes[..36]).to_be_bytes() != bytes[36..] {
            return None;
        }
        Some(Self {
            nonce: Nonce(array(&bytes[16..32])?),
            version: u16::from_be_bytes(array(&bytes[32..34])?),
            flags: u16::from_be_bytes(array(&bytes[34..36])?),
        })
    }
}

/// What the guest answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The nonce of the hello this answers.
    pub nonce: Nonce,
    /// The protocol version of the session.
    pub version: u16,
    /// Reserved.
    pub flags: u16,
    /// Random value of the guest's boot; another one means that the guest rebooted.
    pub boot_nonce: Nonce,
    /// The agent's version: major, minor, patch.
    pub agent_version: [u16; 3],
}

impl Ack {
    /// The bytes on the stream.
    pub fn encode(&self) -> [u8; ACK_LEN] {
        let mut bytes = [0_u8; ACK_LEN];
        bytes[..16].copy_from_slice(&ACK_MAGIC);
        bytes[16..32].copy_from_slice(&self.nonce.0);
        bytes[32..34].copy_from_slice(&self.version.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.flags.to_be_bytes());
        bytes[36..52].copy_from_slice(&self.boot_nonce.0);
        for (part, at) in self.agent_version.iter().zip([52, 54, 56]) {
            bytes[at..at + 2].copy_from_slice(&part.to_be_bytes());
        }
        let sum = crc32fast::hash(&bytes[..58]);
        bytes[58..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ACK_LEN]) -> Option<Self> {
        if crc32fast::hash(&bytes[..58]).to_be_bytes() != bytes[58..] {
            return None;
        }
        let number = |at: usize| array(&bytes[at..at + 2]).map(u16::from_be_bytes);
        Some(Self {
            nonce: Nonce(array(&bytes[16..32])?),
            version: number(32)?,
            flags: number(34)?,
            boot_nonce: Nonce(array(&bytes[36..52])?),
            agent_version: [number(52)?, number(54)?, number(56)?],
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Host side: finds the ack with this connection's nonce, discarding everything before it.
#[derive(Debug)]
pub struct AckScanner {
    nonce: Nonce,
    buffer: Vec<u8>,
}

impl AckScanner {
    /// A scanner for the answer to the hello with this nonce.
    pub fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            buffer: Vec::new(),
        }
    }

    /// Takes what was read. Once the ack is there, it and every byte after it are given back: those belong to
    /// the session. Keeps fewer than [`ACK_LEN`] bytes between calls.
    pub fn push(&mut self, input: &[u8]) -> Option<(Ack, Vec<u8>)> {
        self.buffer.extend_from_slice(input);
        let mut from = 0;
        while let Some(start) = find_key(&self.buffer, from, &ACK_MAGIC) {
            let Some(whole) = self.buffer.get(start..start + ACK_LEN) else {
                self.buffer.drain(..start);
                return None;
            };
            match array(whole).as_ref().and_then(Ack::decode) {
                Some(ack) if ack.nonce == self.nonce => {
                    let rest = self.buffer.split_off(start + ACK_LEN);
                    self.buffer.clear();
                    return Some((ack, rest));
                }
                _ => from = start + 1,
            }
        }
        keep_tail(&mut self.buffer, KEY - 1);
        None
    }
}

/// Guest side: finds hellos before and within a session.
///
/// Before a session ([`HelloScanner::idle`]) everything up to the last whole hello is discarded. At the
/// start of a session the hellos that the host resent with the same nonce are swallowed. After the first other
/// byte, bytes are passed on as they come; a hello then ends the session and starts the next.
#[derive(Debug)]
pub struct HelloScanner {
    token: Token,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes that may be the beginning of a hello.
    Idle(Vec<u8>),
    /// What may be a repetition of this hello.
    Prelude { hello: Hello, held: Vec<u8> },
    /// Part of `window` was delivered already (its first `delivered` bytes); the rest waits for a verdict.
    Open { window: Vec<u8>, delivered: usize },
}

/// A hello found in a session: the session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHello(pub Hello);

impl HelloScanner {
    /// A scanner outside any session.
    pub fn idle(token: Token) -> Self {
        Self {
            token,
            state: State::Idle(Vec::new()),
        }
    }

    /// Forgets what was read and waits for a hello; for when the stream told of an end.
    pub fn reset(&mut self) {
        self.state = State::Idle(Vec::new());
    }

    /// Outside a session: takes what was read and gives the last whole hello in it. The scanner is then in the
    /// session of that hello; bytes after the hello are kept and come out of the next [`Self::session`] call.
    pub fn find(&mut self, input: &[u8]) -> Option<Hello> {
        if !matches!(self.state, State::Idle(_)) {
            self.state = State::Idle(Vec::new());
        }
        let State::Idle(buffer) = &mut self.state else {
            return None;
        };
        buffer.extend_from_slice(input);
        let mut last = None;
        let mut from = 0;
        while let Some(start) = find_key(buffer, from, &self.token.0) {
            let Some(whole) = buffer.get(start..start + HELLO_LEN) else {
                break;
            };
            match array(whole).as_ref().and_then(Hello::decode) {
                Some(hello) => {
                    from = start + HELLO_LEN;
                    last = Some((hello, from));
                }
                None => from = start + 1,
            }
        }
        if let Some((hello, end)) = last {
            let held = buffer.split_off(end);
            self.state = State::Prelude { hello, held };
            return Some(hello);
        }
        match find_key(buffer, from, &self.token.0) {
            Some(start) => drop(buffer.drain(..start)),
            None => {
                let tail = buffer.len().saturating_sub(from).min(KEY - 1);
                keep_tail(buffer, tail);
            }
        }
        None
    }

    /// Whether `input` may be delivered as it is, without a copy: the session is open, nothing is held back and
    /// no token ends in it. If not, give the same bytes to [`Self::session`].
    pub fn passes(&mut self, input: &[u8]) -> bool {
        let State::Open { window, delivered } = &mut self.state else {
            return false;
        };
        if *delivered != window.len() || memmem::find(input, &self.token.0).is_some() {
            return false;
        }
        // A token across the seam: the last bytes delivered and the first ones of the input.
        let mut seam = [0_u8; 2 * (KEY - 1)];
        let head = input.len().min(KEY - 1);
        let seam_len = window.len() + head;
        seam[..window.len()].copy_from_slice(window);
        seam[window.len()..seam_len].copy_from_slice(&input[..head]);
        if memmem::find(&seam[..seam_len], &self.token.0).is_some() {
            return false;
        }
        if input.len() >= KEY - 1 {
            window.clear();
            window.extend_from_slice(&input[input.len() - (KEY - 1)..]);
        } else {
            window.extend_from_slice(input);
            keep_tail(window, KEY - 1);
        }
        *delivered = window.len();
        true
    }

    /// In a session: takes what was read, appends what belongs to the session to `out`, and tells when a hello
    /// has ended it. After that the scanner is in the session of the new hello.
    ///
    /// Only bytes after a whole token are held back (fewer than [`HELLO_LEN`] of them): were the beginning of a
    /// token held back, the last byte of a request could be kept from the session for ever.
    pub fn session(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<NextHello> {
        let owned;
        let mut input = input;
        if let State::Prelude { hello, held } = &mut self.state {
            held.extend_from_slice(input);
            let again = hello.encode(&self.token);
            while held.len() >= HELLO_LEN && held[..HELLO_LEN] == again {
                held.drain(..HELLO_LEN);
            }
            if again.starts_with(held) {
                return None;
            }
            owned = std::mem::take(held);
            self.state = State::Open {
                window: Vec::new(),
                delivered: 0,
            };
            input = &owned;
        }
        let State::Open { window, delivered } = &mut self.state else {
            return None;
        };
        window.extend_from_slice(input);
        let mut from = 0;
        loop {
            let Some(start) = find_key(window, from, &self.token.0) else {
                out.extend_from_slice(&window[(*delivered).min(window.len())..]);
                keep_tail(window, KEY - 1);
                *delivered = window.len();
                return None;
            };
            let Some(whole) = window.get(start..start + HELLO_LEN) else {
                // What stands before the token is the session's; the rest waits for the checksum.
                let settled = start.max(*delivered);
                out.extend_from_slice(&window[*delivered..settled]);
                window.drain(..start);
                *delivered = settled - start;
                return None;
            };
            let Some(hello) = array(whole).as_ref().and_then(Hello::decode) else {
                from = start + 1;
                continue;
            };
            if start > *delivered {
                out.extend_from_slice(&window[*delivered..start]);
            }
            let rest = window.split_off(start + HELLO_LEN);
            // More hellos may follow; the last one wins, as outside a session.
            self.state = State::Idle(Vec::new());
            let rest_hello = self.find(&rest);
            if rest_hello.is_none() {
                self.state = State::Prelude { hello, held: rest };
            }
            return Some(NextHello(rest_hello.unwrap_or(hello)));
        }
    }
}

fn find_key(buffer: &[u8], from: usize, key: &[u8; KEY]) -> Option<usize> {
    memmem::find(buffer.get(from..)?, key).map(|at| at + from)
}

fn keep_tail(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() > len {
        buffer.drain(..buffer.len() - len);
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
