//! What a command has written and its host has not got yet.

use std::collections::VecDeque;

use banger_wire::guest::exec::WINDOW;
use banger_wire::guest::frame::{BEST_PAYLOAD, Output};

/// Output in the order it was read, from the first byte that was not got.
#[derive(Debug, Default)]
pub struct Log {
    parts: VecDeque<Part>,
    /// Offset of the first byte that is kept.
    base: u64,
    /// Offset behind the last byte.
    end: u64,
}

#[derive(Debug)]
struct Part {
    start: u64,
    output: Output,
    bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Log {
    /// Offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether more may be read from the command.
    pub fn has_room(&self) -> bool {
        self.end - self.base < WINDOW
    }

    /// Adds bytes. Small writes share a part, so that memory goes with bytes and not with writes.
    pub fn push(&mut self, output: Output, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        match self.parts.back_mut() {
            Some(last)
                if last.output == output && last.bytes.len() + bytes.len() <= BEST_PAYLOAD =>
            {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.parts.push_back(Part {
                start,
                output,
                bytes: bytes.to_vec(),
            }),
        }
    }

    /// Bytes of one stream from `offset` on, as many as lie together and fit a frame; `None` if there are none yet, or they were
    /// dropped.
    pub fn from(&self, offset: u64) -> Option<(Output, &[u8])> {
        if !self.keeps(offset) {
            return None;
        }
        let index = self.parts.partition_point(|part| part.end() <= offset);
        let part = self.parts.get(index)?;
        let skip = usize::try_from(offset - part.start).ok()?;
        let rest = part.bytes.get(skip..)?;
        Some((part.output, &rest[..rest.len().min(BEST_PAYLOAD)]))
    }

    /// Whether nothing from `offset` on was dropped.
    pub fn keeps(&self, offset: u64) -> bool {
        (self.base..=self.end).contains(&offset)
    }

    /// Drops what lies before `offset`; a part goes when all of it is got.
    pub fn got(&mut self, offset: u64) {
        self.base = self.base.max(offset.min(self.end));
        while self.parts.front().is_some_and(|p| p.end() <= self.base) {
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is written, got and read again from any offset that is kept: the bytes are the ones written.
        #[test]
        fn every_kept_offset_reads_on_with_what_was_written(
            steps in proptest::collection::vec((any::<bool>(), 0_usize..50_000, 0_u64..90_000), 1..20),
        ) {
            let mut log = Log::default();
            let (mut all, mut got) = (Vec::new(), 0_u64);
            for (stdout, len, more) in steps {
                let output = if stdout { Output::Stdout } else { Output::Stderr };
                let bytes: Vec<u8> = (0..len).map(|i| (i ^ all.len()) as u8).collect();
                log.push(output, &bytes);
                all.extend(bytes.iter().map(|b| (stdout, *b)));
                got = (got + more).min(all.len() as u64);
                log.got(got);
                prop_assert_eq!(log.end(), all.len() as u64);
                prop_assert!(got == 0 || !log.keeps(got - 1));
                let mut at = got;
                while let Some((output, bytes)) = log.from(at) {
                    prop_assert!(!bytes.is_empty() && bytes.len() <= BEST_PAYLOAD);
                    let start = usize::try_from(at).unwrap();
                    let same = bytes.iter().zip(&all[start..])
                        .all(|(a, (stdout, b))| a == b && *stdout == (output == Output::Stdout));
                    prop_assert!(same);
                    at += bytes.len() as u64;
                }
                prop_assert_eq!(at, all.len() as u64);
            }
        }
    }

    #[test]
    fn memory_goes_with_bytes() {
        let mut log = Log::default();
        for _ in 0..100_000 {
            log.push(Output::Stdout, b"x");
        }
        assert!(log.parts.len() < 10, "{}", log.parts.len());
        assert!(log.has_room());
        log.push(Output::Stderr, &vec![0; 200_000]);
        assert!(!log.has_room());
        log.got(100_000);
        assert!(log.has_room() && log.parts.len() == 1);
    }
}
