//! What a journal holds of transactions that were finished and not written back
//! (`Documentation/filesystems/ext4/journal.rst`, `fs/jbd2/recovery.c`). Nothing is written.

use super::node::Run;
use super::source::{ReadAt, ReadError, get32_be};
use super::volume::{JOURNAL_MAGIC as MAGIC, Overlay, Volume};

/// Blocks of a journal: more than any tool makes.
const MAX_BLOCKS: usize = 1 << 20;
/// Block numbers have 64 bits.
const BITS64: u32 = 0x2;
const CHECKSUM_2: u32 = 0x8;
const CHECKSUM_3: u32 = 0x10;
/// Block numbers revoked, 64 bits, a commit that may be written before its blocks, and the checksums; fast commits are not.
const KNOWN: u32 = 0x1 | BITS64 | 0x4 | CHECKSUM_2 | CHECKSUM_3;
/// Blocks that one transaction revokes: more metadata than one gives back, and not more memory than there is, for a
/// journal's blocks may all be the same one of a small file.
const MAX_REVOKED: usize = 4 << 20;
const DAMAGED: ReadError = ReadError::Damaged("the journal is not one");

struct Log<'a, R> {
    volume: &'a Volume<R>,
    /// Where each block of the journal is.
    places: Vec<u64>,
    first: u32,
    features: u32,
}

/// One transaction on the way: blocks and where their content is, and blocks whose older content is not to come back.
#[derive(Default)]
struct Transaction {
    writes: Vec<(u64, (u64, bool))>,
    revoked: Vec<u64>,
}

/// The blocks of all finished transactions, the last of each.
pub fn recover<R: ReadAt>(
    volume: &Volume<R>,
    runs: &[Run],
    size: u64,
) -> Result<Overlay, ReadError> {
    let length = usize::try_from(size / volume.block as u64).map_err(|_| DAMAGED)?;
    if length > MAX_BLOCKS {
        return Err(DAMAGED);
    }
    let places = runs
        .iter()
        .flat_map(|run| run.disk..run.disk + u64::from(run.len));
    let places: Vec<u64> = places.take(length).collect();
    let mut log = Log {
        volume,
        places,
        first: 0,
        features: 0,
    };
    let superblock = log.block(0)?;
    let kind = get32_be(&superblock, 4);
    if get32_be(&superblock, 0) != MAGIC || !matches!(kind, 3 | 4) {
        return Err(DAMAGED);
    }
    log.features = if kind == 4 {
        get32_be(&superblock, 0x28)
    } else {
        0
    };
    if log.features & !KNOWN != 0 {
        return Err(ReadError::Unsupported("a journal with fast commits"));
    }
    log.first = get32_be(&superblock, 0x14);
    let blocks = get32_be(&superblock, 0x10) as usize;
    if blocks > log.places.len() || log.first == 0 || log.first as usize >= blocks {
        return Err(DAMAGED);
    }
    log.places.truncate(blocks);
    let (sequence, start) = (get32_be(&superblock, 0x18), get32_be(&superblock, 0x1c));
    if start == 0 {
        return Ok(Overlay::new());
    }
    log.replay(sequence, start)
}

impl<R: ReadAt> Log<'_, R> {
    fn block(&self, number: u32) -> Result<Box<[u8]>, ReadError> {
        let place = self.places.get(number as usize).ok_or(DAMAGED)?;
        let mut bytes = vec![0; self.volume.block];
        let offset = place.saturating_mul(self.volume.block as u64);
        self.volume.read(offset, &mut bytes)?;
        Ok(bytes.into())
    }

    fn after(&self, number: u32) -> u32 {
        let next = number.saturating_add(1);
        if next as usize >= self.places.len() {
            self.first
        } else {
            next
        }
    }

    fn replay(&self, mut sequence: u32, start: u32) -> Result<Overlay, ReadError> {
        let mut overlay = Overlay::new();
        let mut transaction = Transaction::default();
        let mut at = start;
        // No block of the log is looked at twice.
        let mut left = self.places.len();
        while left > 0 {
            let block = self.block(at)?;
            if get32_be(&block, 0) != MAGIC || get32_be(&block, 8) != sequence {
                break;
            }
            at = self.after(at);
            left -= 1;
            match get32_be(&block, 4) {
                1 => {
                    for (number, escaped) in self.tags(&block) {
                        if left == 0 {
                            return Ok(overlay);
                        }
                        let place = *self.places.get(at as usize).ok_or(DAMAGED)?;
                        transaction.writes.push((number, (place, escaped)));
                        at = self.after(at);
                        left -= 1;
                    }
                }
                2 => {
                    let Transaction { writes, revoked } = std::mem::take(&mut transaction);
                    overlay.extend(writes);
                    for number in revoked {
                        overlay.remove(&number);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                5 => {
                    self.revoked(&block, &mut transaction.revoked);
                    if transaction.revoked.len() > MAX_REVOKED {
                        return Err(ReadError::Damaged("the journal revokes too many blocks"));
                    }
                }
                _ => break,
            }
        }
        Ok(overlay)
    }

    /// Which blocks follow a descriptor, and whether their first word was taken out because it looked like the journal's.
    fn tags(&self, block: &[u8]) -> Vec<(u64, bool)> {
        let wide = self.features & BITS64 != 0;
        let third = self.features & CHECKSUM_3 != 0;
        let second = self.features & CHECKSUM_2 != 0;
        let length = match (third, wide) {
            (true, _) => 16,
            (false, wide) => 8 + if wide { 4 } else { 0 } + if second { 2 } else { 0 },
        };
        let end = block.len() - if third || second { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + length <= end {
            let flags = get32_be(block, at + 4) & if third { u32::MAX } else { 0xffff };
            let high = if wide { get32_be(block, at + 8) } else { 0 };
            let number = u64::from(high) << 32 | u64::from(get32_be(block, at));
            tags.push((number, flags & 1 != 0));
            // Unless it is that of the tag before, a UUID follows.
            at += length + if flags & 2 == 0 { 16 } else { 0 };
            if flags & 8 != 0 {
                break;
            }
        }
        tags
    }

    fn revoked(&self, block: &[u8], revoked: &mut Vec<u64>) {
        let width = if self.features & BITS64 == 0 { 4 } else { 8 };
        let end = (get32_be(block, 12) as usize).min(block.len());
        let mut at = 16;
        while at + width <= end {
            let high = if width == 8 { get32_be(block, at) } else { 0 };
            revoked.push(u64::from(high) << 32 | u64::from(get32_be(block, at + width - 4)));
            at += width;
        }
    }
}
