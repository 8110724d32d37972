//! What a stream of bytes is, told by its beginning and never by a file's name, and how it is unpacked.

use crate::{Error, Result};
use banger_model::ByteSize;
use std::{
    cell::Cell,
    io::{self, BufReader, Read},
    rc::Rc,
};

/// Enough of a beginning to tell everything apart: ext4's mark lies at 1080.
const HEAD: usize = 2048;

/// Memory that xz may take: a dictionary of 128 MiB and what goes with it.
const XZ_KIB: u32 = (128 << 10) + 1024;

/// Bytes that may be read without one coming of it. Skippable frames, empty members and padding are legal and could go
/// on for ever inside one read, where nobody looks at limits; the longest that is meant is a list of all files of a
/// layer in a skippable frame (zstd:chunked).
const BARREN_MAX: u64 = 128 << 20;

/// What is in a stream when it is unpacked.
pub(crate) enum Content<'a> {
    /// A tar archive.
    Tar(Unpacked<'a>),
    /// An ext2, ext3 or ext4 file system.
    Ext4(Unpacked<'a>),
}

/// A stream without its packing, which knows how far it has got.
pub(crate) struct Unpacked<'a> {
    reader: Box<dyn Read + 'a>,
    packing: Packing,
    packed: Rc<Cell<u64>>,
    barren: Rc<Cell<u64>>,
    unpacked: u64,
}

impl<'a> Unpacked<'a> {
    /// Whether its bytes are those of the source.
    pub(crate) fn is_plain(&self) -> bool {
        self.packing == Packing::Plain
    }

    /// The same stream read through something.
    pub(crate) fn through<R: Read + 'a>(self, make: impl FnOnce(Box<dyn Read + 'a>) -> R) -> Self {
        Unpacked {
            reader: Box::new(make(self.reader)),
            ..self
        }
    }

    /// Bytes read before unpacking, and after.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.packed.get(), self.unpacked)
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.unpacked += n as u64;
        self.barren.set(0);
        Ok(n)
    }
}

/// Counts what passes, all of it and since something came of it.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
    barren: Rc<Cell<u64>>,
    barren_max: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.barren.get() > self.barren_max {
            let why = format!(
                "more than {} of it unpack to nothing",
                ByteSize(self.barren_max)
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        self.barren.set(self.barren.get() + n as u64);
        Ok(n)
    }
}

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

/// Tells what the stream is.
///
/// # Errors
/// Neither a tar nor a file system, or it cannot be read.
pub(crate) fn open<'a>(source: &'a mut dyn Read) -> Result<Content<'a>> {
    open_within(source, BARREN_MAX)
}

fn open_within<'a>(source: &'a mut dyn Read, barren_max: u64) -> Result<Content<'a>> {
    let (count, barren) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut source = Counted {
        inner: source,
        count: Rc::clone(&count),
        barren: Rc::clone(&barren),
        barren_max,
    };
    let head = beginning(&mut source).map_err(|e| unreadable(Packing::Plain, e))?;
    if head.is_empty() {
        return Err(Error::NotAnImage("it is empty".to_owned()));
    }
    let packing = packing(&head);
    let whole = BufReader::with_capacity(256 << 10, io::Cursor::new(head).chain(source));
    let mut reader: Box<dyn Read + 'a> = match packing {
        Packing::Plain => Box::new(whole),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        // Both refuse to remember more than 128 MiB: zstd by itself.
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_KIB)),
        Packing::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(whole).map_err(|e| unreadable(packing, e))?,
        ),
    };
    let head = beginning(&mut reader).map_err(|e| unreadable(packing, e))?;
    let is_tar = is_tar(&head);
    let is_ext4 = is_ext4(&head);
    if !is_tar && !is_ext4 {
        return Err(Error::NotAnImage(what(&head, packing)));
    }
    let unpacked = Unpacked {
        reader: Box::new(io::Cursor::new(head).chain(reader)),
        packing,
        packed: count,
        barren,
        unpacked: 0,
    };
    Ok(if is_tar {
        Content::Tar(unpacked)
    } else {
        Content::Ext4(unpacked)
    })
}

fn unreadable(packing: Packing, source: io::Error) -> Error {
    match packing {
        Packing::Plain => Error::Source(source),
        _ => Error::damaged(source),
    }
}

fn beginning(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    source.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        // A zstd stream may begin with a skippable frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

/// A first block whose checksum is right, or the two empty ones that are a whole archive.
fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else {
        return false;
    };
    super::tar::checksum_is_right(block)
        || (head.len() >= 1024 && head[..1024].iter().all(|byte| *byte == 0) && !is_ext4(head))
}

/// `s_magic` of the superblock at 1024 (Documentation/filesystems/ext4/super.rst).
fn is_ext4(head: &[u8]) -> bool {
    head.get(1080..1082) == Some(&[0x53, 0xef])
}

