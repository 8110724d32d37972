//! Decompression of what kernels, modules and packages are packed with.
//!
//! Every format is recognised by its magic number, never by a file's name, and every call has a cap: the bytes come
//! from outside and a few kilobytes can unfold into terabytes.

use std::io::Read;

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

/// A reader that unfolds `bytes` as it is read, for data too large to hold.
///
/// # Errors
/// When the decoder cannot be set up, or lz4 data (unfolded at once, it is never large) is damaged.
pub fn reader<'a>(packing: Packing, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, UnpackError> {
    Ok(match packing {
        Packing::Gzip => Box::new(flate2::bufread::GzDecoder::new(bytes)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new(bytes, true)),
        Packing::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(bytes)
                .map_err(|source| UnpackError::Damaged { packing, source })?,
        ),
        Packing::Lz4Blocks => Box::new(std::io::Cursor::new(lz4_blocks(bytes, 1 << 30)?)),
    })
}

/// Unfolds `bytes` up to `cap` bytes. Anything after the packed stream is ignored (kernels append their size).
pub fn unpack(packing: Packing, bytes: &[u8], cap: usize) -> Result<Vec<u8>, UnpackError> {
    let damaged = |source| UnpackError::Damaged { packing, source };
    match packing {
        Packing::Lz4Blocks => lz4_blocks(bytes, cap),
        Packing::Gzip => capped(flate2::bufread::GzDecoder::new(bytes), packing, cap),
        Packing::Xz => capped(lzma_rust2::XzReader::new(bytes, false), packing, cap),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
            capped(decoder.single_frame(), packing, cap)
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

/// The largest block of the format (the encoder's fixed 8 MiB).
const LZ4_BLOCK: usize = 8 << 20;

fn lz4_blocks(bytes: &[u8], cap: usize) -> Result<Vec<u8>, UnpackError> {
    let packing = Packing::Lz4Blocks;
    let damaged = |what: String| UnpackError::Damaged {
        packing,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, what),
    };
    let mut rest = bytes.get(4..).unwrap_or_default();
    let mut out = Vec::new();
    let mut block = vec![0u8; LZ4_BLOCK];
    while let Some((size, after)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size) as usize;
        // What follows the last block is the kernel's size trailer, alone: no block can follow it.
        if after.is_empty() {
            break;
        }
        let packed = after.get(..size).ok_or_else(|| {
            damaged(format!(
                "a block of {size} bytes is announced, {} are left",
                after.len()
            ))
        })?;
        let n = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|e| damaged(e.to_string()))?;
        if out.len() + n > cap {
            return Err(UnpackError::TooLarge { packing, cap });
        }
        out.extend_from_slice(&block[..n]);
        rest = &after[size..];
    }
    Ok(out)
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
