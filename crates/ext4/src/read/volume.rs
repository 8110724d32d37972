//! The file system as blocks: superblock, descriptors, and what the journal has of later date.

use super::source::{ReadAt, ReadError, get16, get32, get64};
use crate::checksum::Checksum;
use crate::write::has_super;
use std::collections::BTreeMap;

/// Features that change what is read, and are known.
const KNOWN: u32 = 0x2 | RECOVER | META_BG | 0x40 | BITS64 | 0x100 | 0x200 | 0x400 | SEED | 0x4000;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const BITS64: u32 = 0x80;
const SEED: u32 = 0x2000;
/// Metadata has checksums.
const CHECKSUMS: u32 = 0x400;

/// Blocks that the journal has of later date, by the block they belong to: where they are, and whether their first word is to
/// be put back, which was taken out because it looked like the journal's own.
pub type Overlay = BTreeMap<u64, (u64, bool)>;
/// That word.
pub const JOURNAL_MAGIC: u32 = 0xc03b_3998;
const OTHER_SUPERBLOCK: ReadError = ReadError::Damaged("the journal has another superblock");

/// A file system's blocks and numbers.
#[derive(Debug)]
pub struct Volume<R> {
    source: R,
    superblock: Vec<u8>,
    overlay: Overlay,
    /// Bytes of a block.
    pub block: usize,
    /// Bytes of an inode.
    pub inode: usize,
    /// The start of checksums, if there are some.
    pub checksum: Option<Checksum>,
    descriptor: usize,
    blocks: u64,
}

impl<R: ReadAt> Volume<R> {
    pub fn open(source: R) -> Result<Self, ReadError> {
        let mut superblock = vec![0; 1024];
        source.read_exact_at(&mut superblock, 1024)?;
        Volume::of(source, superblock)
    }

