//! Maps of sparse files.

use super::fields::{self, Block, Field};
use super::{Extent, MAX_EXTENTS, pax};

/// Where an old GNU header has its four pieces, whether more blocks follow, and the size with holes.
const OLD_MAP: Field = (386, 4 * 24);
const OLD_MORE: usize = 482;
const OLD_REAL_SIZE: Field = (483, 12);
/// The same of the blocks that follow.
const MORE_MAP: Field = (0, 21 * 24);
const MORE_MORE: usize = 504;

/// The pieces of an old GNU header.
#[derive(Debug, Default)]
pub struct OldMap {
    pub extents: Vec<Extent>,
    pub real_size: u64,
    /// Whether another block of pieces follows.
    pub more: bool,
}

impl OldMap {
    /// Reads those of the header itself.
    pub fn of(header: &Block) -> Option<Self> {
        let mut map = Self {
            real_size: u64::try_from(fields::number(fields::field(header, OLD_REAL_SIZE))?).ok()?,
            ..Self::default()
        };
        map.take(fields::field(header, OLD_MAP))?;
        map.more = header[OLD_MORE] != 0;
        Some(map)
    }

    /// Reads those of a block that follows.
    pub fn go_on(&mut self, block: &Block) -> Option<()> {
        self.take(fields::field(block, MORE_MAP))?;
        self.more = block[MORE_MORE] != 0;
        Some(())
    }

    fn take(&mut self, pieces: &[u8]) -> Option<()> {
        for piece in pieces.chunks_exact(24) {
            if piece[0] == 0 {
                break;
            }
            let value = |at: usize| u64::try_from(fields::number(&piece[at..at + 12])?).ok();
            self.extents.push(Extent {
                offset: value(0)?,
                length: value(12)?,
            });
        }
        (self.extents.len() <= MAX_EXTENTS).then_some(())
    }
}

/// A map at the beginning of the data (format 1.0), read line by line.
#[derive(Debug, Default)]
pub struct MapText {
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    extents: Vec<Extent>,
}

impl MapText {
    /// Takes a block; the map when it is complete (the rest of its last block is padding).
    pub fn take(&mut self, block: &Block) -> Option<Option<Vec<Extent>>> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return None;
                }
                continue;
            }
            let value = pax::decimal(&self.line)?;
            self.line.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(value),
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => self.extents.push(Extent {
                    offset,
                    length: value,
                }),
            }
            if self.extents.len() > MAX_EXTENTS {
                return None;
            }
            if self.count == Some(self.extents.len() as u64) && self.offset.is_none() {
                return Some(Some(std::mem::take(&mut self.extents)));
            }
        }
        Some(None)
    }
}

/// Whether the pieces ascend, stay within the file and hold just the data that follows.
pub fn is_sound(extents: &[Extent], size: u64, data: u64) -> bool {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for extent in extents {
        let Some(next) = extent.offset.checked_add(extent.length) else {
            return false;
        };
        if extent.offset < end || next > size {
            return false;
        }
        end = next;
        // No overflow: the pieces do not overlap.
        sum += extent.length;
    }
    sum == data && i64::try_from(size).is_ok()
}
