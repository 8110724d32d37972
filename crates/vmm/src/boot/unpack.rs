//! Decompression of what kernels, modules and packages are packed with.
//!
//! Every format is recognised by its magic number, never by a file's name, and every call has a cap: the bytes come
//! from outside and a few kilobytes can unfold into terabytes.

use std::io::{self, Read};

use thiserror::Error;

/// Formats that Linux kernels, modules and Debian packages are packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// The xz file format 1.2, x86 branch filter included.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The block stream that the `lz4 -l` command writes and kernel builds use: magic, then (size, block) pairs.
    Lz4Blocks,
}

impl Packing {
    /// Recognises the format from the first bytes; `None` for anything else.
    pub fn of(bytes: &[u8]) -> Option<Packing> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Some(Packing::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Packing::Lz4Blocks),
            _ => None,
        }
    }

    /// The name users know.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Xz => "xz",
            Packing::Zstd => "zstd",
            Packing::Lz4Blocks => "lz4",
        }
    }
}

/// Why packed bytes did not unfold.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The decoder refused the bytes.
    #[error("the {} data is damaged", .packing.name())]
    Damaged {
        /// What the data claims to be.
        packing: Packing,
        /// What the decoder said.
        #[source]
        source: std::io::Error,
    },
    /// More bytes than the caller is ready to hold.
    #[error("the {} data unfolds to more than {cap} bytes", .packing.name())]
    TooLarge {
        /// What the data claims to be.
        packing: Packing,
        /// Bytes allowed.
        cap: usize,
    },
}

/// Whether whoever wants the result has changed their mind; asked often.
pub type Cancelled<'a> = dyn Fn() -> bool + 'a;

/// A reader that fails once it is cancelled.
pub(super) struct Cancellable<'a, R> {
    pub(super) inner: R,
    pub(super) cancelled: &'a Cancelled<'a>,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.cancelled)() {
            return Err(io::Error::other("it was cancelled"));
        }
        // In pieces: what fills a large buffer may take long.
        let end = buffer.len().min(PIECE);
        self.inner.read(&mut buffer[..end])
    }
}

/// Bytes between two questions whether it is cancelled.
const PIECE: usize = 1 << 20;

/// What xz data may ask for to be unfolded; the kernel's build takes a window of 128 MiB.
const XZ_MEMORY_KIB: u32 = 512 << 10;

/// A reader that unfolds what another one gives, as it is read, for data too large to hold.
///
/// # Errors
/// When the decoder cannot be set up.
pub fn reader<'a>(
    packing: Packing,
    packed: impl io::BufRead + 'a,
) -> Result<Box<dyn Read + 'a>, UnpackError> {
    Ok(match packing {
        Packing::Gzip => Box::new(flate2::bufread::GzDecoder::new(packed)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            packed,
            true,
            XZ_MEMORY_KIB,
        )),
        Packing::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(packed)
                .map_err(|source| UnpackError::Damaged { packing, source })?,
        ),
        Packing::Lz4Blocks => Box::new(Lz4Reader::new(packed)),
    })
}

/// Unfolds `bytes` up to `cap` bytes. Anything after the packed stream is ignored (kernels append their size).
pub fn unpack(packing: Packing, bytes: &[u8], cap: usize) -> Result<Vec<u8>, UnpackError> {
    unpack_unless(packing, bytes, cap, &|| false)
}

/// As [`unpack`], of data that takes a while to unfold; cancelled, it is damaged.
pub fn unpack_unless(
    packing: Packing,
    bytes: &[u8],
    cap: usize,
    cancelled: &Cancelled<'_>,
) -> Result<Vec<u8>, UnpackError> {
    let damaged = |source| UnpackError::Damaged { packing, source };
    let capped = |inner: &mut dyn Read| capped(Cancellable { inner, cancelled }, packing, cap);
    match packing {
        Packing::Lz4Blocks => capped(&mut Lz4Reader::new(bytes)),
        Packing::Gzip => capped(&mut flate2::bufread::GzDecoder::new(bytes)),
        Packing::Xz => {
            let one = lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY_KIB);
            capped(&mut { one })
        }
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
            capped(&mut decoder.single_frame())
        }
    }
}

fn capped(reader: impl Read, packing: Packing, cap: usize) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    let limit = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|source| UnpackError::Damaged { packing, source })?;
    if out.len() > cap {
        return Err(UnpackError::TooLarge { packing, cap });
    }
    Ok(out)
}

/// The largest block of the format (the encoder's fixed 8 MiB), and the most that it packs one to.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_PACKED: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;

/// Unfolds the block stream, holding one block at a time.
struct Lz4Reader<R> {
    inner: R,
    began: bool,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// What of the block was not read yet.
    left: std::ops::Range<usize>,
}

