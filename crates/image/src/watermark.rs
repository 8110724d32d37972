//! The digest of a file that is still being written: what will not change any more is hashed, and sent to the disk, while the
//! rest comes.

use banger_ext4::WriteAt;
use banger_model::hex;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes that are read and hashed at once.
const CHUNK: usize = 1 << 20;
/// Bytes between two times that what is written is sent to the disk: each costs the file system below a transaction.
pub(crate) const SENT: u64 = 64 << 20;
/// Longest wait at a time. Whoever moves the mark or ends the writing says so; it is no wait for ever if nobody did.
const LOOK: Duration = Duration::from_millis(100);

/// How far a file is as it will stay. Parts of it are written side by side, each from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Watermark {
    state: Mutex<State>,
    moved: Condvar,
    len: u64,
}

#[derive(Debug)]
struct State {
    parts: Vec<Part>,
    phase: Phase,
}

/// A part, from its first byte to the next part's.
#[derive(Debug)]
struct Part {
    done: u64,
    end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Writing,
    /// All of it was written, each part in its order.
    Written,
    /// A write went back, or left its part: what was hashed may not be what is there.
    Spoiled,
    /// The disk did not take what had been written; nothing more is.
    Failed,
    /// Nobody writes the rest.
    GivenUp,
}

impl Watermark {
    /// For a file of `len` bytes: what lies before the first part is written already, and each part reaches to the next.
    /// `None` where the parts are not given in ascending order: nothing can be told of such a file before its end.
    pub(crate) fn new(starts: &[u64], len: u64) -> Option<Watermark> {
        let ends = starts.iter().skip(1).copied().chain([len]);
        let parts: Vec<Part> = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| Part { done: *start, end })
            .collect();
        parts.iter().all(|part| part.done <= part.end).then(|| {
            let phase = Phase::Writing;
            Watermark {
                state: Mutex::new(State { parts, phase }),
                moved: Condvar::new(),
                len,
            }
        })
    }

    /// Where this part is written to.
    pub(crate) fn part<'a>(&'a self, number: usize, file: &'a File) -> PartFile<'a> {
        PartFile {
            mark: self,
            number,
            file,
        }
    }

    /// The end of the writing: all is given up where this is dropped.
    pub(crate) fn ends_here(&self) -> End<'_> {
        End { mark: self }
    }

    fn end(&self, how: Phase) {
        let mut state = self.state();
        if state.phase == Phase::Writing {
            state.phase = how;
        }
        self.moved.notify_all();
    }

    /// Lower-case hex sha256 of the file, when all of it is written; `None` if that was given up, or went another way than
    /// from the beginning to the end. Giving up is looked at for each MiB.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn digest(&self, file: &File) -> io::Result<Option<String>> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.len {
            let left = self.len - at;
            let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            if self.beyond(at + n as u64).is_none() {
                return Ok(None);
            }
            file.read_exact_at(&mut buffer[..n], at)?;
            hash.update(&buffer[..n]);
            at += n as u64;
        }
        // A write that went back may have come after its place was hashed.
        let whole = self.beyond(self.len).is_some();
        Ok(whole.then(|| hex::encode(&hash.finalize())))
    }

    /// Has what is written sent to the disk after so many bytes each time, while the rest comes: who flushes the file then waits
    /// for little. Where the disk does not take it, nothing more is written.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn send(&self, file: &File, bytes: u64) -> io::Result<()> {
        let mut at = bytes;
        while at < self.len {
            let Some(mark) = self.beyond(at).filter(|mark| *mark < self.len) else {
                return Ok(());
            };
            file.sync_data().inspect_err(|_| self.end(Phase::Failed))?;
            at = mark + bytes;
        }
        Ok(())
    }

    /// Waits until the file is as it will stay up to this position, or its end, and tells how far it is then. `None`: it will
    /// never be, or nobody can tell.
    fn beyond(&self, position: u64) -> Option<u64> {
        let mut state = self.state();
        loop {
            match state.phase {
                Phase::Spoiled | Phase::Failed | Phase::GivenUp => return None,
                Phase::Written => return Some(self.len),
                Phase::Writing => {}
            }
            let open = state.parts.iter().find(|part| part.done < part.end);
            let mark = open.map_or(self.len, |part| part.done);
            if mark < self.len && mark >= position {
                return Some(mark);
            }
            let waited = self.moved.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wrote(&self, number: usize, from: u64, to: u64) {
        let mut state = self.state();
        match state.parts.get_mut(number) {
            Some(part) if part.done <= from && to <= part.end => part.done = to,
            _ => state.phase = Phase::Spoiled,
        }
        self.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the writing of a file; dropped, what is left of it and of its digest is given up.
pub(crate) struct End<'a> {
    mark: &'a Watermark,
}

impl End<'_> {
    /// All is written.
    pub(crate) fn written(&self) {
        self.mark.end(Phase::Written);
    }
}

impl Drop for End<'_> {
    /// Nobody waits for a digest any more, whether all was written or not.
    fn drop(&mut self) {
        let mut state = self.mark.state();
        if let Phase::Writing | Phase::Written = state.phase {
            state.phase = Phase::GivenUp;
        }
        self.mark.moved.notify_all();
    }
}

/// A part of a file on its way; what is dropped without [`PartFile::finish`] is never written to its end.
pub(crate) struct PartFile<'a> {
    mark: &'a Watermark,
    number: usize,
    file: &'a File,
}

