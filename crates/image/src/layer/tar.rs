//! Reads a tar stream: ustar, GNU and PAX (POSIX.1-2001 pax interchange format; GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files"). The fields of a block are the `tar` crate's; what follows from block to block is read here,
//! because the names and maps a stranger puts there must have limits before they are in memory.

use super::name::shown;
use super::pax::{Layout, Pax, Scope};
use crate::{Error, Result};
use banger_ext4::{Meta, Time, Xattr};
use std::{
    io::{self, Read},
    ops::Range,
};
use tar::{EntryType, Header};

/// Length of a block.
const BLOCK: u64 = 512;
/// The most an extended header or a long name may have.
const EXTENSION_MAX: u64 = 1 << 20;
/// The most digits a number in a map may have.
const DIGITS_MAX: usize = 32;
/// The most pieces a sparse file may have.
const PIECES_MAX: usize = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file; its content is what [`Reader::data`] gives, laid out by `pieces`.
    File,
    /// A directory.
    Directory,
    /// A symlink with this text.
    Symlink(Vec<u8>),
    /// Another name of the entry of this name.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name as it is in the archive.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner and the like.
    pub meta: Meta,
    /// Length of the file.
    pub len: u64,
    /// Where its bytes belong: offset and length, ascending.
    pub pieces: Vec<(u64, u64)>,
}

/// An archive being read.
pub(crate) struct Reader<R> {
    source: R,
    /// Bytes of the current entry that were not read yet, and of its padding.
    left: u64,
    padding: u64,
    /// Bytes read of the source.
    position: u64,
    end: End,
    globals: Pax,
}

/// How an archive ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With its mark, or it was cut.
    Marked,
    /// Also without: its length is proven elsewhere, and there are archivers that leave the mark out.
    Open,
}

/// Is asked whether to go on; with the header, where it is no entry's.
pub(crate) type Seen<'a, R> = &'a mut dyn FnMut(&R, Option<&Header>) -> Result<()>;

/// Names and records that belong to the next entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

/// Whether a header tells of the next entry, or of all that follow.
fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

/// Whether a block is a header: its checksum (the sum of all bytes, its own field taken as blanks) is right.
pub(crate) fn checksum_is_right(block: &[u8]) -> bool {
    let Ok(bytes) = <&[u8; 512]>::try_from(block) else {
        return false;
    };
    let blanks = 8 * u32::from(b' ');
    let field: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let told = Header::from_byte_slice(bytes).cksum();
    told.is_ok_and(|told| told == sum - field + blanks)
}

impl<R: Read> Reader<R> {
    /// Reads from a stream that begins with an archive.
    pub(crate) fn new(source: R, end: End) -> Self {
        Reader {
            source,
            left: 0,
            padding: 0,
            position: 0,
            end,
            globals: Pax::default(),
        }
    }

    /// The stream, to ask it how far it is.
    pub(crate) fn source(&self) -> &R {
        &self.source
    }