    fn of(source: R, superblock: Vec<u8>) -> Result<Self, ReadError> {
        if get16(&superblock, 0x38) != 0xef53 {
            return Err(ReadError::NotExt4);
        }
        let incompatible = get32(&superblock, 0x60);
        if incompatible & !KNOWN != 0 {
            return Err(ReadError::Unsupported("features of its own kind"));
        }
        let log = get32(&superblock, 0x18);
        let revision = get32(&superblock, 0x4c);
        let inode = if revision == 0 {
            128
        } else {
            usize::from(get16(&superblock, 0x58))
        };
        let bits64 = incompatible & BITS64 != 0;
        let descriptor = if bits64 {
            usize::from(get16(&superblock, 0xfe))
        } else {
            32
        };
        let blocks = blocks_of(&superblock);
        let groups = [get32(&superblock, 0x20), get32(&superblock, 0x28)];
        if log > 6 || groups.contains(&0) {
            return Err(ReadError::Damaged("the superblock has impossible sizes"));
        }
        let block = 1024 << log;
        let sizes = [inode, descriptor].into_iter().zip([128, 32]);
        if sizes
            .into_iter()
            .any(|(size, least)| size < least || size > block || !size.is_power_of_two())
        {
            return Err(ReadError::Damaged("the superblock has impossible sizes"));
        }
        let checksum = if get32(&superblock, 0x64) & CHECKSUMS == 0 {
            None
        } else {
            let sum = Checksum::START.bytes(&superblock[..0x3fc]).value();
            if sum != get32(&superblock, 0x3fc) {
                return Err(ReadError::Damaged("the superblock's checksum is wrong"));
            }
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&superblock[0x68..0x78]);
            let seed = get32(&superblock, 0x270);
            Some(match incompatible & SEED {
                0 => Checksum::of_file_system(&uuid),
                _ => Checksum::from_value(seed),
            })
        };
        Ok(Volume {
            source,
            superblock,
            overlay: Overlay::new(),
            block,
            inode,
            checksum,
            descriptor,
            blocks,
        })
    }

    /// Whether the journal holds what has not been written back.
    pub fn needs_recovery(&self) -> bool {
        get32(&self.superblock, 0x60) & RECOVER != 0
    }

    /// The journal's inode.
    pub fn journal(&self) -> Result<u32, ReadError> {
        match get32(&self.superblock, 0xe0) {
            0 => Err(ReadError::Unsupported("a journal on another device")),
            number => Ok(number),
        }
    }

    /// Reads as if these blocks had been written back, the superblock among them: what the journal has of it is looked at
    /// as closely as the first.
    pub fn with_overlay(mut self, overlay: Overlay) -> Result<Self, ReadError> {
        self.overlay = overlay;
        let mut superblock = vec![0; 1024];
        self.read(1024, &mut superblock)?;
        let block = self.block;
        let later = match Volume::of(self.source, superblock) {
            Err(ReadError::NotExt4) => Err(OTHER_SUPERBLOCK),
            other => other,
        }?;
        // The journal's blocks are counted by this.
        if later.block != block {
            return Err(OTHER_SUPERBLOCK);
        }
        let overlay = self.overlay;
        Ok(Volume { overlay, ..later })
    }

    /// Reads bytes that lie in the file system.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let block = self.block as u64;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.blocks.saturating_mul(block) {
            return Err(ReadError::Damaged("a block number is beyond its end"));
        }
        self.source.read_exact_at(bytes, offset)?;
        for (&number, &(place, escaped)) in self.overlay.range(offset / block..end.div_ceil(block))
        {
            let start = number * block;
            let mut content = vec![0; self.block];
            let later = place.saturating_mul(block);
            self.source.read_exact_at(&mut content, later)?;
            if escaped {
                content[..4].copy_from_slice(&JOURNAL_MAGIC.to_be_bytes());
            }
            let (from, to) = (start.max(offset), start.saturating_add(block).min(end));
            let index = |position: u64| usize::try_from(position).unwrap_or(0);
            bytes[index(from - offset)..index(to - offset)]
                .copy_from_slice(&content[index(from - start)..index(to - start)]);
        }
        Ok(())
    }

    /// An inode's bytes.
    pub fn inode_bytes(&self, number: u32) -> Result<Vec<u8>, ReadError> {
        if number == 0 || number > get32(&self.superblock, 0x00) {
            return Err(ReadError::Damaged("an inode number is beyond the last"));
        }
        let group_inodes = get32(&self.superblock, 0x28);
        let table = self.table((number - 1) / group_inodes)?;
        let offset = u64::from((number - 1) % group_inodes) * self.inode as u64;
        let mut bytes = vec![0; self.inode];
        let start = table.saturating_mul(self.block as u64);
        self.read(start.saturating_add(offset), &mut bytes)?;
        Ok(bytes)
    }

    /// The first block of a group's inodes.
    fn table(&self, group: u32) -> Result<u64, ReadError> {
        let per_block = u32::try_from(self.block / self.descriptor).unwrap_or(1);
        let first = u64::from(get32(&self.superblock, 0x14));
        let meta = group / per_block;
        let meta_bg = get32(&self.superblock, 0x60) & META_BG != 0;
        let block = if meta_bg && meta >= get32(&self.superblock, 0x104) {
            let group = meta * per_block;
            let start = u64::from(group) * u64::from(get32(&self.superblock, 0x20));
            first + start + u64::from(has_super(group))
        } else {
            first + 1 + u64::from(meta)
        };
        let mut bytes = vec![0; self.descriptor];
        let place = u64::from(group % per_block) * self.descriptor as u64;
        let start = block.saturating_mul(self.block as u64);
        self.read(start.saturating_add(place), &mut bytes)?;
        let high = if self.descriptor >= 64 { 0x28 } else { 64 };
        Ok(get64(&bytes, 0x08, high))
    }
}

fn blocks_of(superblock: &[u8]) -> u64 {
    let bits64 = get32(superblock, 0x60) & BITS64 != 0;
    // Beyond the end there are zeros.
    get64(
        superblock,
        0x04,
        if bits64 { 0x150 } else { superblock.len() },
    )
}
