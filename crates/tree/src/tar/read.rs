//! Entries as they are read.

use std::io::{self, BufRead};

use super::fields::{self, Block};
use super::pax::Pax;
use super::sparse::{self, MapText, OldMap};
use super::{BLOCK, Entry, Kind, MAX_EXTENSION, Time, write::padding};
use crate::Error;

/// Reads the entries of a stream, one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Data of the current entry that was not read.
    left: u64,
    /// Padding behind it.
    padding: u64,
    global: Pax,
    began: bool,
}

/// What extensions say about the entry behind them.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from a stream.
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            global: Pax::default(),
            began: false,
        }
    }

    /// The next entry, past what was not read of the one before; `None` at the end of the archive.
    ///
    /// # Errors
    /// The stream ends or breaks, or is no tar.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            let rest = self.left + self.padding;
            self.skip(rest)?;
            (self.left, self.padding) = (0, 0);
            let mut block: Block = [0; BLOCK];
            self.fill(&mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.check(&block)?;
            let size = fields::number(fields::field(&block, fields::SIZE))
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| damaged("a size"))?;
            match block[fields::TYPE] {
                b'x' => {
                    let records = self.extension(size)?;
                    let mut pax = self.global.clone();
                    pax.read(&records).ok_or_else(|| damaged("a pax header"))?;
                    extensions.pax = Some(pax);
                }
                b'g' => {
                    let records = self.extension(size)?;
                    let read = self.global.read(&records);
                    read.ok_or_else(|| damaged("a pax header"))?;
                }
                b'L' => extensions.name = Some(self.long_name(size)?),
                b'K' => extensions.link = Some(self.long_name(size)?),
                _ => return self.entry(&block, size, extensions).map(Some),
            }
        }
    }

    /// Data of the current entry, at most so much; empty when there is no more. [`Self::consume`] takes it.
    ///
    /// # Errors
    /// The stream ends or breaks.
    pub fn data(&mut self, most: u64) -> Result<&[u8], Error> {
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(&[]);
        }
        let data = filled(&mut self.input)?;
        Ok(&data[..data.len().min(most)])
    }

    /// Takes data that [`Self::data`] has shown.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
    }

    /// Reads what follows the archive's end, so that the stream's own end is reached.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn finish(mut self) -> Result<(), Error> {
        loop {
            match self.input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(rest) => {
                    let count = rest.len();
                    self.input.consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
    }

    fn check(&mut self, block: &Block) -> Result<(), Error> {
        let sum = fields::number(fields::field(block, fields::CHECKSUM));
        let (unsigned, signed) = fields::sums(block);
        if sum == Some(unsigned) || sum == Some(signed) {
            self.began = true;
            return Ok(());
        }
        Err(if self.began {
            damaged("a header")
        } else if block.starts_with(&[0x1f, 0x8b]) || block.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Error::stream("the tar stream is compressed; unpack it first (gzip -dc, zstd -dc)")
        } else {
            Error::stream("this is no tar stream")
        })
    }

    fn entry(&mut self, block: &Block, size: u64, more: Extensions) -> Result<Entry, Error> {
        let kind = block[fields::TYPE];
        let pax = more.pax.unwrap_or_else(|| self.global.clone());
        let path = pax.name().or(more.name).unwrap_or_else(|| name(block));
        let link = || {
            let field = fields::text(fields::field(block, fields::LINK)).to_owned();
            pax.link.clone().or(more.link.clone()).unwrap_or(field)
        };
        let size = pax.size.unwrap_or(size);
        let kind = match kind {
            b'0' | b'\0' | b'7' if path.ends_with(b"/") => {
                self.begin_data(size)?;
                Kind::Directory
            }
            b'0' | b'\0' | b'7' => {
                self.begin_data(size)?;
                self.file(size, &pax)?
            }
            b'S' => self.old_sparse(block, size)?,
            b'1' => Kind::HardLink { target: link() },
            b'2' => Kind::Symlink { target: link() },
            // A size here is room to set aside, or nothing: no data follows.
            b'5' => Kind::Directory,
            b'D' => {
                self.begin_data(size)?;
                Kind::Directory
            }
            b'3' => Kind::Other {
                name: "character device",
            },
            b'4' => Kind::Other {
                name: "block device",
            },
            b'6' => Kind::Other { name: "fifo" },
            _ => {
                self.begin_data(size)?;
                Kind::Other {
                    name: "entry of an unknown kind",
                }
            }
        };
        let number = |at| fields::number(fields::field(block, at));
        let id = |at| number(at).and_then(|id| u64::try_from(id).ok());
        Ok(Entry {
            path,
            kind,
            mode: number(fields::MODE).map_or(0, |mode| (mode & 0o7777) as u32),
            uid: pax.uid.or_else(|| id(fields::UID)).unwrap_or(0),
            gid: pax.gid.or_else(|| id(fields::GID)).unwrap_or(0),
            mtime: pax.mtime.unwrap_or_else(|| Time {
                seconds: number(fields::MTIME).unwrap_or(0),
                nanoseconds: 0,
            }),
        })
    }

    fn begin_data(&mut self, size: u64) -> Result<(), Error> {
        // No file is longer, and padding still fits.
        if i64::try_from(size).is_err() {
            return Err(damaged("a size"));
        }
        (self.left, self.padding) = (size, padding(size) as u64);
        Ok(())
    }

    fn file(&mut self, size: u64, pax: &Pax) -> Result<Kind, Error> {
        let real_size = pax.real_size.unwrap_or(size);
        let map = if pax.map_in_data {
            Some(self.map_text()?)
        } else {
            pax.map.clone()
        };
        let Some(map) = map else {
            return Ok(Kind::File { size, data: None });
        };
        sparse_file(map, real_size, self.left)
    }

    fn map_text(&mut self) -> Result<Vec<super::Extent>, Error> {
        let mut text = MapText::default();
        loop {
            let mut block: Block = [0; BLOCK];
            if self.left < BLOCK as u64 {
                return Err(damaged("the map of a sparse file"));
            }
            self.fill(&mut block)?;
            self.left -= BLOCK as u64;
            match text.take(&block) {
                Some(Some(map)) => return Ok(map),
                Some(None) => {}
                None => return Err(damaged("the map of a sparse file")),
            }
        }
    }

    fn old_sparse(&mut self, header: &Block, size: u64) -> Result<Kind, Error> {
        let bad = || damaged("the map of a sparse file");
        let mut map = OldMap::of(header).ok_or_else(bad)?;
        while map.more {
            let mut block: Block = [0; BLOCK];
            self.fill(&mut block)?;
            map.go_on(&block).ok_or_else(bad)?;
        }
        self.begin_data(size)?;
        sparse_file(map.extents, map.real_size, size)
    }

    /// GNU's long names end with a zero byte.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        self.extension(size)
            .map(|name| fields::text(&name).to_owned())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(Error::stream(
                "a header of the tar stream is longer than 1 MiB",
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.fill(&mut bytes)?;
        self.skip(padding(size) as u64)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut at = 0;
        while at < buffer.len() {
            let data = filled(&mut self.input)?;
            let count = data.len().min(buffer.len() - at);
            buffer[at..at + count].copy_from_slice(&data[..count]);
            self.input.consume(count);
            at += count;
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Error> {
        while count > 0 {
            let length = filled(&mut self.input)?.len();
            let taken = usize::try_from(count).unwrap_or(usize::MAX).min(length);
            self.input.consume(taken);
            count -= taken as u64;
        }
        Ok(())
    }
}

fn sparse_file(map: Vec<super::Extent>, size: u64, data: u64) -> Result<Kind, Error> {
    if !sparse::is_sound(&map, size, data) {
        return Err(damaged("the map of a sparse file"));
    }
    Ok(Kind::File {
        size,
        data: Some(map),
    })
}

/// The name in the header; POSIX has the directory's part of a long one apart.
fn name(block: &Block) -> Vec<u8> {
    let name = fields::text(fields::field(block, fields::NAME));
    let prefix = fields::text(fields::field(block, fields::PREFIX));
    if prefix.is_empty() || fields::field(block, fields::MAGIC)[..6] != fields::USTAR[..6] {
        return name.to_owned();
    }
    [prefix, b"/", name].concat()
}

/// What can be read now, and there is something.
fn filled<R: BufRead>(input: &mut R) -> Result<&[u8], Error> {
    // Asked twice, for the borrow of the first answer would last too long.
    loop {
        match input.fill_buf() {
            Ok([]) => return Err(Error::stream("the tar stream ends before its archive does")),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    input.fill_buf().map_err(unreadable)
}

fn unreadable(error: io::Error) -> Error {
    Error::stream("cannot read the tar stream").because(error)
}

fn damaged(what: &str) -> Error {
    Error::stream(&format!("the tar stream is damaged: {what} cannot be read"))
}