impl<R: Read> Lz4Reader<R> {
    fn new(inner: R) -> Self {
        Lz4Reader {
            inner,
            began: false,
            packed: Vec::new(),
            block: Vec::new(),
            left: 0..0,
        }
    }

    /// So many bytes, or those that are left.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        self.packed.clear();
        let mut some = (&mut self.inner).take(len as u64);
        some.read_to_end(&mut self.packed).map(drop)
    }

    /// Unfolds the next block; `false` behind the last one.
    fn next_block(&mut self) -> io::Result<bool> {
        let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        self.fill(4)?;
        let Ok(size) = <[u8; 4]>::try_from(&self.packed[..]) else {
            return Ok(false);
        };
        let size = u32::from_le_bytes(size) as usize;
        self.fill(size.min(LZ4_PACKED))?;
        // What follows the last block is the kernel's size trailer, alone: no block can follow it.
        if self.packed.is_empty() {
            return Ok(false);
        }
        if self.packed.len() < size {
            let left = self.packed.len();
            return Err(damaged(format!(
                "a block of {size} bytes is announced, {left} are left or allowed"
            )));
        }
        self.block.resize(LZ4_BLOCK, 0);
        let n = lz4_flex::block::decompress_into(&self.packed, &mut self.block)
            .map_err(|e| damaged(e.to_string()))?;
        self.left = 0..n;
        Ok(true)
    }
}

impl<R: Read> Read for Lz4Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.began {
            self.fill(4)?;
            self.began = true;
        }
        while self.left.is_empty() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.left.len());
        buffer[..n].copy_from_slice(&self.block[self.left.start..][..n]);
        self.left.start += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4(data: &[u8]) -> Vec<u8> {
        let mut out = vec![0x02, 0x21, 0x4c, 0x18];
        for chunk in data.chunks(LZ4_BLOCK) {
            let packed = lz4_flex::block::compress(chunk);
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend(packed);
        }
        out
    }

    #[test]
    fn lz4_blocks_unfold_with_and_without_the_size_trailer() {
        let data: Vec<u8> = (0..9_000_000u32).map(|i| (i / 700) as u8).collect();
        let mut packed = lz4(&data);
        assert_eq!(unpack(Packing::Lz4Blocks, &packed, 1 << 30).unwrap(), data);
        packed.extend((data.len() as u32).to_le_bytes());
        assert_eq!(unpack(Packing::Lz4Blocks, &packed, 1 << 30).unwrap(), data);
    }

    #[test]
    fn a_cut_block_is_damage_and_a_bomb_is_too_large() {
        let packed = lz4(&vec![7u8; 3_000_000]);
        let cut = &packed[..packed.len() - 5];
        assert!(matches!(
            unpack(Packing::Lz4Blocks, cut, 1 << 30),
            Err(UnpackError::Damaged { .. })
        ));
        assert!(matches!(
            unpack(Packing::Lz4Blocks, &packed, 1000),
            Err(UnpackError::TooLarge { cap: 1000, .. })
        ));
        let zst = zstd::bulk::compress(&vec![7u8; 3_000_000], 1).unwrap();
        assert!(matches!(
            unpack(Packing::Zstd, &zst, 1000),
            Err(UnpackError::TooLarge { .. })
        ));
    }

    #[test]
    fn unfolding_ends_when_it_is_cancelled() {
        let data = vec![7u8; 9 << 20];
        let asked = std::cell::Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) >= 3;
        let zst = zstd::bulk::compress(&data, 1).unwrap();
        for (packing, packed) in [(Packing::Lz4Blocks, lz4(&data)), (Packing::Zstd, zst)] {
            asked.set(0);
            let told = unpack_unless(packing, &packed, 1 << 30, &cancelled);
            assert!(matches!(told, Err(UnpackError::Damaged { .. })));
            assert_eq!(asked.get(), 4);
            assert_eq!(unpack(packing, &packed, 1 << 30).unwrap(), data);
        }
    }

    #[test]
    fn zstd_ignores_what_follows_the_stream() {
        let mut zst = zstd::bulk::compress(b"kernel", 1).unwrap();
        zst.extend(6u32.to_le_bytes());
        assert_eq!(unpack(Packing::Zstd, &zst, 100).unwrap(), b"kernel");
    }

    #[test]
    fn formats_are_known_by_their_magic() {
        assert_eq!(Packing::of(&[0x1f, 0x8b, 8]), Some(Packing::Gzip));
        assert_eq!(Packing::of(b"\xfd7zXZ\0..."), Some(Packing::Xz));
        assert_eq!(Packing::of(b"\x7fELF"), None);
        assert_eq!(Packing::of(b""), None);
    }
}
