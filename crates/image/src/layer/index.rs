//! What is in a layer's stream, and where its files' bytes are (the first pass).

use super::limits::{Mark, Watch};
use super::name::clean;
use super::packing::Unpacked;
use super::tar::{self, End, Kind, Reader};
use super::{Entry, Form, Piece, What};
use crate::{Error, Result};

/// Bytes of extended attributes one inode can have: its own room and one block.
const XATTRS_MAX: usize = 3800;
/// Longest file an ext4 of 4 KiB blocks holds.
const FILE_MAX: u64 = 16 << 40;
/// Longest text of a symlink: a block without its last byte.
const SYMLINK_MAX: usize = 4095;
/// Numbers of devices are below these: what Linux packs them into (`include/linux/kdev_t.h`).
const MAJORS: u32 = 1 << 12;
const MINORS: u32 = 1 << 20;
/// Bytes that are looked at together: a block of the file systems we make.
const BLOCK: u64 = 4096;
/// Zeros in a row that are not kept. Fewer would cost more in the map of a file than they spare.
const HOLE_MIN: u64 = 64 << 10;

/// Reads an archive to its end and the stream behind it, and gives each entry to `sink`.
///
/// # Errors
/// Cut short, damaged, an entry refused, no room, a limit reached, cancelled; what the sink says.
pub(crate) fn index(
    archive: Unpacked<'_>,
    form: Form,
    end: End,
    watch: &Watch<'_>,
    sink: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut mark = Mark::default();
    let mut reader = Reader::new(archive, end);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let next = reader.entry(&mut |source, header| {
            watch.look_up(source, &mut mark)?;
            header.map_or(Ok(()), |header| watch.header(&header.path_bytes()))
        })?;
        let Some(entry) = next else {
            break;
        };
        watch.entry(&entry.name)?;
        watch.look_up(reader.source(), &mut mark)?;
        let mut described = described(&entry, form, watch)?;
        let Some(described) = &mut described else {
            continue;
        };
        if let What::File { pieces, .. } = &mut described.what {
            let mut runs = Runs::default();
            for (offset, length) in &entry.pieces {
                let mut at = *offset;
                let end = offset + length;
                while at < end {
                    let from = reader.position();
                    let n = whole_blocks(&mut reader, &mut buffer, at, end)?;
                    runs.take(at, from, &buffer[..n]);
                    at += n as u64;
                    watch.look_up(reader.source(), &mut mark)?;
                }
                runs.end_piece();
            }
            *pieces = runs.pieces;
            // One piece is usual, and a list that grows makes room for more.
            pieces.shrink_to_fit();
        }
        watch.keep(described, &entry.name)?;
        sink(std::mem::replace(described, nothing()))?;
    }
    reader.finish_stream(|source| watch.look_up(source, &mut mark))
}

fn nothing() -> Entry {
    Entry {
        path: Vec::new(),
        meta: Default::default(),
        what: What::Directory,
    }
}

/// Reads up to `end` of a file what the buffer holds; whole blocks but at the end.
fn whole_blocks(
    reader: &mut Reader<Unpacked<'_>>,
    buffer: &mut [u8],
    at: u64,
    end: u64,
) -> Result<usize> {
    let room = buffer.len() - usize::try_from(at % BLOCK).unwrap_or(0);
    let want = usize::try_from(end - at).map_or(room, |left| left.min(room));
    let mut filled = 0;
    while filled < want {
        match reader.data(&mut buffer[filled..want])? {
            0 => return Err(Error::Truncated),
            n => filled += n,
        }
    }
    Ok(filled)
}

/// What an entry of the archive is for the image, files still without their bytes; `None` for what is nothing.
fn described(entry: &tar::Entry, form: Form, watch: &Watch<'_>) -> Result<Option<Entry>> {
    let refuse = |why: &str| Err(Error::refused(&entry.name, why));
    let path = match clean(&entry.name) {
        Ok(path) => path,
        Err(bad) => return refuse(bad.why()),
    };
    match whiteout(&path) {
        _ if form == Form::Flat => {}
        Name::Plain => {}
        Name::Mark => return Ok(None),
        Name::Bad => return refuse("it hides what can have no name"),
        Name::Hides(path, what) => {
            return Ok(Some(Entry {
                path,
                what,
                ..nothing()
            }));
        }
    }
    let xattrs: usize = entry
        .meta
        .xattrs
        .iter()
        .map(|xattr| xattr.name.len() + xattr.value.len() + 32)
        .sum();
    if xattrs > XATTRS_MAX {
        return refuse("it has more extended attributes than ext4 keeps");
    }
    let what = match &entry.kind {
        Kind::File if entry.len > FILE_MAX => return refuse("it is longer than a file can be"),
        Kind::File => What::File {
            size: entry.len,
            pieces: Vec::new(),
        },
        Kind::Directory => What::Directory,
        Kind::Symlink(text) if text.is_empty() || text.contains(&0) => {
            return refuse("its target is empty or has a NUL byte");
        }
        Kind::Symlink(text) if text.len() > SYMLINK_MAX => {
            return refuse("its target is longer than a file system takes");
        }
        Kind::Symlink(text) => What::Symlink(text.clone()),
        Kind::HardLink(target) => match clean(target) {
            Ok(target) => What::HardLink(target),
            Err(bad) => return refuse(&format!("of its target: {}", bad.why())),
        },
        Kind::Char(major, minor) | Kind::Block(major, minor) => {
            watch.device(&entry.name)?;
            if *major >= MAJORS || *minor >= MINORS {
                return refuse("its numbers are no device's");
            }
            match entry.kind {
                Kind::Char(..) => What::Char(*major, *minor),
                _ => What::Block(*major, *minor),
            }
        }
        Kind::Fifo => What::Fifo,
    };
    let mut meta = entry.meta.clone();
    if matches!(what, What::Symlink(_)) {
        meta.mode = 0o777; // as Linux has it, whatever an archiver says
    }
    Ok(Some(Entry { path, meta, what }))
}

