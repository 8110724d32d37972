//! What a host has sent to a command's standard input and the command has not taken yet.

use std::collections::VecDeque;

use banger_wire::guest::exec::WINDOW;
use banger_wire::guest::frame::{BEST_PAYLOAD, Taken};

/// A queue of bytes with the counts of what went through it.
#[derive(Debug, Default)]
pub struct Input {
    waiting: VecDeque<u8>,
    taken: Taken,
    ended: bool,
    /// The command takes no more: what comes is counted and dropped.
    closed: bool,
}

/// What the writer is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write these bytes, then say so.
    Write(Vec<u8>),
    /// The input ends here.
    End,
    /// Wait.
    Nothing,
}

impl Input {
    /// How much has arrived where.
    pub const fn taken(&self) -> Taken {
        self.taken
    }

    /// Whether more may be put in; a host that keeps to its window is never refused.
    pub const fn has_room(&self) -> bool {
        self.closed || self.taken.received - self.taken.consumed < WINDOW
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        self.taken.received += bytes.len() as u64;
        if self.closed {
            self.taken.consumed = self.taken.received;
        } else {
            self.waiting.extend(bytes);
        }
    }

    /// Nothing more will be put in. Said again, it changes nothing: a host that lost its session repeats it.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether the writer has something to do.
    pub fn is_due(&self) -> bool {
        self.ended || !self.waiting.is_empty()
    }

    /// Takes what the writer is to do next.
    pub fn next(&mut self) -> Next {
        let count = self.waiting.len().min(BEST_PAYLOAD);
        if count > 0 {
            return Next::Write(self.waiting.drain(..count).collect());
        }
        if self.ended { Next::End } else { Next::Nothing }
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, count: usize) {
        self.taken.consumed += count as u64;
    }

    /// The command takes no more.
    pub fn close(&mut self) {
        self.closed = true;
        self.waiting = VecDeque::new();
        self.taken.consumed = self.taken.received;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_once_and_in_order() {
        let mut input = Input::default();
        assert_eq!(input.next(), Next::Nothing);
        input.put(b"abc");
        input.put(b"d");
        assert_eq!((input.taken().received, input.taken().consumed), (4, 0));
        assert_eq!(input.next(), Next::Write(b"abcd".to_vec()));
        assert_eq!(input.taken().consumed, 0);
        input.wrote(4);
        assert_eq!(input.taken().consumed, 4);
        input.end();
        input.end();
        input.put(b"late");
        assert_eq!((input.next(), input.taken().received), (Next::End, 4));
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_swallows() {
        let mut input = Input::default();
        input.put(&vec![0; usize::try_from(WINDOW).unwrap()]);
        assert!(!input.has_room());
        let Next::Write(first) = input.next() else {
            panic!("nothing to write")
        };
        assert!(first.len() <= BEST_PAYLOAD && !input.has_room());
        input.wrote(first.len());
        assert!(input.has_room());
        input.close();
        input.put(b"more");
        assert_eq!(input.taken().received, input.taken().consumed);
        assert!(input.has_room() && !input.is_due());
    }
}