impl PartFile<'_> {
    /// Nothing of this part will be written any more.
    pub(crate) fn finish(self) {
        let mut state = self.mark.state();
        if let Some(part) = state.parts.get_mut(self.number) {
            part.done = part.end;
        }
        self.mark.moved.notify_all();
    }
}

impl WriteAt for PartFile<'_> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.mark.state().phase == Phase::Failed {
            return Err(io::Error::other("the disk did not take what came before"));
        }
        FileExt::write_all_at(self.file, bytes, offset)?;
        self.mark
            .wrote(self.number, offset, offset + bytes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    /// A file of 5 MiB in two parts, the first of which begins behind 1 MiB that is there already.
    struct Written {
        _dir: tempfile::TempDir,
        file: File,
        bytes: Vec<u8>,
        mark: Watermark,
    }

    const MIB: u64 = 1 << 20;

    fn written() -> Written {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = File::options();
        let file = file.read(true).write(true).create(true).truncate(true);
        let file = file.open(path).unwrap();
        file.set_len(5 * MIB).unwrap();
        let bytes: Vec<u8> = (0..5 * MIB).map(|n| ((n * 7) >> 9) as u8).collect();
        FileExt::write_all_at(&file, &bytes[..MIB as usize], 0).unwrap();
        let mark = Watermark::new(&[MIB, 3 * MIB], 5 * MIB).unwrap();
        Written {
            _dir: dir,
            file,
            bytes,
            mark,
        }
    }

    impl Written {
        fn put(&self, part: usize, from: u64, to: u64) {
            let bytes = &self.bytes[from as usize..to as usize];
            let part = self.mark.part(part, &self.file);
            part.write_all_at(bytes, from).unwrap();
        }

        /// What is told of it while `write` writes.
        fn digest_of(&self, write: impl FnOnce()) -> Option<String> {
            std::thread::scope(|scope| {
                let digest = scope.spawn(|| self.mark.digest(&self.file));
                let sent = scope.spawn(|| self.mark.send(&self.file, MIB));
                let end = self.mark.ends_here();
                write();
                end.written();
                sent.join().unwrap().unwrap();
                digest.join().unwrap().unwrap()
            })
        }
    }

    #[test]
    fn the_digest_is_the_files_whichever_part_is_first() {
        for first in [0, 1] {
            let w = written();
            let found = w.digest_of(|| {
                let parts = [(MIB, 3 * MIB), (3 * MIB, 5 * MIB)];
                for n in [first, 1 - first] {
                    let (from, to) = parts[n];
                    for at in (from..to).step_by(300_000) {
                        w.put(n, at, (at + 300_000).min(to));
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    w.mark.part(n, &w.file).finish();
                }
            });
            assert_eq!(found, Some(digest::sha256(&w.bytes)), "{first} first");
        }
    }

    /// What is left out of a part is as it was.
    #[test]
    fn holes_are_hashed_as_zeros() {
        let mut w = written();
        w.bytes[2 * MIB as usize..].fill(0);
        let found = w.digest_of(|| w.put(0, MIB, 2 * MIB));
        assert_eq!(found, Some(digest::sha256(&w.bytes)));
    }

    #[test]
    fn nothing_is_told_of_what_goes_back_leaves_its_part_or_is_given_up() {
        let w = written();
        let told = w.digest_of(|| {
            w.put(0, MIB, 3 * MIB);
            w.put(1, 3 * MIB, 5 * MIB);
            w.put(0, 2 * MIB, 2 * MIB + 1);
        });
        assert_eq!(told, None, "a write went back");
        let w = written();
        assert_eq!(
            w.digest_of(|| w.put(0, 3 * MIB, 4 * MIB)),
            None,
            "another's part"
        );
        let w = written();
        let told = std::thread::scope(|scope| {
            let digest = scope.spawn(|| w.mark.digest(&w.file));
            drop(w.mark.ends_here());
            digest.join().unwrap().unwrap()
        });
        assert_eq!(told, None, "given up");
        let w = written();
        let end = w.mark.ends_here();
        end.written();
        drop(end);
        assert_eq!(w.mark.digest(&w.file).unwrap(), None, "cancelled");
        assert!(Watermark::new(&[2, 1], 3).is_none() && Watermark::new(&[4], 3).is_none());
    }

    /// It does not wait for the end: what is told of the first part is known before the second comes.
    #[test]
    fn it_goes_along_with_the_writing() {
        let w = written();
        assert_eq!(w.mark.state().parts[0].done, MIB);
        w.put(0, MIB, 2 * MIB);
        assert_eq!(w.mark.beyond(2 * MIB), Some(2 * MIB));
        w.mark.part(0, &w.file).finish();
        assert_eq!(w.mark.beyond(2 * MIB + 1), Some(3 * MIB));
    }

    /// A pipe cannot be flushed: what a disk says that takes nothing.
    #[test]
    fn nothing_more_is_written_to_a_disk_that_takes_nothing() {
        let w = written();
        let (_reader, pipe) = std::io::pipe().unwrap();
        let no_disk = File::from(std::os::fd::OwnedFd::from(pipe));
        let failed = std::thread::scope(|scope| {
            let sent = scope.spawn(|| w.mark.send(&no_disk, 2 * MIB));
            w.put(0, MIB, 2 * MIB);
            sent.join().unwrap()
        });
        assert!(failed.is_err());
        let more = w.mark.part(0, &w.file).write_all_at(&[1], 2 * MIB);
        assert!(more.is_err());
        assert_eq!(w.mark.digest(&w.file).unwrap(), None);
    }
}