/// What a name is in a layer.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// An entry's.
    Plain,
    /// A mark that a union file system left for itself (`.wh..wh.plnk`): nothing of the image.
    Mark,
    /// A whiteout of what cannot be.
    Bad,
    /// What is at this path is hidden.
    Hides(Vec<u8>, What),
}

fn whiteout(path: &[u8]) -> Name {
    let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    let Some(hidden) = name.strip_prefix(b".wh.") else {
        return Name::Plain;
    };
    match hidden {
        b"" | b"." | b".." => Name::Bad,
        b".wh..opq" => Name::Hides(dir.to_owned(), What::Opaque),
        own if own.starts_with(b".wh.") => Name::Mark,
        name if dir.is_empty() => Name::Hides(name.to_owned(), What::Whiteout),
        name => Name::Hides([dir, name].join(&b'/'), What::Whiteout),
    }
}

/// The pieces of a file without its long runs of zeros.
#[derive(Default)]
struct Runs {
    pieces: Vec<Piece>,
    open: Option<Piece>,
    /// Zeros behind what is open, and where they begin in the file and in the stream.
    zeros: u64,
    zeros_at: (u64, u64),
}

impl Runs {
    /// Takes bytes that lie at this offset of the file and of the stream.
    fn take(&mut self, mut at: u64, mut from: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block =
                usize::try_from(BLOCK - at % BLOCK).map_or(bytes.len(), |n| n.min(bytes.len()));
            let (now, rest) = bytes.split_at(block);
            let len = now.len() as u64;
            if now.iter().all(|byte| *byte == 0) {
                if self.zeros == 0 {
                    self.zeros_at = (at, from);
                }
                self.zeros += len;
            } else {
                let zeros = std::mem::take(&mut self.zeros);
                let short = if zeros < HOLE_MIN { zeros } else { 0 };
                match &mut self.open {
                    Some(open) if short == zeros => open.len += zeros + len,
                    open => {
                        let piece = Piece {
                            offset: at - short,
                            len: short + len,
                            from: from - short,
                        };
                        self.pieces.extend(open.replace(piece));
                    }
                }
            }
            (at, from, bytes) = (at + len, from + len, rest);
        }
    }

    /// Nothing follows that lies beside it in the stream and in the file.
    fn end_piece(&mut self) {
        let zeros = std::mem::take(&mut self.zeros);
        let (offset, from) = self.zeros_at;
        match &mut self.open {
            _ if zeros == 0 || zeros >= HOLE_MIN => {}
            Some(open) => open.len += zeros,
            open => {
                *open = Some(Piece {
                    offset,
                    len: zeros,
                    from,
                });
            }
        }
        self.pieces.extend(self.open.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_whiteouts_say_what_is_hidden() {
        let seen = |name: &str| whiteout(name.as_bytes());
        let hides = |path: &str, what| Name::Hides(path.into(), what);
        assert_eq!(seen("a/.wh.b"), hides("a/b", What::Whiteout));
        assert_eq!(seen(".wh.b"), hides("b", What::Whiteout));
        assert_eq!(seen("a/b/.wh..wh..opq"), hides("a/b", What::Opaque));
        assert_eq!(seen(".wh..wh..opq"), hides("", What::Opaque));
        assert_eq!(seen(".wh..wh.plnk"), Name::Mark);
        for bad in ["a/.wh.", ".wh..", ".wh..."] {
            assert_eq!(seen(bad), Name::Bad, "{bad}");
        }
        for name in ["a", ".wh", "a.wh.b", ".wh.d/x"] {
            assert_eq!(seen(name), Name::Plain, "{name}");
        }
    }

    proptest! {
        /// Whatever the zeros and however it is read, what is left makes the file again, and no long run stays in it.
        #[test]
        fn pieces_make_the_file_again(
            runs in proptest::collection::vec((any::<bool>(), 1_u64..150_000), 0..6),
            start in 0_u64..9000,
            cut in 1_usize..200_000,
        ) {
            let bytes: Vec<u8> = runs.iter().flat_map(|(zero, n)| vec![u8::from(!zero); *n as usize]).collect();
            let mut found = Runs::default();
            let mut at = 0;
            for part in bytes.chunks(cut) {
                found.take(start + at, 7 + at, part);
                at += part.len() as u64;
            }
            found.end_piece();
            let mut again = vec![0; bytes.len()];
            let mut end = 0;
            for piece in &found.pieces {
                prop_assert!(piece.offset >= end && piece.len > 0);
                end = piece.offset + piece.len;
                let from = (piece.from - 7) as usize;
                prop_assert_eq!(piece.from - 7, piece.offset - start);
                again[from..from + piece.len as usize].copy_from_slice(&bytes[from..from + piece.len as usize]);
            }
            prop_assert_eq!(again, bytes);
        }
    }
}