/// A word for what it is instead.
fn what(head: &[u8], packing: Packing) -> String {
    let packed = match packing {
        Packing::Plain => "",
        Packing::Gzip => ", packed with gzip",
        Packing::Xz => ", packed with xz",
        Packing::Zstd => ", packed with zstd",
    };
    let seen = match head {
        [] => "nothing",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [b'B', b'Z', b'h', ..] => "something packed with bzip2",
        [4, 0x22, 0x4d, 0x18, ..] => "something packed with lz4",
        [b'h', b's', b'q', b's', ..] => "a squashfs file system",
        [b'Q', b'F', b'I', 0xfb, ..] => "a qcow2 disk",
        [b'0', b'7', b'0', b'7', b'0', ..] => "a cpio archive",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "an ar archive",
        _ if head.get(510..512) == Some(&[0x55, 0xaa]) => "a disk with a partition table",
        _ if head.get(1024..1028) == Some(&[0xe2, 0xe1, 0xf5, 0xe0]) => "an erofs file system",
        _ => "something else",
    };
    format!("it is {seen}{packed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tar() -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        builder
            .append_data(&mut header, "hello", &b"abc"[..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    fn read(mut bytes: &[u8]) -> Result<Vec<u8>> {
        let Content::Tar(mut tar) = open(&mut bytes)? else {
            panic!("not seen as a tar");
        };
        let mut out = Vec::new();
        tar.read_to_end(&mut out).map_err(Error::damaged)?;
        assert_eq!(tar.counts().1, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn a_tar_is_a_tar_however_it_is_packed() {
        let tar = tar();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut xz =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&tar).unwrap();
        let packed = [
            tar.clone(),
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::bulk::compress(&tar, 1).unwrap(),
        ];
        for (n, bytes) in packed.iter().enumerate() {
            assert_eq!(read(bytes).unwrap(), tar, "packing {n}");
            assert!(
                read(&bytes[..bytes.len() / 2]).is_err() || n == 0,
                "cut {n}"
            );
        }
    }

    /// What begins an archive, and what packs nothing again and again.
    struct Barren {
        whole: Vec<u8>,
        nothing: Vec<u8>,
        at: usize,
        times: usize,
    }

    impl Read for Barren {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.at == self.whole.len() && self.times > 0 {
                self.times -= 1;
                self.whole.clone_from(&self.nothing);
                self.at = 0;
            }
            let n = (&self.whole[self.at..]).read(buffer)?;
            self.at += n;
            Ok(n)
        }
    }

    /// Where nothing comes of what is read, a read would not come back.
    #[test]
    fn what_unpacks_to_nothing_has_an_end() {
        let tar = tar();
        let gzip = |bytes: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).unwrap();
            gzip.finish().unwrap()
        };
        let xz = |bytes: &[u8]| {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            xz.write_all(bytes).unwrap();
            xz.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0x10, 0, 0][..], &[0; 4096]].concat();
        for (what, whole, nothing) in [
            ("gzip", gzip(&tar), gzip(b"")),
            ("xz", xz(&tar), xz(b"")),
            ("xz padding", xz(&tar), vec![0; 4096]),
            ("zstd", zstd(&tar), zstd(b"")),
            ("zstd skippable", zstd(&tar), skippable),
        ] {
            // In front of what there is as well: it is looked for.
            for before in [false, true] {
                if before && what == "xz padding" {
                    continue; // that is no xz
                }
                for (times, ends) in [(3, true), (1_000_000, false)] {
                    let mut source = Barren {
                        whole: if before {
                            nothing.clone()
                        } else {
                            whole.clone()
                        },
                        nothing: nothing.clone(),
                        at: 0,
                        times,
                    };
                    let mut end = &whole[..if before { whole.len() } else { 0 }];
                    let mut source = Read::by_ref(&mut source).chain(&mut end);
                    let read = open_within(&mut source, 600 << 10).and_then(|content| {
                        let Content::Tar(mut tar) = content else {
                            panic!("not seen as a tar");
                        };
                        let mut out = Vec::new();
                        tar.read_to_end(&mut out).map_err(Error::damaged)?;
                        Ok(out)
                    });
                    match read {
                        Ok(out) => assert!(ends && out == tar, "{what}, before: {before}"),
                        Err(error) => {
                            let cause = std::error::Error::source(&error).unwrap().to_string();
                            assert!(!ends && cause.contains("nothing"), "{what}: {cause}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04....", "zip"),
            (b"BZh91AY", "bzip2"),
            (b"#!/bin/sh\n", "something else"),
            (&[0; 100], "something else"),
        ] {
            let mut source = bytes;
            match open(&mut source) {
                Err(Error::NotAnImage(why)) => assert!(why.contains(word), "{why}"),
                _ => panic!("{word} was taken for an image"),
            }
        }
    }
}