    /// How many bytes of the stream lie before what is read next.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; `None` at the archive's end mark. What was not read of the one before is skipped. However much
    /// lies before it, `seen` is asked all along whether to go on: in what is skipped, and for each header that is no
    /// entry, which is given to it.
    ///
    /// # Errors
    /// Cut short, damaged, or refused; what `seen` says.
    pub(crate) fn entry(&mut self, seen: Seen<'_, R>) -> Result<Option<Entry>> {
        let mut extensions = Extensions {
            pax: self.globals.clone(),
            ..Extensions::default()
        };
        loop {
            self.skip_rest(seen)?;
            let Some(block) = self.header_block()? else {
                return Ok(None);
            };
            if !checksum_is_right(&block) {
                return Err(Error::damaged(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a header's checksum is wrong",
                )));
            }
            let header = Header::from_byte_slice(&block);
            let stored = or_blank(header, SIZE, header.entry_size()).map_err(Error::damaged)?;
            let kind = header.entry_type();
            let is_label = kind.as_byte() == b'V';
            if !(is_label || is_extension(kind)) {
                return self.described(header, stored, extensions).map(Some);
            }
            seen(&self.source, Some(header))?;
            match kind {
                EntryType::GNULongName => extensions.name = Some(self.long(stored)?),
                EntryType::GNULongLink => extensions.link = Some(self.long(stored)?),
                EntryType::XHeader => {
                    let records = self.extension(stored)?;
                    extensions.pax.take(&records, Scope::Entry)?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extension(stored)?;
                    self.globals.take(&records, Scope::Global)?;
                    if let Some(why) = self.globals.excess {
                        return Err(Error::refused(&header.path_bytes(), why));
                    }
                    extensions.pax.take(&records, Scope::Entry)?;
                }
                // A volume's label.
                _ => self.expect(stored),
            }
        }
    }

    /// Reads of the current entry's content; 0 at its end.
    ///
    /// # Errors
    /// Cut short or damaged.
    pub(crate) fn data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        let n = retry(|| self.source.read(&mut buffer[..want])).map_err(Error::damaged)?;
        if n == 0 {
            return Err(Error::Truncated);
        }
        self.left -= n as u64;
        self.position += n as u64;
        Ok(n)
    }

    /// Reads what is behind the end mark, so that what packs the archive is seen to be whole.
    ///
    /// # Errors
    /// Damaged.
    pub(crate) fn finish_stream(&mut self, mut seen: impl FnMut(&R) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while retry(|| self.source.read(&mut buffer)).map_err(Error::damaged)? != 0 {
            seen(&self.source)?;
        }
        Ok(())
    }

    fn described(&mut self, header: &Header, stored: u64, extensions: Extensions) -> Result<Entry> {
        let Extensions { name, link, pax } = extensions;
        let name = pax
            .name()
            .or(name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let refuse = |why: &str| Error::refused(&name, why);
        if let Some(why) = pax.excess {
            return Err(refuse(why));
        }
        let link = pax
            .link
            .clone()
            .or(link)
            .or_else(|| header.link_name_bytes().map(|text| text.into_owned()))
            .unwrap_or_default();
        let stored = match header.entry_type() {
            // Content of these is nobody's: what writes a length here writes no bytes behind it.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => 0,
            _ => pax.size.unwrap_or(stored),
        };
        let number = |field: io::Result<u32>| {
            field.map_err(|_| refuse("a number in its header cannot be read"))
        };
        let device = || -> Result<(u32, u32)> {
            let none = Err(io::ErrorKind::InvalidData.into());
            let major = header.device_major().and_then(|n| n.map_or(none, Ok));
            let none = Err(io::ErrorKind::InvalidData.into());
            let minor = header.device_minor().and_then(|n| n.map_or(none, Ok));
            Ok((number(major)?, number(minor)?))
        };
        let mut sparse = None;
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::GNUSparse => {
                sparse = Some(self.old_sparse(header, &name)?);
                Kind::File
            }
            // GNU tar's incremental form lists a directory's names as its content.
            EntryType::Directory => Kind::Directory,
            other if other.as_byte() == b'D' => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::HardLink(link),
            EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let kind = shown(&[other.as_byte()]);
                return Err(refuse(&format!("it is of the unknown kind '{kind}'")));
            }
        };
        let id = |told: Option<u64>, field: io::Result<u64>| {
            let id = told.map_or(field, Ok).map_err(|_| ());
            let id = id.and_then(|id| u32::try_from(id).map_err(|_| ()));
            id.map_err(|()| refuse("its owner is no user id"))
        };
        let (seconds, nanos) = pax
            .mtime
            .unwrap_or_else(|| (header.mtime().map_or(0, i64_of), 0));
        let mode = number(or_blank(header, MODE, header.mode()))? & 0o7777;
        let meta = Meta {
            mode: mode as u16, // 12 bits
            uid: id(pax.uid, or_blank(header, UID, header.uid()))?,
            gid: id(pax.gid, or_blank(header, GID, header.gid()))?,
            mtime: Time { seconds, nanos },
            xattrs: pax.xattrs.iter().map(xattr).collect(),
        };
        self.expect(stored);
        let (len, pieces) = match sparse {
            Some(map) => map,
            None if kind == Kind::File => match pax.sparse(&name)? {
                Some(map) => map,
                None if pax.map_in_data() => self.map_in_data(&pax, &name)?,
                None => (stored, vec![(0, stored)]),
            },
            None => (0, Vec::new()),
        };
        check_map(&name, len, &pieces, self.left, kind == Kind::File)?;
        Ok(Entry {
            name,
            kind,
            meta,
            len,
            pieces,
        })
    }

    /// The map of GNU's own sparse form: in the header, and in blocks behind it.
    fn old_sparse(&mut self, header: &Header, name: &[u8]) -> Result<Layout> {
        let bad = || Error::refused(name, "its map of holes cannot be read");
        let gnu = header.as_gnu().ok_or_else(bad)?;
        let len = gnu.real_size().map_err(|_| bad())?;
        let mut pieces = Vec::new();
        let mut add = |piece: &tar::GnuSparseHeader| -> Result<()> {
            if !piece.is_empty() {
                let offset = piece.offset().map_err(|_| bad())?;
                pieces.push((offset, piece.length().map_err(|_| bad())?));
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            let mut next = tar::GnuExtSparseHeader::new();
            next.as_mut_bytes().copy_from_slice(&self.block()?);
            next.sparse().iter().try_for_each(&mut add)?;
            more = next.is_extended();
            blocks += 1;
            if blocks * 21 > PIECES_MAX {
                return Err(bad());
            }
        }
        Ok((len, pieces))
    }

    /// The map of PAX sparse form 1.0: decimal lines at the beginning of the content, padded to a block.
    fn map_in_data(&mut self, pax: &Pax, name: &[u8]) -> Result<Layout> {
        let bad = || Error::refused(name, "its map of holes cannot be read");
        let len = pax.real_size().ok_or_else(bad)?;
        let mut block = [0; BLOCK as usize];
        let mut at = block.len();
        let mut number = |reader: &mut Self| -> Result<u64> {
            let mut value: Option<u64> = None;
            // Zeros before a number are none of it, and may not go on for ever.
            for _ in 0..=DIGITS_MAX {
                if at == block.len() {
                    let mut filled = 0;
                    while filled < block.len() {
                        match reader.data(&mut block[filled..])? {
                            0 => return Err(bad()),
                            n => filled += n,
                        }
                    }
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let next = value.unwrap_or(0).checked_mul(10);
                        value = next.and_then(|v| v.checked_add(digit));
                        value.ok_or_else(bad)?;
                    }
                    b'\n' => return value.ok_or_else(bad),
                    _ => return Err(bad()),
                }
            }
            Err(bad())
        };
        let count = usize::try_from(number(self)?).unwrap_or(usize::MAX);
        if count > PIECES_MAX {
            return Err(bad());
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((number(self)?, number(self)?));
        }
        Ok((len, pieces))
    }

    fn long(&mut self, stored: u64) -> Result<Vec<u8>> {
        let mut text = self.extension(stored)?;
        // It ends with a NUL; what is behind that is nothing.
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    fn extension(&mut self, stored: u64) -> Result<Vec<u8>> {
        if stored > EXTENSION_MAX {
            return Err(Error::damaged(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an extended header has {stored} bytes; at most {EXTENSION_MAX} are read"),
            )));
        }
        self.expect(stored);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.data(&mut buffer)? {
                0 => return Ok(bytes),
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
    }

    fn expect(&mut self, stored: u64) {
        self.left = stored;
        self.padding = (BLOCK - stored % BLOCK) % BLOCK;
    }

    fn skip_rest(&mut self, seen: Seen<'_, R>) -> Result<()> {
        let padding = std::mem::take(&mut self.padding);
        let mut buffer = [0; 4096];
        while self.data(&mut buffer)? != 0 {
            seen(&self.source, None)?;
        }
        self.left = padding;
        while self.left > 0 {
            match self.data(&mut buffer) {
                // `umoci insert` ends with the last file's last byte.
                Err(Error::Truncated) if self.end == End::Open => self.left = 0,
                other => other.map(drop)?,
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        self.source.read_exact(&mut block).map_err(Error::damaged)?;
        self.position += BLOCK;
        Ok(block)
    }

    /// The block of the next header; `None` where the archive ends.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        let first = retry(|| self.source.read(&mut block)).map_err(Error::damaged)?;
        match (first, self.end) {
            (0, End::Open) => return Ok(None),
            (0, End::Marked) => return Err(Error::Truncated),
            _ => {}
        }
        let rest = self.source.read_exact(&mut block[first..]);
        rest.map_err(Error::damaged)?;
        self.position += BLOCK;
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }
}

fn xattr((name, value): &(Vec<u8>, Vec<u8>)) -> Xattr {
    Xattr {
        name: name.clone().into(),
        value: value.clone().into(),
    }
}

/// Pieces ascend, lie inside the file, and are as long together as what is stored.
fn check_map(
    name: &[u8],
    len: u64,
    pieces: &[(u64, u64)],
    stored: u64,
    is_file: bool,
) -> Result<()> {
    if !is_file {
        return Ok(());
    }
    let bad = || Error::refused(name, "its map of holes does not fit its content");
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in pieces {
        if *offset < end {
            return Err(bad());
        }
        end = offset.checked_add(*length).ok_or_else(bad)?;
        sum = sum.checked_add(*length).ok_or_else(bad)?;
    }
    if end > len || sum > stored {
        return Err(bad());
    }
    Ok(())
}

/// Where the numbers of a header are.
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;

/// A number; one that was left out is 0, as every reader of archives has it.
fn or_blank<N: Default>(
    header: &Header,
    field: Range<usize>,
    read: io::Result<N>,
) -> io::Result<N> {
    let blank = |byte: &u8| matches!(byte, 0 | b' ');
    match header.as_bytes()[field].iter().all(blank) {
        true => Ok(N::default()),
        false => read,
    }
}

fn i64_of(seconds: u64) -> i64 {
    // A negative time in base 256 comes as its two's complement.
    seconds.cast_signed()
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An archive with everything that is read from block to block.
    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        let long = "long/".repeat(40);
        header.set_size(700);
        builder
            .append_data(&mut header, &long, &[7; 700][..])
            .unwrap();
        let records = b"19 path=by/records\n26 GNU.sparse.map=0,1,9,2\n19 GNU.sparse.size=20\n";
        // The lengths above are not all right: a reader must live with that, too.
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(records.len() as u64);
        header.set_cksum();
        builder.append(&header, &records[..]).unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(3);
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    /// Reads everything; whatever it is, this ends, without a panic, and gives no more than there is.
    fn read(bytes: &[u8]) -> (usize, usize) {
        let mut reader = Reader::new(bytes, End::Marked);
        let (mut entries, mut data) = (0, 0);
        while let Ok(Some(entry)) = reader.entry(&mut |_, _| Ok(())) {
            entries += 1;
            let pieces: u64 = entry.pieces.iter().map(|(_, length)| length).sum();
            assert!(entry.kind != Kind::File || pieces <= reader.left);
            let mut buffer = [0; 100];
            while let Ok(n @ 1..) = reader.data(&mut buffer) {
                data += n;
            }
        }
        (entries, data)
    }

    #[test]
    fn a_whole_archive_is_read() {
        assert_eq!(read(&archive()).1, 700);
    }

    /// Where its length is proven elsewhere, an archive may end with a file's last byte, and nowhere before.
    #[test]
    fn a_layer_may_lack_what_only_fills_its_last_block() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(700);
        builder
            .append_data(&mut header, "file", &[7; 700][..])
            .unwrap();
        let whole = builder.into_inner().unwrap();
        let ends = |len: usize, end| {
            let mut reader = Reader::new(&whole[..len], end);
            reader.entry(&mut |_, _| Ok(())).unwrap().unwrap();
            matches!(reader.entry(&mut |_, _| Ok(())), Ok(None))
        };
        for (len, open) in [(512 + 699, false), (512 + 700, true), (512 + 701, true)] {
            assert_eq!(ends(len, End::Open), open, "{len}");
            assert!(!ends(len, End::Marked), "{len}");
        }
        assert!(ends(whole.len(), End::Marked));
    }

    proptest! {
        #[test]
        fn no_change_of_bytes_makes_it_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
            mend in any::<bool>(),
        ) {
            let mut bytes = archive();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if mend {
                // Most changes would stop at the checksum: make it right again in every block.
                for block in bytes.chunks_exact_mut(512).filter(|block| block[156] != 0) {
                    let mut header = Header::from_byte_slice(block).clone();
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let (entries, data) = read(&bytes);
            prop_assert!(entries * 512 <= bytes.len() && data <= bytes.len());
        }
    }
}
