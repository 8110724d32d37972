//! A tar stream between a thread that reads or writes files and the task that speaks frames. Little is ever on the
//! way: a side that does not take stops the other.

use std::io::{self, BufRead, Read};

use banger_wire::guest::frame::{BEST_PAYLOAD, HEADER};
use banger_wire::guest::{Sum, copy::data_header};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::Error;
use crate::emit::unsent;
use crate::pack::Output;

/// Running length and checksum.
///
/// The checksum is Fletcher's over words of 64 bits, little-endian, the last one filled up with zeros. A CRC would be
/// dearer than all the rest of a copy: where the guest's processor is emulated, so are the instructions for it.
#[derive(Debug, Default)]
struct Running {
    bytes: u64,
    sums: (u64, u64),
    /// The beginning of a word.
    rest: [u8; 8],
}

impl Running {
    fn add(&mut self, data: &[u8]) {
        let begun = self.begun();
        self.bytes += data.len() as u64;
        let (head, data) = data.split_at(data.len().min((8 - begun) % 8));
        self.rest[begun..begun + head.len()].copy_from_slice(head);
        if begun + head.len() == 8 {
            self.sums = add_word(self.sums, self.rest);
        }
        let mut sums = self.sums;
        let (words, rest) = data.as_chunks::<8>();
        for word in words {
            sums = add_word(sums, *word);
        }
        self.sums = sums;
        if begun == 0 || begun + head.len() == 8 {
            self.rest[..rest.len()].copy_from_slice(rest);
        }
    }

    /// So many bytes wait for the rest of their word.
    fn begun(&self) -> usize {
        (self.bytes % 8) as usize
    }

    fn sum(&self) -> Sum {
        let mut sums = self.sums;
        if self.begun() > 0 {
            let mut word = [0; 8];
            word[..self.begun()].copy_from_slice(&self.rest[..self.begun()]);
            sums = add_word(sums, word);
        }
        Sum {
            bytes: self.bytes,
            check: sums.0 ^ sums.1.rotate_left(32),
        }
    }
}

fn add_word((first, second): (u64, u64), word: [u8; 8]) -> (u64, u64) {
    let first = first.wrapping_add(u64::from_le_bytes(word));
    (first, second.wrapping_add(first))
}

/// Length and checksum of these bytes.
pub fn sum_of(bytes: &[u8]) -> Sum {
    let mut running = Running::default();
    running.add(bytes);
    running.sum()
}

/// Makes encoded frames of a stream. For a thread that may block.
pub struct StreamWriter {
    buffer: Vec<u8>,
    filled: usize,
    sender: mpsc::Sender<Bytes>,
    running: Running,
    warn: Box<dyn FnMut(String) + Send>,
}

impl StreamWriter {
    /// Frames go to this queue, warnings to `warn`.
    pub fn new(sender: mpsc::Sender<Bytes>, warn: Box<dyn FnMut(String) + Send>) -> Self {
        Self {
            buffer: Vec::new(),
            filled: 0,
            sender,
            running: Running::default(),
            warn,
        }
    }

    /// Sends what is left; gives length and checksum of the whole.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub fn finish(mut self) -> Result<Sum, Error> {
        self.flush().map_err(unsent)?;
        Ok(self.running.sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let mut frame = std::mem::take(&mut self.buffer);
        frame.truncate(HEADER + self.filled);
        frame[..HEADER].copy_from_slice(&data_header(self.filled));
        self.running.add(&frame[HEADER..]);
        self.filled = 0;
        let sent = self.sender.blocking_send(frame.into());
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Output for StreamWriter {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; HEADER + BEST_PAYLOAD];
        }
        Ok(&mut self.buffer[HEADER + self.filled..])
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        if self.filled == BEST_PAYLOAD {
            return self.flush();
        }
        Ok(())
    }

    fn warn(&mut self, text: String) {
        (self.warn)(text);
    }
}

/// What comes to a [`StreamReader`]. A queue that closes without an end was cut.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes of the stream.
    Data(Bytes),
    /// Its end, with length and checksum as the sender has them.
    End(Sum),
}

/// Reads a stream from a queue. For a thread that may block.
#[derive(Debug)]
pub struct StreamReader {
    queue: mpsc::Receiver<Chunk>,
    now: Bytes,
    running: Running,
    ended: bool,
}

impl StreamReader {
    /// Reads from this queue.
    pub fn new(queue: mpsc::Receiver<Chunk>) -> Self {
        Self {
            queue,
            now: Bytes::new(),
            running: Running::default(),
            ended: false,
        }
    }

    /// Length and checksum of what came.
    pub fn sum(&self) -> Sum {
        self.running.sum()
    }
}

impl BufRead for StreamReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.now.is_empty() && !self.ended {
            match self.queue.blocking_recv() {
                Some(Chunk::Data(data)) => {
                    self.running.add(&data);
                    self.now = data;
                }
                Some(Chunk::End(sum)) if sum == self.running.sum() => self.ended = true,
                Some(Chunk::End(_)) => {
                    let text = "the stream was damaged on its way";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                None => {
                    let text = "the stream was cut off";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
                }
            }
        }
        Ok(&self.now)
    }

    fn consume(&mut self, count: usize) {
        self.now.advance(count);
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_checksum_is_of_the_bytes_however_they_are_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(0_usize..20, 1..30),
        ) {
            let mut running = Running::default();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                running.add(head);
                rest = tail;
            }
            running.add(rest);
            let words = bytes.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                word
            });
            let (first, second) = words.fold((0, 0), add_word);
            let check = first ^ second.rotate_left(32);
            prop_assert_eq!(running.sum(), Sum { bytes: bytes.len() as u64, check });
        }

        #[test]
        fn damage_is_seen(
            bytes in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] ^= flip;
            prop_assert_ne!(sum_of(&damaged), sum_of(&bytes));
        }
    }
}
