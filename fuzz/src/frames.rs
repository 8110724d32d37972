//! Frames of the API and of the agent channel: the same however they are cut, and what was read is written as it was.

use crate::pieces;
use banger_wire::{api, guest};

/// Frames between command line and daemon.
pub fn frames(data: &[u8]) {
    let (cut, whole) = pieces(data);
    let read = |pieces: &[&[u8]]| {
        let mut decoder = api::Decoder::default();
        let mut read = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => read.push(frame),
                    Ok(None) => break,
                    Err(_) => return (read, true),
                }
            }
        }
        (read, false)
    };
    let at_once = read(&[whole]);
    assert_eq!(read(&cut), at_once, "cuts change the frames");
    for frame in at_once.0 {
        let mut decoder = api::Decoder::default();
        decoder.push(&frame.encode());
        let again = decoder.next_frame();
        assert!(
            matches!(&again, Ok(Some(again)) if *again == frame),
            "{frame:?} became {again:?}"
        );
        assert!(decoder.is_empty(), "{frame:?} has a tail");
    }
}

/// Frames between daemon and agent.
pub fn guest_frames(data: &[u8]) {
    let (cut, whole) = pieces(data);
    let read = |pieces: &[&[u8]]| {
        let mut decoder = guest::frame::Decoder::default();
        let mut read = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => read.push(frame),
                    Ok(None) => break,
                    Err(_) => return (read, true),
                }
            }
        }
        (read, false)
    };
    let at_once = read(&[whole]);
    assert_eq!(read(&cut), at_once, "cuts change the frames");
    for frame in at_once.0 {
        let mut decoder = guest::frame::Decoder::default();
        decoder.push(&frame.encode());
        let again = decoder.next_frame();
        assert!(
            matches!(&again, Ok(Some(again)) if *again == frame),
            "{frame:?} became {again:?}"
        );
    }
}
