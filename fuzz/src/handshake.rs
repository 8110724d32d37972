//! The hello of the agent channel (`docs/design/channel.md`): found in whatever stands around it, and never delivered.

use crate::pieces;
use banger_wire::guest::handshake::{AckScanner, HelloScanner};
use banger_wire::guest::{Hello, Nonce, Token};

const TOKEN: Token = Token(*b"0123456789abcdef");

/// A session, and what of `input` was delivered before a hello ended it, however the input was cut.
fn delivered<'a>(input: impl Iterator<Item = &'a [u8]>, look_first: bool) -> (Vec<u8>, bool) {
    let mut scanner = HelloScanner::idle(TOKEN);
    let hello = Hello::new(Nonce([7; 16]));
    assert!(
        scanner.find(&hello.encode(&TOKEN)).is_some(),
        "a hello alone is found"
    );
    let mut out = Vec::new();
    for piece in input {
        if look_first && scanner.passes(piece) {
            out.extend_from_slice(piece);
        } else if scanner.session(piece, &mut out).is_some() {
            return (out, true);
        }
    }
    (out, false)
}

/// The beginning of a token is delivered when it is not known yet to be one: were it held back, the last byte of a
/// request could be kept from the session for ever. Beyond that cuts change nothing.
fn same(cut: &(Vec<u8>, bool), at_once: &(Vec<u8>, bool)) {
    assert_eq!(cut.1, at_once.1, "cuts change whether a hello is found");
    let more = cut.0.strip_prefix(at_once.0.as_slice());
    let begins = more.is_some_and(|more| more.len() < TOKEN.0.len() && TOKEN.0.starts_with(more));
    assert!(
        begins,
        "cuts change what is delivered: {cut:?} and {at_once:?}"
    );
}

/// Cuts change nothing; a hello that would begin a session is never part of what is delivered. Bytes `0xfe` in the
/// input stand for the token, so that it is met.
pub fn handshake(data: &[u8]) {
    let mut input = Vec::with_capacity(data.len());
    for &byte in data {
        match byte {
            0xfe => input.extend_from_slice(&TOKEN.0),
            0xfd => input.extend_from_slice(&Hello::new(Nonce([9; 16])).encode(&TOKEN)),
            0xfc => input.extend_from_slice(&Hello::new(Nonce([7; 16])).encode(&TOKEN)),
            byte => input.push(byte),
        }
    }
    let (cut, whole) = pieces(&input);
    let at_once = delivered(std::iter::once(whole), false);
    same(&delivered(cut.iter().copied(), false), &at_once);
    same(&delivered(cut.iter().copied(), true), &at_once);
    assert!(at_once.0.len() <= whole.len());
    let mut idle = HelloScanner::idle(TOKEN);
    assert!(idle.find(&at_once.0).is_none(), "a hello was delivered");

    let mut acks = AckScanner::new(Nonce([7; 16]));
    for piece in cut {
        if acks.push(piece).is_some() {
            break;
        }
    }
}
